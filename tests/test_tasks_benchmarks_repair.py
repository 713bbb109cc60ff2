"""Repairs undo exactly what was done, and leave whole text alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.tasks.benchmarks.notes import Notes
from stillroom.tasks.benchmarks.repair import balanced, boxed, clean, decimal, number


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        ("100 â€“ 20", "100 – 20"),
        ("19 cmÂ²", "19 cm²"),
        ("2 Ã— 3 â‡’ 6", "2 × 3 ⇒ 6"),
        ("itâ€™s", "it’s"),
        ("itÃ¢â‚¬â„¢s", "it’s"),  # twice
        ("a â\x81„ b", "a ⁄ b"),  # Latin-1
    ],
)
def test_mojibake_is_turned_back(broken: str, whole: str) -> None:
    notes = Notes(taught=True, line=3)
    assert clean(broken, notes) == whole
    assert notes.fates == {"mended": {"mojibake turned back": [3]}}


@pytest.mark.parametrize("text", ["Hafþór Björnsson", "45° – 60°", "“so”…", "√3 × 5", "naïve café", "1 000 €", ""])
def test_whole_text_stays(text: str) -> None:
    notes = Notes(taught=True)
    assert clean(text, notes) == text
    assert notes.fates == {}


def test_what_was_lost_is_kept_and_told() -> None:
    notes = Notes(taught=True)
    assert clean("x \ufffd 3", notes) == "x \ufffd 3"
    assert notes.fates == {"kept": {"mojibake that cannot be turned back": [0]}}


@given(st.text(alphabet="abc ×÷°²½–’“”…√⇒π€é", max_size=30))
def test_every_text_that_was_read_as_latin_1_comes_back(text: str) -> None:
    assert clean(text.encode().decode("latin-1"), Notes(taught=True)) == clean(text, Notes(taught=True))


@given(st.text(max_size=60))
def test_no_text_is_an_error(text: str) -> None:
    clean(text, Notes(taught=True))
    boxed(text), balanced(text), number(text)


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"so $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"$\boxed{1}$, no: $\boxed{\{1, 2\}}$", r"\{1, 2\}"),
        (r"\fbox{7}", "7"),
        (r"$\boxed 5.$", "5"),
        (r"\boxed{\frac{1}{2}", None),
        ("none", None),
    ],
)
def test_the_last_box_is_read_to_its_own_brace(solution: str, answer: str | None) -> None:
    assert boxed(solution) == answer


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("1,002", "1002"), ("$1", "1"), ("~7.2", "7.2"), ("15.", "15"), (".5", ".5"), ("-3", "-3"), ("4/5", "4/5"),
        ("5:45", "5:45"), ("1,450,000", "1450000"), ("12,34", None), ("Mary", None), ("3 pm", None), ("", None),
    ],
)  # fmt: skip
def test_a_number_without_its_dress(text: str, plain: str | None) -> None:
    assert number(text) == plain


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (43.0, "43"),
        (3244047.0999999996, "3244047.0999999996"),
        (0.0016791648, "0.0016791648"),
        (-9867630.0, "-9867630"),
    ],
)
def test_a_decimal_loses_no_digit(value: float, text: str) -> None:
    assert decimal(value) == text


@pytest.mark.parametrize("value", ["nan", "inf", None, "many"])
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(ValueError):
        decimal(value)


def test_braces() -> None:
    assert balanced(r"\frac{1}{2}") and not balanced(r"\frac{1") and not balanced("}{")
