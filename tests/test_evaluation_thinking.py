"""A student that thinks: trained, saved, opened again, and asked after several numbers of thoughts."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from stillroom.cli import app
from stillroom.cli.evaluating import _compared
from stillroom.errors import UsageError
from stillroom.evaluation import EvaluateConfig, predict
from stillroom.evaluation.thinking import ask, compared, strangers, variant
from stillroom.files import write_lines
from stillroom.records import Lesson, Prediction
from stillroom.students import BaseConfig, StudentConfig, load, make_base, make_student
from stillroom.students.codi import CodiConfig
from stillroom.students.scratch import ScratchConfig
from stillroom.students.thoughts import Variant, think_and_answer
from stillroom.training import FitConfig
from toys import problem, student, sums, workplace

FIT = FitConfig(updates=40, batch_size=8, warmup=4, learning_rate=1e-2, precision="float32", threads=1)
SMALL = ScratchConfig(width=16, layers=2, heads=2, feed_forward=32, positions=64)
PROBLEMS = sums(8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("latent")
    folders = {name: workplace(root / name).out for name in ("lessons", "problems", "base", "student")}
    lessons = [
        Lesson(
            problem=p.id, prompt=p.question, completion=f"The answer is {p.answer}.", value_at=14,
            rationale=tuple(f"Step {i}: {s.expression} = {s.value}" for i, s in enumerate(p.steps, 1)),
        )
        for p in PROBLEMS
    ]  # fmt: skip
    write_lines(folders["lessons"] / "lessons.jsonl", lessons)
    write_lines(folders["problems"] / "train.jsonl", PROBLEMS)
    worked = {"lessons": folders["lessons"], "worked": folders["lessons"]}
    make_base(BaseConfig(scratch=SMALL, fit=FIT), workplace(folders["base"], parents=worked))
    config = StudentConfig(codi=CodiConfig(thoughts=2), fit=FIT)
    make_student(
        config, workplace(folders["student"], parents={n: folders[n] for n in ("lessons", "problems", "base")})
    )
    return folders["student"]


def test_a_student_that_thinks_is_opened_as_it_was_saved(folder: Path) -> None:
    one, two = load(folder), load(folder)
    assert one.manner.thoughts is not None
    assert (one.manner.thoughts.count, one.manner.thoughts.begin) == (2, "<bot>")
    prompts = one.prompts([p.question for p in PROBLEMS])
    first, second = (think_and_answer(s.thinker(), prompts, 2, 8) for s in (one, two))
    for a, b in zip(first, second, strict=True):
        assert a.completion == b.completion
        assert torch.equal(a.thoughts_Kd, b.thoughts_Kd)
    assert {"teacher", "student", "distil"} <= set(json.loads((folder / "metrics.jsonl").read_text().splitlines()[0]))


def test_it_is_evaluated_through_its_thoughts_and_one_batch_is_as_good_as_many(folder: Path, tmp_path: Path) -> None:
    thinks = load(folder)
    whole = predict(thinks, PROBLEMS, EvaluateConfig(new_tokens=8), tmp_path / "a.jsonl", "toy")
    single = predict(thinks, PROBLEMS, EvaluateConfig(new_tokens=8, batch_size=1), tmp_path / "b.jsonl", "toy")
    assert whole == single
    answers = think_and_answer(thinks.thinker(), thinks.prompts([p.question for p in PROBLEMS]), 2, 8)
    assert [whole[p.id].tokens for p in PROBLEMS] == [len(a.completion.ids) for a in answers]


def test_ways_are_named() -> None:
    partners = [1, 0]
    assert variant("3", 6, partners) == Variant(3)
    assert variant("off", 6, partners) == Variant(None)
    swapped = variant("swapped", 2, partners)
    assert [i.step for i in swapped.interventions] == [0, 1]
    for wrong in ("many", "9" * 5000, "٣"):
        with pytest.raises(UsageError, match="expected numbers, off or swapped"):
            variant(wrong, 6, partners)


def test_a_stranger_has_as_many_steps_and_another_answer() -> None:
    asked = [
        problem("a", ("1 + 1", 2)),
        problem("b", ("2 + 0", 2)),
        problem("c", ("1 + 2", 3)),
        problem("d", ("1 + 1", 2), ("2 + 2", 4)),
    ]
    assert strangers(asked) == [2, 2, 0, 3]


def test_helped_and_hurt_are_worked_by_hand() -> None:
    asked = [problem(n, ("1 + 1", 2)) for n in "abcd"]

    def said(*texts: str) -> list[Prediction]:
        return [Prediction(problem=p.id, text=t, tokens=1, stopped=True) for p, t in zip(asked, texts, strict=True)]

    found = compared(asked, {"6": (said("2", "2", "2", "3"), 2.0), "0": (said("3", "2", "3", "2"), 1.0)})
    assert found["thoughts"]["6"]["accuracy"] == 0.75
    assert found["thoughts"]["6"]["questions_per_second"] == 2.0
    (pair,) = found["comparisons"]
    assert (pair["helped"], pair["hurt"], pair["difference"], pair["p"]) == (2, 1, 0.25, 1.0)


def test_a_student_of_words_has_no_thoughts_to_count() -> None:
    with pytest.raises(UsageError, match="reasons in words"):
        ask(student(), PROBLEMS, ["6"], EvaluateConfig(), "toy")


def test_thoughts_are_swapped_among_problems_that_can_be_swapped(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"toy: 1 of 1 problems have none beside them .* \(sum-0\), so no thoughts"):
        ask(load(folder), PROBLEMS[:1], ["2", "swapped"], EvaluateConfig(new_tokens=4), "toy")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--temperature", "0.7"], "--thoughts asks one student one task, greedily"),
        (["-o", "."], "-o . is a folder"),
        (["-o", "nowhere/r.json"], "stands in a folder that does not exist"),
    ],
)
def test_the_door_refuses_before_anything_is_asked(arguments: list[str], told: str, folder: Path) -> None:
    call = ["evaluate", str(folder), "--task", "abacus", "--thoughts", "2", *arguments]
    said = CliRunner().invoke(app, call)
    assert isinstance(said.exception, UsageError)
    assert told in str(said.exception)


def test_the_door_writes_what_it_prints(folder: Path, tmp_path: Path) -> None:
    rows = [{"id": p.id, "question": p.question, "answer": p.answer} for p in PROBLEMS]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["--task", str(tmp_path / "own.jsonl"), "--thoughts", "2,0,off,swapped", "-n", "6", "--new-tokens", "8"]
    said = CliRunner().invoke(
        app, ["evaluate", str(folder), *arguments, "--device", "cpu", "-o", str(tmp_path / "r.json")]
    )
    assert said.exit_code == 0, said.output + str(said.exception)
    written = json.loads((tmp_path / "r.json").read_text())
    assert set(written["thoughts"]) == {"2", "0", "off", "swapped"}
    assert all(way["n"] == 6 for way in written["thoughts"].values())
    assert "2 over swapped: helped" in said.output


def test_a_p_that_vanishes_is_not_printed_as_0(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = [{"id": p.id, "question": p.question, "answer": p.answer} for p in PROBLEMS]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pair = {"a": "2", "b": "0", "helped": 1200, "hurt": 0, "p": 0.0}
    monkeypatch.setattr("stillroom.evaluation.thinking.ask", lambda *_: {})
    monkeypatch.setattr("stillroom.evaluation.thinking.compared", lambda *_: {"thoughts": {}, "comparisons": [pair]})
    call = ["evaluate", str(folder), "--task", str(tmp_path / "own.jsonl"), "--thoughts", "2,0", "--device", "cpu"]
    assert "2 over 0: helped 1200, hurt 0, p < 1e-300\n" in CliRunner().invoke(app, call).output
    told = {"split": "test", "difference": 0.5, "low": 0.4, "high": 0.6, "holm": 0.0}
    assert _compared({**pair, **told}) == "2 - 0 on test: +50.0 [+40.0, +60.0]  p < 1e-300, by Holm < 1e-300"
