"""A forecast comes before the work, from the run's own steps, and changes nothing of the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs the [train] extra")

import two_processes  # noqa: E402
from image2sentence.catalogue import write_catalogue  # noqa: E402
from image2sentence.training import forecast as expected  # noqa: E402
from image2sentence.training import train as run  # noqa: E402
from image2sentence.training.models.query_model import build_query_model  # noqa: E402
from image2sentence.training.trainer import Trainer  # noqa: E402
from image2sentence.training.vl.load import load_vl  # noqa: E402
from tiny_vl import save_tiny_vl  # noqa: E402

SETTINGS = replace(
    two_processes.SETTINGS, steps=100, batch=4, save_every=40, validation=5, lar="off", modifier_weight=0.0
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (99, "99 s"), (119, "2 min"), (5_900, "98 min"), (7_500, "2 h 05 min")],
)
def test_durations_as_people_say_them(seconds: float, text: str) -> None:
    assert expected.spoken(seconds) == text


def test_steps_pictures_and_looks_are_multiplied_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_catalogue(tmp_path / "drawn", 30, seed=1, size=40) / "images"
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    vl = load_vl(str(save_tiny_vl("clip", tmp_path / "vl")))
    model = build_query_model(vl, "tiny/32", SETTINGS.learner)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    clock = [0.0]

    def takes(seconds: float, result: object) -> object:
        def does(*_: object, **__: object) -> object:
            clock[0] += seconds
            return result

        return does

    paths = sorted(folder.iterdir())
    monkeypatch.setattr(expected.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(expected, "encode_some", takes(4.0, paths[1:5]))  # 8 pictures
    monkeypatch.setattr(Trainer, "_step", takes(2.0, {}))
    monkeypatch.setattr(Trainer, "validate", takes(1.6, 0.0))  # 8 pictures
    found = expected.forecast(vl, None, model, SETTINGS, None, paths, tmp_path / "run", known=False)
    assert found is not None
    assert found.encoding == pytest.approx(31 * 0.5)
    assert found.training == pytest.approx(100 * 2.0)
    assert found.validation == pytest.approx(3 * 5 * 0.2)  # after 40, 80 and 100 steps
    known = expected.forecast(vl, None, model, SETTINGS, None, paths, tmp_path / "run", known=True)
    assert known is not None
    assert known.encoding == 0
    assert "gallery" not in str(known)
    assert not (tmp_path / "run").exists()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


class _Enough(Exception):
    pass


def test_it_is_said_before_the_work_and_again_when_half_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def enough(_: Trainer) -> dict[str, object]:
        raise _Enough

    monkeypatch.setattr(Trainer, "run", enough)
    folder = write_catalogue(tmp_path / "drawn", 16, seed=1, size=40) / "images"
    vl = save_tiny_vl("clip", tmp_path / "vl")
    settings = replace(SETTINGS, steps=expected.SHORT, save_every=50)
    request = run.TrainRequest(folder, str(vl), "tiny/32", tmp_path / "run", settings)
    said: list[tuple[str, bool]] = []
    targets = tmp_path / "run" / "targets.safetensors"
    with pytest.raises(_Enough):
        run.train(request, say=lambda line: said.append((line, targets.exists())))
    assert [there for _, there in said] == [False, True]
    assert said[0][0].startswith("gallery vectors of 16 pictures about ")
    assert "50 steps about " in said[0][0]
    assert "training takes about " in said[1][0]
