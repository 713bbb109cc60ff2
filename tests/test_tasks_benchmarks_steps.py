"""Steps by hand, from calculator notes and from equations."""

import pytest

from stillroom.tasks.benchmarks.steps import equation_steps, note_steps


@pytest.mark.parametrize(
    ("equation", "steps"),
    [
        ("( 4.0 - 3.0 )", [("4 - 3", "1")]),
        ("( ( 4.0 + 13.0 ) * 15.0 )", [("4 + 13", "17"), ("17 * 15", "255")]),
        ("( 10.0 - ( 2.0 * 3.0 ) )", [("2 * 3", "6"), ("10 - 6", "4")]),
        ("( ( 1.0 + 2.0 ) * ( 3.0 + 4.0 ) )", [("1 + 2", "3"), ("3 + 4", "7"), ("3 * 7", "21")]),
        ("( 3.0 - ( 4.0 - 9.0 ) )", [("4 - 9", "-5"), ("3 - -5", "8")]),
        ("( 7.0 / 2.0 )", [("7 / 2", "3.5")]),
        ("5.0", []),
    ],
)
def test_steps_are_worked_by_hand(equation: str, steps: list[tuple[str, str]]) -> None:
    assert [(s.expression, s.value) for s in equation_steps(equation)] == steps


@pytest.mark.parametrize(
    ("equation", "told"),
    [("( 4.0 / 0.0 )", "divides by zero"), ("( 4.0 - 3.0", "not a chain"), ("", "not a chain"), ("( x + 1 )", "chain")],
)
def test_what_is_no_equation_is_named(equation: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        equation_steps(equation)


def test_a_note_s_value_stands_behind_its_last_equals_sign() -> None:
    steps = note_steps(["48/2=24", "90,000+9,000=99,000", "6-5=$1", "36*1/5=7.2=7", "1/2+1/4=3/4"])
    assert [(s.expression, s.value) for s in steps] == [
        ("48/2", "24"), ("90,000+9,000", "99000"), ("6-5", "1"), ("36*1/5", "7"), ("1/2+1/4", "3/4"),
    ]  # fmt: skip


@pytest.mark.parametrize("note", ["80/3=27(roundedup)", "12", "=12", "10*.01*72=7.2=", ""])
def test_a_note_without_a_number_as_its_value_is_named(note: str) -> None:
    with pytest.raises(ValueError, match="has no number as its value"):
        note_steps([note])
