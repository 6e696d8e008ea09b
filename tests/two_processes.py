"""Write to a folder what several processes compute together; run by tests/training/test_processes.py.

torchrun --nproc-per-node 2 tests/two_processes.py MATERIAL OUT
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from image2sentence.encoders.config import LearnerConfig, Preprocessing
from image2sentence.training import checkpoint as state
from image2sentence.training import dataset as pictures
from image2sentence.training import phrase_bank as phrases
from image2sentence.training.distributed import Processes
from image2sentence.training.models.light_encoders import LightEncoder
from image2sentence.training.models.query_model import QueryModel
from image2sentence.training.models.token_learner import build_learner
from image2sentence.training.settings import TrainSettings
from image2sentence.training.trainer import Trainer
from image2sentence.training.vl.load import load_vl

SETTINGS = TrainSettings(
    learner=LearnerConfig(tokens=2, width=16, heads=2, blocks=1, gates=True),
    steps=4,
    batch=8,
    warmup=1,
    lar_batch=4,
    validation=6,
    save_every=2,
    precision="no",
    gcd="info_nce",
    gcd_weight=1.0,
)

CASES = {
    "matching": (
        "conv_blip",
        replace(SETTINGS, modifier="info_nce", caption_weight=0.5, learn_temperature=True),
    ),
    "local": ("clip", replace(SETTINGS, gcd="symmetric", queue=5)),
    "kl": ("conv_blip", replace(SETTINGS, gcd="kl", lar="off", modifier_weight=0.0, accumulate=2)),
    "mse": ("conv_blip", replace(SETTINGS, gcd="mse", lar="off", modifier_weight=0.0)),
}


def make_trainer(
    material: Path, out: Path, vl_kind: str, settings: TrainSettings, processes: Processes
) -> Trainer:
    """A trainer whose light encoder has no batch norm: what depends on the batch are the losses alone."""
    vl = load_vl(str(material / vl_kind))
    bank = phrases.build_bank(
        vl, phrases.WordLists(["a red shirt", "a blue mug", "a green"], ["in blue", "but long"])
    )
    torch.manual_seed(processes.index)  # the main process's weights are shared
    body = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.GELU(), nn.Conv2d(16, 24, 2, 2), nn.GELU())
    learner = build_learner(settings.learner, 24, vl.word_width, vl.word_norm())
    model = QueryModel(LightEncoder(body, 24, Preprocessing(32)), learner, Preprocessing(32))
    collection = pictures.collect(
        material / "catalogue", vl, out / f"{vl_kind}.safetensors", processes=processes
    )
    return Trainer(vl, model, collection, settings, out, bank, processes)


def gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Every trained parameter's gradient, by name."""
    named = {**dict(trainer.model.named_parameters()), **dict(trainer.objective.named_parameters())}
    return {name: p.grad for name, p in named.items() if p.grad is not None}


def steps(material: Path, out: Path, name: str, processes: Processes) -> None:
    """The losses and the first step's gradients, and the weights after three steps."""
    trainer = make_trainer(material, out, *CASES[name], processes)
    turns = trainer.settings.accumulate
    batches = list(trainer.loader.ahead(0, 3 * turns, processes.part))
    values, tensors = [], {}
    for step in range(3):
        values.append(trainer._step(step, batches[step * turns : (step + 1) * turns]))
        if step == 0:
            tensors = state.prefixed("gradient", gradients(trainer))
    tensors |= state.prefixed("model", trainer.model.state_dict())
    state.save_tensors(out / f"{name}.{processes.index}.safetensors", tensors, {"losses": values})


def interrupted(material: Path, out: Path, processes: Processes) -> None:
    """A whole run, and one that is killed after its first save and started again."""
    make_trainer(material, out / "whole", "clip", CASES["local"][1], processes).run()
    broken = make_trainer(material, out / "broken", "clip", CASES["local"][1], processes)
    step = broken._step

    def dies(number: int, batches: object) -> dict[str, float]:
        if number == 3:
            raise KeyboardInterrupt
        return step(number, batches)  # type: ignore[arg-type]

    broken._step = dies  # type: ignore[method-assign,assignment]
    try:
        broken.run()
    except KeyboardInterrupt:
        processes.wait()
        make_trainer(material, out / "broken", "clip", CASES["local"][1], processes).run()


def main(material: Path, out: Path) -> None:
    """All cases."""
    torch.set_num_threads(1)
    pictures.PART = 10  # so that both have some to encode
    processes = Processes()
    for name in CASES:
        steps(material, out, name, processes)
    interrupted(material, out, processes)
    (out / f"processes.{processes.index}.json").write_text(json.dumps(processes.count))
    if processes.count > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
