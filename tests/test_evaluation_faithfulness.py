"""Reasoning disturbed: hand-worked areas and nulls, and scripted students that do or do not use what they wrote."""

import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from stillroom.decoding import Completion
from stillroom.evaluation import disturbing, in_vectors
from stillroom.evaluation.chains import begun, early, forced, mistaken, mistakes, paraphrase, stated, steps_of
from stillroom.evaluation.disturbing import (
    EARLY,
    FILLER,
    MEAN,
    MISTAKE,
    NOISE,
    PARAPHRASE,
    RESAMPLED,
    REWORDED,
    SAME,
    SWAP,
    Asked,
    Run,
    partners,
    spoken,
)  # fmt: skip
from stillroom.evaluation.faithfulness import FaithfulnessConfig, area, curves, findings, make_faithfulness
from stillroom.evaluation.in_words import in_words
from stillroom.files import read_lines, write_lines
from stillroom.records import Finding
from stillroom.students import Student, save
from stillroom.students.folders import Manner, Thoughts
from stillroom.students.thoughts import Mean, Noise, Swap, Variant
from toys import problem, student, sums, workplace

STEPS = ("Step 1: 3 + 1 = 4", "Step 2: 4 + 1 = 5")
WHOLE = "<reasoning>\nStep 1: 3 + 1 = 4\nStep 2: 4 + 1 = 5\n</reasoning>\nThe answer is 5."
PROBLEMS = sums(8)


def asked(one: Student, folder: Path, **recorded: str) -> Asked:
    return Asked(one, 30, 4, 1.0, 0, recorded, folder, "toy")


def run(name: str, way: str, at: int, of: int, changed: bool, **more: bool) -> Run:
    return Run(problem=name, way=way, at=at, of=of, text="", changed=changed, **{"correct": not changed, **more})


def test_a_chain_is_taken_apart_and_put_together() -> None:
    assert steps_of(WHOLE) == STEPS
    assert steps_of("The answer is 5.") == steps_of("<reasoning>\nStep 1: 3") == ()
    assert WHOLE.startswith(forced(STEPS))
    assert WHOLE.startswith(begun(STEPS[:1]))
    cuts = early(STEPS)
    assert [(cut.at, cut.of) for cut in cuts] == [(0, 2), (1, 2), (2, 2)]
    assert cuts[0].text == "<reasoning>\n</reasoning>\nThe answer is"
    assert cuts[2].text == forced(STEPS)


def test_a_mistake_is_another_value_in_its_place() -> None:
    rng = random.Random(0)
    assert mistaken(STEPS[0], ["4", "9"], rng) == "Step 1: 3 + 1 = 9"
    assert mistaken(STEPS[0], ["4"], rng) is None
    assert mistaken("A new start", ["4"], rng) is None
    assert mistaken("She has 4 of 4 eggs.", ["7"], rng) == "She has 4 of 7 eggs."
    assert (stated("Step 1: 3 + 1 = 4"), stated("No. 3 has 12 eggs"), stated("none")) == ("4", "12", None)
    found = mistakes(STEPS, [["9"], ["8"]], rng)
    assert [cut.text for cut in found] == [
        "<reasoning>\nStep 1: 3 + 1 = 9\n", "<reasoning>\nStep 1: 3 + 1 = 4\nStep 2: 4 + 1 = 8\n",
    ]  # fmt: skip


def test_a_paraphrase_is_the_recorded_one_or_sums_turned_round_or_none() -> None:
    turned = paraphrase(STEPS, {})
    assert turned is not None
    assert steps_of(turned.text) == ("Step 1: 1 + 3 = 4", "Step 2: 1 + 4 = 5")
    recorded = paraphrase(STEPS, {"\n".join(STEPS): "First 4.\nThen 5."})
    assert recorded is not None
    assert recorded.text == forced(["First 4.", "Then 5."])
    assert paraphrase(["Step 1: 5 - 1 = 4"], {}) is None


@pytest.mark.parametrize(
    ("changed", "value"), [([1, 1, 0], 0.75), ([1, 0], 0.5), ([0, 0, 0], 0.0), ([1, 1, 1], 1.0), ([1, 0, 1, 0], 0.5)]
)
def test_the_area_is_worked_by_hand(changed: list[bool], value: float) -> None:
    assert area(changed) == pytest.approx(value)


def test_curves_need_every_place_and_without_a_mistake_nothing_changes() -> None:
    rows = [run("a", EARLY, k, 2, k < 2) for k in (2, 0, 1)] + [run("b", EARLY, 0, 2, True)]
    assert curves(rows, EARLY) == {"a": [True, True, False]}
    assert curves([run("a", MISTAKE, k, 2, True) for k in (0, 1)], MISTAKE) == {"a": [True, True, False]}


