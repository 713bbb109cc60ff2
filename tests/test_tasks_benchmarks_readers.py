"""Each notation becomes a problem, by hand; known defects are mended or refused."""

import pytest

from benchmark_rows import OPTIONS, ROWS
from stillroom.records import Problem, Step
from stillroom.tasks.benchmarks import BENCHMARKS
from stillroom.tasks.benchmarks.notes import Notes, Refused


def read(name: str, notes: Notes | None = None, **changes: object) -> Problem:
    return BENCHMARKS[name].read({**ROWS[name], **changes}, notes or Notes(taught=True))


EXPECTED = {
    "gsm8k": ("Ann has 1,000 eggs.", "1002", "numeric", "She gets 1 + 1 = 2 each."),
    "svamp": ("Ann had 4 eggs. How many are 3 fewer?", "1", "numeric", ""),
    "aqua": ("1 + 1?\n(A) 1\n(B) 2\n(C) 3", "B", "choice", "It is two."),
    "math": ("Half?", r"\frac{1}{2}", "math", r"It is $\boxed{\frac{1}{2}}$."),
    "csqa": ("Where?\n(A) bank\n(B) mall", "B", "choice", ""),
    "openbookqa": ("Where to?\n(A) bank\n(B) mall", "A", "choice", ""),
    "strategyqa": ("Is it?", "no", "boolean", "It is not."),
    "gsm8k_aug": ("How many?", "6", "numeric", ""),
    "gsm_hard": ("How much?", "3244047.0999999996", "numeric", ""),
    "multiarith": ("How many left?", "39", "numeric", ""),
    "asdiv": ("Seven and two. How many?", "9", "numeric", ""),
    "mawps": ("Joan found 70.", "43", "numeric", ""),
    "math500": ("Two?", "2", "math", "Two."),
}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_row_becomes_a_problem(name: str) -> None:
    found = read(name)
    assert (found.question, found.answer, found.kind, found.solution) == EXPECTED[name]


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("gsm8k", [("1+1", "2")]),
        ("svamp", [("4 - 3", "1")]),
        ("gsm8k_aug", [("1+1", "2"), ("2*3", "6")]),
        ("multiarith", [("32 + 42", "74"), ("74 - 35", "39")]),
        ("aqua", []),
    ],
)
def test_steps_come_from_the_source(name: str, steps: list[tuple[str, str]]) -> None:
    assert read(name).steps == tuple(Step(expression=a, value=b) for a, b in steps)


def test_choices_are_texts_without_their_marks() -> None:
    assert read("aqua").choices == ("1", "2", "3")
    assert read("aqua", options=["A) 1.5", "(B) x", "C. E) 2"]).choices == ("1.5", "x", "E) 2")


def test_labels_need_not_be_letters_in_order() -> None:
    numbered = [{"label": str(i), "text": text} for i, text in enumerate("xyz", 1)]
    assert read("openbookqa", choices=numbered, answerKey="3").answer == "C"


@pytest.mark.parametrize(
    ("answer", "kept", "kind"),
    [
        ("12 (red apples)", "12", "numeric"), ("Yes", "Yes", "boolean"), ("5:45", "5:45", "numeric"),
        ("Mary", "Mary", "text"), ("3/4 (of it)", "3/4", "numeric"), ("1,200 (m)", "1200", "numeric"),
    ],
)  # fmt: skip
def test_asdiv_answers_that_are_no_number_keep_their_kind(answer: str, kept: str, kind: str) -> None:
    found = read("asdiv", answer=answer)
    assert (found.answer, found.kind) == (kept, kind)


def test_an_answer_cut_at_a_brace_is_read_again_from_the_solution() -> None:
    notes = Notes(taught=True, line=7)
    assert read("math", notes, answer=r"\frac{1}{2").answer == r"\frac{1}{2}"
    assert notes.fates == {"mended": {"an answer cut at a brace, read again from the solution": [7]}}
    assert read("math", answer=None).answer == r"\frac{1}{2}"  # as the hub has it
    with pytest.raises(Refused, match="no whole answer"):
        read("math", answer=r"\frac{1}{2", solution="nothing boxed")


REFUSED = [
    ("gsm8k", {"answer": "#### many"}, "no number"),
    ("gsm8k", {"question": " "}, "question is empty"),
    ("gsm8k_aug", {"answer": "about 5"}, "no number"),
    ("csqa", {"answerKey": ""}, "hidden"),
]
DOUBTFUL = [
    ("gsm8k_aug", {"answer": "7"}, "the last step does not give the answer, so there are no steps"),
    ("gsm8k_aug", {"steps": []}, "there are no steps"),
    ("gsm8k_aug", {"steps": ["<<8/3=2.67=6(roundedup)>>"]}, "a step has no number as its value, so there are no steps"),
    ("aqua", {"options": ["A)1", "B)2", "C)2"]}, "another option says the same as the right one"),
]
BROKEN = [
    ("gsm8k", {"answer": "5"}, "no `####`"),
    ("aqua", {"correct": "F"}, "'F' is none of the 3 options"),
    ("csqa", {"answerKey": "C"}, "'C' is none of the labels A, B"),
    ("strategyqa", {"answer": "maybe"}, "neither true nor false"),
    ("mawps", {"target": None}, "could not convert"),
]


@pytest.mark.parametrize(("name", "changes", "told"), REFUSED)
def test_a_row_that_cannot_be_a_problem_is_refused(name: str, changes: dict[str, object], told: str) -> None:
    for taught in (True, False):
        with pytest.raises(Refused, match=told):
            read(name, Notes(taught=taught), **changes)


@pytest.mark.parametrize(("name", "changes", "told"), DOUBTFUL)
def test_a_doubtful_row_is_not_learned_from_but_tests(name: str, changes: dict[str, object], told: str) -> None:
    with pytest.raises(Refused, match=told):
        read(name, **changes)
    notes = Notes(taught=False, line=4)
    assert read(name, notes, **changes).steps == ()
    assert notes.fates == {"kept": {told: [4]}}


@pytest.mark.parametrize(("name", "changes", "told"), BROKEN)
def test_a_broken_row_is_an_error(name: str, changes: dict[str, object], told: str) -> None:
    with pytest.raises((ValueError, TypeError), match=told):
        read(name, **changes)


def test_two_wrong_options_alike_are_kept_and_told() -> None:
    notes = Notes(taught=True)
    read("aqua", notes, options=["A)1", "B)2", "C)1"])
    assert notes.fates == {"kept": {"two wrong options say the same": [0]}}


def test_equal_options_are_seen_after_mojibake_is_mended() -> None:
    with pytest.raises(Refused, match="another option"):
        read("csqa", question={"stem": "?", "choices": [{**OPTIONS[0], "text": "4Â°"}, {**OPTIONS[1], "text": "4°"}]})
