"""Every method that takes a chain's words away, from lessons to a student that is asked, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from stillroom.errors import ConfigError, DataError
from stillroom.evaluation import EvaluateConfig, predict
from stillroom.files import write_lines
from stillroom.records import Lesson
from stillroom.students import BaseConfig, StudentConfig, load, make_base, make_student
from stillroom.students.chains import chains
from stillroom.students.methods import Methods, course
from stillroom.students.scratch import PAUSE, ScratchConfig
from stillroom.training import FitConfig
from toys import sums, workplace

FIT = FitConfig(updates=30, batch_size=8, warmup=4, learning_rate=1e-2, precision="float32", threads=1, log_every=1)
SMALL = ScratchConfig(width=16, layers=2, heads=2, feed_forward=32, positions=64)
PROBLEMS = sums(8)
LESSONS = [
    Lesson(
        problem=p.id, prompt=p.question, completion=f"The answer is {p.answer}.", value_at=14,
        rationale=tuple(f"Step {n}: {s.expression} = {s.value}" for n, s in enumerate(p.steps, 1)),
    )
    for p in PROBLEMS
]  # fmt: skip
COURSES = {
    "codi": {"codi": {"thoughts": 2, "explain": 1.0}},
    "coconut": {"coconut": {"max_latent_stage": 2, "thoughts_per_step": 1, "words_first": 1.0, "explain": 1.0}},
    "stepwise": {"stepwise": {"share": 0.5}},
}


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("methods")
    folders = {name: workplace(root / name).out for name in ("lessons", "problems", "base")}
    write_lines(folders["lessons"] / "lessons.jsonl", LESSONS)
    write_lines(folders["problems"] / "train.jsonl", PROBLEMS)
    worked = {"lessons": folders["lessons"], "worked": folders["lessons"]}
    make_base(BaseConfig(scratch=SMALL, fit=FIT), workplace(folders["base"], parents=worked))
    return folders


@pytest.mark.parametrize("method", COURSES)
def test_a_student_of_each_method_is_trained_kept_and_asked(method: str, room: dict[str, Path], tmp_path: Path) -> None:
    """The decoder of steps is left behind, and a student that thinks is asked through its thoughts."""
    config = StudentConfig.parse({**COURSES[method], "fit": FIT.model_dump()}, "here")
    make_student(config, workplace(tmp_path, parents=room))
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    terms = {"codi": {"student", "teacher", "distil", "explain"}, "coconut": {"ce", "explain"}, "stepwise": {"ce"}}
    assert set(logged[-1]) - {"step", "learning_rate", "gradient_norm"} == terms[method]
    student = load(tmp_path)
    assert (student.manner.thoughts is not None) == (method != "stepwise")
    assert (student.projection is not None) == (method == "codi")
    assert not any("decoder" in name for name in student.model.state_dict() if "model.decoder" not in name)
    told = predict(student, PROBLEMS, EvaluateConfig(new_tokens=8, threads=1), tmp_path / "said.jsonl", method)
    assert set(told) == {p.id for p in PROBLEMS}


def test_the_optimizer_begins_anew_where_a_stage_begins(room: dict[str, Path]) -> None:
    student, lengths = load(room["base"]), [len(p.question) for p in PROBLEMS]
    taught = chains(LESSONS, student)
    begins = {
        name: set(course(Methods.parse(given, name), student, taught, lengths, FIT).resets)
        for name, given in COURSES.items()
    }
    assert begins == {"codi": set(), "coconut": {8, 15, 22}, "stepwise": {10, 20}}


@pytest.mark.parametrize("method", COURSES)
def test_texts_longer_than_the_model_holds_are_named(method: str, room: dict[str, Path]) -> None:
    student, lengths = load(room["base"]), [len(p.question) for p in PROBLEMS]
    student.model.config.max_position_embeddings = 20
    with pytest.raises(DataError, match=r"^lesson sum-0 \(\d+\), .* and 3 more: longer, .* than the 16 tokens"):
        course(Methods.parse(COURSES[method], "x"), student, chains(LESSONS, student), lengths, FIT)


@pytest.mark.parametrize("method", ["codi", "filler", "coconut"])
def test_a_lesson_without_a_question_is_named(method: str, room: dict[str, Path]) -> None:
    """A filler's pauses are no question."""
    student, lengths = load(room["base"]), [len(p.question) for p in PROBLEMS]
    pauses = [3, 3] if method == "filler" else []
    taught = [replace(chain, prompt=[*chain.prompt, *pauses]) for chain in chains(LESSONS, student)]
    taught[3] = replace(taught[3], prompt=pauses)
    given = {"codi": {"thoughts": 2, "filler": True}} if method == "filler" else COURSES[method]
    if method == "filler":
        student = replace(student, manner=student.manner.model_copy(update={"pauses": 2}))
        student.tokenizer.add_special_tokens({"additional_special_tokens": [PAUSE]})
    with pytest.raises(DataError, match=r"^lesson sum-3: no question"):
        course(Methods.parse(given, "x"), student, taught, lengths, FIT)


def test_a_student_learns_by_one_method() -> None:
    with pytest.raises(ConfigError, match="codi and stepwise: a student learns by one method"):
        Methods.parse({"codi": {}, "stepwise": {}}, "recipe")
