"""Gates keep what students may learn from, and keep the rest beside it with its reason."""

import json
from pathlib import Path

import pytest

from stillroom.curriculum.gates import GateConfig, alike, gate, make_kept
from stillroom.errors import DataError
from stillroom.files import read_lines, write_lines
from stillroom.records import Dropped, Problem, Rationale
from toys import problem, workplace

ASKED = problem("p", ("2 + 3", 5), ("5 + 4", 9), question="How many?")
OPEN = ASKED.model_copy(update={"answer": ""})


def said(text: str, conclusion: str = "The answer is 9.", **more: object) -> Rationale:
    plain = {"problem": "p", "teacher": "t", "granularity": 1, "format": "plain", "text": text}
    return Rationale(**{**plain, "conclusion": conclusion, **more})  # type: ignore[arg-type]


def reasons(samples: list[Rationale], asked: Problem = ASKED, **settings: object) -> list[str | None]:
    sorted_out = gate(asked, samples, GateConfig(**settings))
    return [one.reason if isinstance(one, Dropped) else None for one in sorted_out]


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        (said("2 + 3 = 5, then 9."), None),
        (said("2 + 3 = 5, then 5 + 4 = 9.", ""), None),  # no concluding sentence: the whole text is graded
        (said("2 + 3 = 5, then 5 + 4 = 8.", ""), "wrong: 8"),
        (said("So 8.\nThe answer is 8. Hope this helps!\nBye now.", ""), "wrong: 8"),
        (said("We add the eggs of both.", ""), "wrong: None"),
        (said("Step 1: 2 + 3 = 5", "", teacher="worked"), None),  # the task's own steps end in the gold
        (said("Take both, and four more.", "", teacher="human"), None),
        (said("$2^3\\times3=24$", teacher="human"), None),  # a formula without blanks is no empty text
        (said("2 + 3 = 5, then 8.", "The answer is 8."), "wrong: 8"),
        (said("2 + 3 = 5, then", truncated=True), "cut off by the length limit"),
        (said(""), "empty"),
        (said("nine"), "empty"),
        (said("Since the given answer is 9, we add 4."), "admits to seeing the answer"),
        (said("That makes 8. Wait, it must be 9."), "admits to seeing the answer"),
        (said("Does that match the expected answer? It does."), "admits to seeing the answer"),
        (said("They wait for 9 minutes at the door."), None),
    ],
)
def test_one_sample_is_kept_or_dropped_for_its_reason(sample: Rationale, reason: str | None) -> None:
    """Pitfall 15: teachers are often wrong."""
    assert reasons([sample]) == [reason]


def test_wrong_ones_may_be_kept_by_name() -> None:
    assert reasons([said("2 + 3 = 5, then 8.", "The answer is 8.")], correct=False) == [None]


def test_of_samples_that_say_the_same_the_first_is_kept() -> None:
    one, other = "Ann has 2 and gets 3, so 5, and then 4 more.", "She starts with five, four are added."
    assert reasons([said(one), said(one + " "), said(other)]) == [None, "nearly the same as another sample", None]
    assert alike(one, one) == 1
    assert alike("a b c d", "w x y z") == 0
    assert alike("a b c d", "a b c e") == pytest.approx(1 / 3)


def test_without_a_gold_the_majority_decides() -> None:
    texts = [f"way {word} of doing it" for word in ("one", "two", "three")]
    samples = [said(text, f"The answer is {answer}.") for text, answer in zip(texts, ("9", "8", "9"), strict=True)]
    assert reasons(samples, OPEN) == [None, "outvoted: 8", None]
    silent = [said("it cannot be told", "")]
    assert reasons([*samples, *silent], OPEN) == [None, "outvoted: 8", None, "outvoted: None"]
    assert reasons(silent, OPEN) == ["no answer to vote on"]


def test_the_stage_writes_kept_dropped_and_counts(tmp_path: Path, capsys) -> None:
    parents = {role: workplace(tmp_path / role).out for role in ("problems", "rationales")}
    write_lines(parents["problems"] / "train.jsonl", [ASKED])
    good, bad = said("2 + 3 = 5, then 9."), said("2 + 3 = 5, then 8.", "The answer is 8.", sample=1)
    write_lines(parents["rationales"] / "rationales.jsonl", [bad, good])
    at = workplace(tmp_path / "kept", parents=parents)
    make_kept(GateConfig(), at)
    assert read_lines(at.out / "rationales.jsonl", Rationale) == [good]
    assert read_lines(at.out / "dropped.jsonl", Dropped) == [Dropped(reason="wrong: 8", rationale=bad)]
    assert json.loads((at.out / "gates.json").read_text()) == {
        "kept": 1, "dropped": {"wrong": 1}, "problems kept by vote": 0,
    }  # fmt: skip
    assert "1 rationales kept, 1 dropped (1 wrong)" in capsys.readouterr().err
    write_lines(parents["rationales"] / "rationales.jsonl", [bad])
    with pytest.raises(DataError, match="the gates dropped all 1 rationales"):
        make_kept(GateConfig(), at)
