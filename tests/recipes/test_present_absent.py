"""How the measure of present and absent words counts, and that what it chooses on is not what it judges."""

from __future__ import annotations

from recipes.present_absent import Asked, area, best_cut_off, halves, passing, with_interval


def asked(present: bool, *fits: float | None) -> list[Asked]:
    return [
        Asked(f"{present} {n // 2}", f"{n}", present, fit) for n, fit in enumerate(fits)
    ]  # two wordings of a label


def test_the_area_is_the_chance_that_what_is_there_fits_better() -> None:
    assert area([*asked(True, 5, 3), *asked(False, 4, 1)]) == 3 / 4
    assert area([*asked(True, 5), *asked(False, 5)]) == 1 / 2
    assert area([*asked(True, None), *asked(False, -50.0)]) == 0  # not understood: less than anything


def test_a_cut_off_is_chosen_where_most_answers_are_right() -> None:
    words = [*asked(True, 5, 4.5, 1), *asked(False, 4, 2, 1, 0)]
    assert best_cut_off(words) == 4.1
    assert (round(passing(True, 4.1)(words)), passing(False, 4.1)(words)) == (67, 0)


def test_no_label_is_on_both_sides_and_wordings_stay_together() -> None:
    words = [*asked(True, *range(20)), *asked(False, *range(30))]
    first, second = halves(words, seed=3)
    assert {one.label for one in first}.isdisjoint(one.label for one in second)
    assert sorted([*first, *second], key=str) == sorted(words, key=str)
    assert [sum(one.present for one in side) for side in (first, second)] == [10, 10]


def test_an_interval_holds_the_figure() -> None:
    assert with_interval([*asked(True, *[5] * 8), *asked(False, *[1] * 8)], area, 0) == "1.00 (1.00 to 1.00)"
    assert with_interval(
        [*asked(True, *[5, 5, 1, 1] * 9), *asked(False, 1, 1)], passing(True, 4), 0
    ).startswith("50 (")
