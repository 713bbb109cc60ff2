"""Teachers write about the training problems in their order, and may leave some out."""

import json
import os
from pathlib import Path

import pytest

from stillroom.errors import ConfigError, DataError
from stillroom.files import read_lines, write_lines
from stillroom.records import Problem, Rationale
from stillroom.tasks.benchmarks import config_of, read
from stillroom.teachers import NO_DESK, TEACHERS, RecordedConfig, WorkedConfig, make_rationales, recorded, worked
from toys import problem, sums, workplace

DATA = Path(os.environ.get("STILLROOM_DATA") or Path(__file__).parents[2] / "shared" / "data")
CONFIG = RecordedConfig(dataset="toy", teacher="ann", granularity=2)


def line(name: str, cot: object, **changes: object) -> str:
    cell = {"dataset": "toy", "teacher": "ann", "granularity": 2, "format": "plain"}
    return json.dumps({**cell, "id": name, "cot": cot, **changes})


def record(folder: Path, *lines: str) -> Path:
    (folder / "teacher_cot.jsonl").write_text("\n".join(lines))
    return folder


def test_the_worked_teacher_writes_the_steps_one_a_line() -> None:
    (one,) = worked(WorkedConfig(), [problem("p", ("2 + 3", 5), ("5 * 2", 10))], Path())
    assert one.text == "Step 1: 2 + 3 = 5\nStep 2: 5 * 2 = 10"
    assert (one.problem, one.teacher, one.granularity, one.format) == ("p", "worked", None, "plain")


def test_the_worked_teacher_names_a_problem_without_steps() -> None:
    bare = Problem(task="toy", id="bare", question="q", answer="1")
    with pytest.raises(DataError, match=r"problem 'bare' has no steps, .*use another teacher"):
        worked(WorkedConfig(), [*sums(2), bare], Path())


def test_only_the_asked_cell_is_read_in_the_problems_order(tmp_path: Path) -> None:
    folder = record(
        tmp_path,
        line("sum-2", "two"),
        line("sum-0", "other teacher", teacher="ben"),
        line("sum-0", "other level", granularity=3),
        line("sum-0", "other format", format="symbolic"),
        line("sum-0", "other dataset", dataset="gsm8k"),
        line("sum-0", "zero"),
        line("stranger", "not asked for"),
    )
    found = recorded(CONFIG, sums(4), folder)
    assert [(r.problem, r.text) for r in found] == [("sum-0", "zero"), ("sum-2", "two")]
    assert {(r.teacher, r.granularity, r.format) for r in found} == {("ann", 2, "plain")}


@pytest.mark.parametrize(
    ("cot", "text"),
    [
        ("4 - 3 = 1 The answer is 1", "4 - 3 = 1"),
        ("4 - 3 = 1.\nSo, the answer is: $1.\n", "4 - 3 = 1."),
        ("One. Therefore the answer is 1", "One."),
        ("the answer is close\n4 - 3 = 1\nThus, the answer is 1.", "the answer is close\n4 - 3 = 1"),
        (
            "The answer is 9. Then take them away: 11 - 9 = 2 The answer is 2",
            "The answer is 9. Then take them away: 11 - 9 = 2",
        ),
        ("4 - 3 = 1\nThe answer is 1.\n\n", "4 - 3 = 1"),
        ("4 - 3 = 1", "4 - 3 = 1"),
    ],
)
def test_a_recorded_teacher_s_own_conclusion_is_left_out(cot: str, text: str, tmp_path: Path) -> None:
    assert recorded(CONFIG, sums(1), record(tmp_path, line("sum-0", cot)))[0].text == text


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([line("sum-0", "x", teacher="ben")], r"holds no rationale of \('toy', 'ann', 2, 'plain'\)"),
        ([line("sum-0", "x"), line("sum-1", "x")[:-4]], r"teacher_cot\.jsonl:2: not JSON"),
        ([line("sum-0", "x"), '{"id": "sum-1"}'], r"teacher_cot\.jsonl:2: the field 'dataset' is missing"),
        ([line("sum-0", None)], r"teacher_cot\.jsonl:1: "),
        ([line("sum-0", "x"), line("sum-0", "y")], r"teacher_cot\.jsonl:2: .*sum-0"),
    ],
)
def test_a_faulty_file_is_named(lines: list[str], told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told):
        recorded(CONFIG, sums(2), record(tmp_path, *lines))