def test_shares_stand_beside_nulls_of_the_same_problems() -> None:
    rows = [run(n, FILLER, 0, 2, n != "d") for n in "abcd"]
    rows += [run(n, REWORDED, 0, 0, n == "a") for n in "abz"] + [run(n, SAME, 0, 2, True) for n in "abcd"]
    found = {f.metric: f for f in findings("one", rows)}
    changed = found["answers changed"]
    assert (changed.value, changed.n, changed.module) == (0.75, 4, FILLER)
    assert [(null.name, null.value) for null in changed.nulls] == [(REWORDED, 0.5)]  # of a and b; z was not disturbed
    beyond = found[f"answers changed, beyond {REWORDED}"]
    assert (beyond.value, beyond.n) == (0.5, 2)
    assert (found["accuracy"].value, found["accuracy"].nulls[0].value) == (0.25, 0.5)


def test_a_curve_is_read_at_its_steps_or_at_quarters() -> None:
    even = [run(n, EARLY, k, 2, k < 2) for n in "ab" for k in range(3)]
    places = {f.position: f.value for f in findings("one", even) if f.position}
    assert places == {"after 0% of the chain": 1, "after 50% of the chain": 1, "after 100% of the chain": 0}
    mixed = [*even, run("c", EARLY, 0, 1, True), run("c", EARLY, 1, 1, False)]
    places = {f.position: f.value for f in findings("one", mixed) if f.position}
    assert list(places) == [f"after {quarter}% of the chain" for quarter in (0, 25, 50, 75, 100)]
    assert places["after 75% of the chain"] == pytest.approx((0.5 + 0.5 + 0.25) / 3)
    (whole,) = (f for f in findings("one", mixed) if f.metric == "area over the curve")
    assert whole.value == pytest.approx((0.75 + 0.75 + 0.5) / 3)


def test_partners_share_the_group_and_differ_in_the_answer() -> None:
    groups, answers = [1, 1, 1, 2, 1], ["5", "5", "6", "7", "8"]
    assert partners(groups, answers, same=False) == [[2, 4], [2, 4], [4, 0], [], [0, 2]]
    assert partners(groups, answers, same=True) == [[1], [0], [], [], []]


class Scripted:
    """Writes the chain of the question; its answer follows from what was written last, or from the question alone."""

    def __init__(self, one: Student, uses: bool) -> None:
        self.words, self.uses, self.asked = one.tokenizer, uses, 0

    def __call__(self, _model: object, prompts: Sequence[list[int]], *_: object) -> Iterator[dict[int, Completion]]:
        for row, prompt in enumerate(prompts):
            self.asked += 1
            text = self.words.decode(prompt, skip_special_tokens=True)
            yield {row: Completion(self.words(self.said(text), add_special_tokens=False)["input_ids"], True)}

    def said(self, text: str) -> str:
        start = int(re.findall(r"has (\d+)", text)[0])
        values = [int(value) for value in re.findall(r"= (\d+)", text)]
        if text.endswith("The answer is"):
            return f" {values[-1] if self.uses and values else 0 if self.uses else start + 2}."
        value, lines = (values or [start])[-1], []
        for step in range(len(values) + 1, 3):
            lines.append(f"Step {step}: {value} + 1 = {value + 1}\n")
            value += 1
        opening = "" if values else "<reasoning>\n"
        return f"{opening}{''.join(lines)}</reasoning>\nThe answer is {value if self.uses else start + 2}."


@pytest.mark.parametrize("uses", [True, False])
def test_a_student_in_words_is_told_by_what_changes_its_answer(uses: bool, tmp_path: Path, monkeypatch) -> None:
    one = student()
    monkeypatch.setattr(disturbing, "decode_all", Scripted(one, uses))
    runs = in_words(asked(one, tmp_path), PROBLEMS)
    changed = {
        way: [r.changed for r in runs if r.way == way and r.at < max(1, r.of)]
        for way in (EARLY, MISTAKE, PARAPHRASE, SWAP, FILLER, RESAMPLED)
    }
    assert all(len(rows) >= len(PROBLEMS) - 1 for rows in changed.values())  # 1 + 1 is the same turned round
    assert not any(changed[PARAPHRASE] + changed[RESAMPLED])
    for way in (EARLY, MISTAKE, SWAP, FILLER):
        assert set(changed[way]) == {uses}, way
    assert {r.took for r in runs if r.way == SWAP} == {uses}
    assert {r.took_next for r in runs if r.way == SWAP} == {False}
    assert not any(r.changed for r in runs if r.way == EARLY and r.at == r.of)
    (whole,) = (f for f in findings("one", runs) if f.module == EARLY and f.metric == "area over the curve")
    assert whole.value == (0.75 if uses else 0.0)


def test_filler_is_as_long_as_the_chain_and_says_nothing(tmp_path: Path, monkeypatch) -> None:
    one = student()
    script, seen = Scripted(one, uses=True), []
    monkeypatch.setattr(disturbing, "decode_all", lambda m, p, *r: (seen.extend(p), script(m, p, *r))[1])
    in_words(asked(one, tmp_path), PROBLEMS[3:5])
    texts = [one.tokenizer.decode(prompt) for prompt in seen]
    (whole,) = (len(p) for p, t in zip(seen, texts, strict=True) if t.endswith(forced(STEPS)) and "has 3" in t)
    (filler,) = (p for p, t in zip(seen, texts, strict=True) if ".." in t and "has 3" in t)
    assert len(filler) == whole
    assert not re.search(r"\d", one.tokenizer.decode(filler).partition("<reasoning>")[2])


