"""Laws of the grader: no exception for any text, and no change by blanks, case, markup or units."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.records import Kind
from stillroom.tasks.answers import KINDS, grade

CHOICES = ("21", "21.5", "22", "22.5", "23")
LAWS = settings(derandomize=True, deadline=None, max_examples=60, database=None)
BLANKS = st.text(" \t\n", max_size=6)
DRESS = st.sampled_from(["{}", "**{}**", "*{}*", "_{}_", "`{}`", '"{}"', "${}$", "\\({}\\)", "\\boxed{{{}}}", "({})"])
UNITS = st.sampled_from(["", " dollars", " km/h", " cm", "%", " apples", " years old", " square feet", " cm^2"])
NUMBERS = st.one_of(st.integers(-(10**9), 10**9).map(str), st.decimals(-999, 999, places=2).map(str))


def right(kind: Kind, gold: str, text: str) -> bool:
    return grade(kind, gold, text, CHOICES if kind == "choice" else ()).correct


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "math"])
@given(text=st.text(st.characters(codec=None), max_size=200), gold=st.text(max_size=20))
@LAWS
def test_no_text_raises(kind: Kind, text: str, gold: str) -> None:
    for piece in (text, f"The answer is {text}", f"\\boxed{{{text}", f"#### {text}"):
        verdict = grade(kind, gold, piece, CHOICES)
        assert verdict.correct == verdict.equivalent


@given(text=st.text("0123456789.,:/-+$%^{}\\()[] abfrac=xe×", max_size=60))
@LAWS
def test_no_formula_raises(text: str) -> None:
    for kind in ("math", "numeric"):
        grade(kind, "12", f"The answer is ${text}$.")  # type: ignore[arg-type]


@given(gold=NUMBERS, before=BLANKS, after=BLANKS, dress=DRESS)
@LAWS
def test_blanks_and_markup_change_no_number(gold: str, before: str, after: str, dress: str) -> None:
    assert right("numeric", gold, f"{before}The answer is {dress.format(gold)}.{after}")
    assert right("numeric", gold, f"{before}{dress.format(gold)}{after}")


@given(gold=NUMBERS, unit=UNITS)
@LAWS
def test_units_change_no_number(gold: str, unit: str) -> None:
    assert right("numeric", gold, f"So we add them up. The answer is {gold}{unit}.")
    assert right("numeric", gold, f"Therefore, the total is {gold}{unit}.")
    assert right("numeric", f"{gold}{unit}", gold)


@given(gold=st.integers(1000, 10**12))
@LAWS
def test_separators_change_no_number(gold: int) -> None:
    assert right("numeric", str(gold), f"The answer is {gold:,}.")
    assert right("numeric", f"{gold:,}", f"#### {gold}")
    assert right("math", str(gold), f"\\boxed{{{gold:,}}}")


@given(gold=st.integers(-999, 999), other=st.integers(-999, 999))
@LAWS
def test_another_number_is_wrong(gold: int, other: int) -> None:
    assert right("numeric", str(gold), f"The answer is {other}.") == (gold == other)
    assert right("math", str(gold), f"\\boxed{{{other}}}") == (gold == other)


@given(top=st.integers(-99, 99), bottom=st.integers(1, 99))
@LAWS
def test_a_fraction_in_any_dress_is_one_value(top: int, bottom: int) -> None:
    shared = math.gcd(top, bottom) or 1
    for text in (
        f"{top // shared}/{bottom // shared}",
        f"\\frac{{{top}}}{{{bottom}}}",
        f"\\dfrac{{{top}}}{{{bottom}}}",
    ):
        assert right("numeric", f"{top}/{bottom}", f"The answer is ${text}$.")
        assert right("math", f"\\frac{{{top}}}{{{bottom}}}", f"The answer is ${text}$.")


@given(letter=st.sampled_from("ABCDE"), other=st.sampled_from("ABCDE"), dress=DRESS, before=BLANKS, after=BLANKS)
@LAWS
def test_a_letter_in_any_dress_is_one_choice(letter: str, other: str, dress: str, before: str, after: str) -> None:
    for text in (f"The answer is {dress.format(other)}.", dress.format(other), f"Answer: option {other}"):
        assert right("choice", letter, before + text + after) == (letter == other)


@given(gold=st.sampled_from(["yes", "no"]), said=st.sampled_from(["yes", "no"]), dress=DRESS, blanks=BLANKS)
@LAWS
def test_case_and_markup_change_no_yes(gold: str, said: str, dress: str, blanks: str) -> None:
    for word in (said, said.upper(), said.title()):
        for text in (f"The answer is {dress.format(word)}.", dress.format(word), f"Final Answer: {word}"):
            assert right("boolean", gold, blanks + text + blanks) == (gold == said)


@given(words=st.lists(st.sampled_from(["paris", "red", "river", "stone", "lake"]), min_size=1, max_size=3), dress=DRESS)
@LAWS
def test_case_and_markup_change_no_words(words: list[str], dress: str) -> None:
    gold = " ".join(words)
    for text in (gold, gold.upper(), f"The answer is {gold}.", f"The answer is the {gold.title()}"):
        assert right("text", gold, text)
    assert right("text", gold, dress.format(gold))
