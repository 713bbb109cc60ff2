"""The rule of kinds, example by example."""

import pytest

from stillroom.records import Kind
from stillroom.tasks.answers import grade
from stillroom.tasks.benchmarks.kinds import infer, letter_of

EXAMPLES: dict[Kind, list[str]] = {
    "numeric": [
        "42", "-3", "60 km/h", "1,234.50", "$5", "€ 5", "5%", "5 %", "3/4", "1 1/2", "5:45", "3:30 p.m.", "12 apples",
        "9 m^2", "7 square feet", "1e5", ".5", "~7.2", "60km", "20 °C", "6th", "5 m",
    ],
    "boolean": ["yes", "No", "TRUE", "false."],
    "math": [
        r"\frac{1}{2}", r"60^\circ", "$x$", "x^2 + 1", "3x", "(1, 2)", "[0, 5)", "x = 3", "2 + sqrt(3)", r"\text{odd}",
        "√3", "2π", "12,34", r"\$5",
    ],
    "text": ["Mary", "the red one", "a", "20 December 2020 or later", "February 3rd", "", "B", "5 apples and 3 pears"],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "answer"), [(kind, answer) for kind, many in EXAMPLES.items() for answer in many])
def test_the_kind_is_read_off_the_answer(kind: Kind, answer: str) -> None:
    assert infer(answer) == kind
    if answer:
        assert grade(infer(answer), answer, f"The answer is {answer}.").correct


@pytest.mark.parametrize("answer", ["B", "b", "(B)", "B)", "mall", "Mall "])
def test_a_letter_or_an_option_s_text_is_a_choice(answer: str) -> None:
    assert letter_of(answer, ("bank", "mall")) == "B"


@pytest.mark.parametrize("answer", ["C", "park", "AB", ""])
def test_what_is_no_option_is_no_choice(answer: str) -> None:
    assert letter_of(answer, ("bank", "mall")) is None
    assert letter_of("mall", ("mall", "mall")) is None