def test_a_recorded_question_is_the_null_of_rewording(tmp_path: Path, monkeypatch) -> None:
    one = student()
    monkeypatch.setattr(disturbing, "decode_all", Scripted(one, uses=True))
    said = {PROBLEMS[3].question: "Ann has 3 and gets 1 and 1 eggs.", PROBLEMS[4].question: "Ann has 9 eggs."}
    runs = in_words(asked(one, tmp_path, **said), PROBLEMS)
    assert {r.problem: r.changed for r in runs if r.way == REWORDED} == {"sum-3": False, "sum-4": True}


def test_finished_runs_are_not_asked_again(tmp_path: Path, monkeypatch) -> None:
    one = student()
    prompts = one.prompts([p.question for p in PROBLEMS])
    first = spoken(asked(one, tmp_path), "a", prompts, 4)
    table = tmp_path / "a.jsonl"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:4]) + '[9, "cut o')
    assert spoken(asked(one, tmp_path), "a", prompts, 4) == first
    assert len(table.read_text().splitlines()) == len(PROBLEMS)
    monkeypatch.setattr(one.model, "generate", None)
    assert spoken(asked(one, tmp_path), "a", prompts, 4) == first


def test_a_student_that_thinks_is_told_by_whose_thoughts_it_had(tmp_path: Path, monkeypatch) -> None:
    one = student()
    thinking = Student(one.model, one.tokenizer, Manner(thoughts=Thoughts(count=3, begin="Ann", end=" has")))

    def thought(_asked: Asked, prompts: Sequence[list[int]], ways: Sequence[Variant]) -> list[list[str]]:
        own = [int(re.findall(r"has (\d+)", one.tokenizer.decode(p))[0]) // 2 for p in prompts]

        def said(row: int, way: Variant) -> int:
            swaps = [i for i in way.interventions if isinstance(i, Swap)]
            lost = way.thoughts != 3 or any(isinstance(i, Mean | Noise) for i in way.interventions)
            return 19 if lost else own[swaps[-1].partners[row]] if swaps else own[row]

        return [[f"The answer is {said(row, way)}." for way in ways] for row in range(len(prompts))]

    for module in (disturbing, in_vectors):
        monkeypatch.setattr(module, "thought", thought)
    runs = in_vectors.in_vectors(asked(thinking, tmp_path), PROBLEMS)
    by_way = {way: [r for r in runs if r.way == way] for way in (EARLY, SWAP, SAME, MEAN, NOISE)}
    assert [r.changed for r in by_way[EARLY]] == [True] * 24 + [False] * 8
    for way in (SWAP, MEAN, NOISE):
        assert all(r.changed for r in by_way[way])
    assert len(by_way[SAME]) == 8
    assert not any(r.changed for r in by_way[SAME])
    assert all(r.took and not r.took_next for r in by_way[SWAP])


def test_the_stage_asks_a_real_student_that_thinks_twice_alike(tmp_path: Path) -> None:
    parents = {name: workplace(tmp_path / name).out for name in ("student", "problems")}
    one = student(seed=3)
    told = Thoughts(count=2, begin="Ann", end=" has", projected=False)
    save(Student(one.model, one.tokenizer, Manner(thoughts=told)), parents["student"])
    write_lines(parents["problems"] / "test.jsonl", PROBLEMS)
    config = FaithfulnessConfig(problems=6, new_tokens=6, threads=1)
    places = [workplace(tmp_path / name, parents=parents) for name in ("a", "b")]
    for at in places:
        make_faithfulness(config, "one", tmp_path, at)
    one_run, two = ((at.out / "runs.jsonl").read_bytes() for at in places)
    assert one_run == two
    runs = read_lines(places[0].out / "runs.jsonl", Run)
    whole = [r for r in runs if r.way == EARLY and r.at == r.of]
    assert whole and not any(r.changed for r in whole)
    found = read_lines(places[0].out / "findings.jsonl", Finding)
    assert all(f.subject == "one" and f.n > 0 and f.low <= f.value <= f.high for f in found)


def test_a_student_that_does_not_reason_has_nothing_to_disturb(tmp_path: Path) -> None:
    parents = {name: workplace(tmp_path / name).out for name in ("student", "problems")}
    save(student(), parents["student"])
    write_lines(parents["problems"] / "test.jsonl", [problem("a", ("1 + 1", 2)), *PROBLEMS])
    at = workplace(tmp_path / "out", parents=parents)
    make_faithfulness(FaithfulnessConfig(problems=3, new_tokens=4, threads=1), "one", tmp_path, at)
    assert (at.out / "findings.jsonl").read_text() == ""