def test_the_stage_writes_what_the_teacher_wrote(tmp_path: Path) -> None:
    write_lines(workplace(tmp_path / "problems").out / "train.jsonl", sums(3))
    at = workplace(tmp_path / "out", parents={"problems": tmp_path / "problems"})
    make_rationales(TEACHERS["worked"], WorkedConfig(), tmp_path, at)
    assert read_lines(at.out / "rationales.jsonl", Rationale) == worked(WorkedConfig(), sums(3), tmp_path)


def test_what_a_teacher_reads_is_told_so_that_it_enters_the_key() -> None:
    assert TEACHERS["recorded"].files(CONFIG) == ("teacher_cot.jsonl",)
    assert TEACHERS["worked"].files(WorkedConfig()) == ()
    for name, teacher in TEACHERS.items():
        assert teacher.config.model_fields["name"].default == name


@pytest.mark.skipif(not (DATA / "teacher_cot.jsonl").exists(), reason="needs recorded rationales: set STILLROOM_DATA")
def test_the_published_rationales_keep_no_conclusion() -> None:
    problems = read("svamp", config_of("svamp")(), DATA)["train"]
    found = recorded(RecordedConfig(dataset="svamp"), problems, DATA)
    assert len(found) > 400
    assert {r.problem for r in found} <= {p.id for p in problems}
    assert not [r.problem for r in found if "the answer is" in r.text[-30:].lower()]


def test_samples_of_one_question_are_read_back_in_order(tmp_path: Path) -> None:
    folder = record(tmp_path, line("sum-0", "b c", sample=1, finish="length"), line("sum-0", "a b", sample=0))
    found = recorded(CONFIG, sums(1), folder)
    assert [(r.text, r.sample, r.truncated) for r in found] == [("a b", 0, False), ("b c", 1, True)]


def test_matched_sets_hold_the_problems_that_every_cell_has(tmp_path: Path) -> None:
    lines = [line(f"sum-{i}", "level two") for i in range(3)]
    lines += [line(f"sum-{i}", "level five", granularity=5) for i in (1, 2, 3)]
    folder = record(tmp_path, *lines, line("sum-2", "another dataset", dataset="gsm8k", granularity=6))
    for level in (2, 5):
        config = CONFIG.model_copy(update={"granularity": level, "matched": True})
        assert [r.problem for r in recorded(config, sums(4), folder)] == ["sum-1", "sum-2"]


def test_a_mixture_gives_each_problem_to_one_teacher(tmp_path: Path) -> None:
    problems = sums(40)
    folder = record(tmp_path, *(line(p.id, "recorded reasoning") for p in problems))
    entries = ({"name": "worked"}, {"name": "recorded", "dataset": "toy", "teacher": "ann", "granularity": 2})
    row = TEACHERS["mixture"]
    config = row.config(of=entries)
    found = row.write(config, problems, folder, NO_DESK)
    assert [r.problem for r in found] == [p.id for p in problems]
    assert {r.teacher for r in found} == {"worked", "ann"}
    assert 10 < sum(r.teacher == "ann" for r in found) < 30
    assert row.write(config, problems[::-1], folder, NO_DESK) == found[::-1]
    assert row.files(config) == ("teacher_cot.jsonl",)
    with pytest.raises(ConfigError, match="did you mean 'worked'"):
        row.files(row.config(of=({"name": "worke"}, {"name": "worked"})))
