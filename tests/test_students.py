"""Students: a folder holds all that is needed to ask one; arms differ in their lessons alone."""

import gc
import json
from pathlib import Path

import pytest
import torch

from stillroom import students
from stillroom.errors import DataError
from stillroom.files import write_lines
from stillroom.records import Lesson, Problem
from stillroom.students import (
    BaseConfig,
    Manner,
    Student,
    StudentConfig,
    load,
    make_base,
    make_student,
    save,
    token_statistics,
)
from stillroom.students.scratch import ScratchConfig
from stillroom.students.sft import Example
from stillroom.training import FitConfig, fit
from toy_tokenizers import llama3_like
from toys import problem, student, sums, workplace

FIT = FitConfig(updates=6, batch_size=4, warmup=2, log_every=2, precision="float32")
SMALL = ScratchConfig(width=16, layers=2, heads=2, feed_forward=32, positions=64)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_saved_student_answers_as_before_and_keeps_its_manner(kind: str, tmp_path: Path) -> None:
    before = student(kind, pauses=4)
    save(before, tmp_path)
    after = load(tmp_path)
    question = "Ann has 3 eggs and gets 1 and 1."
    assert after.manner == before.manner
    assert after.prompt(question) == before.prompt(question)
    assert after.prompt(question)[-4:] == [3] * 4
    ids = torch.tensor([before.prompt(question)])
    assert torch.equal(after.model(input_ids=ids).logits, before.model(input_ids=ids).logits)
    assert not after.model.training
    assert {p.dtype for p in after.model.parameters()} == {torch.float32}
    assert after.model.config._attn_implementation == before.manner.attention
    assert json.loads((tmp_path / "student.json").read_text())["pauses"] == 4


def test_a_folder_that_is_no_student_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no student\.json, so this is no student's folder"):
        load(tmp_path)


@pytest.fixture
def house(tmp_path: Path) -> dict[str, Path]:
    """Folders of lessons, problems and a base."""
    problems = [*sums(9), problem("big", ("9 + 90", 99), question="Ann has 9 eggs and gets 90.")]
    folders = {name: workplace(tmp_path / name).out for name in ("lessons", "primer", "problems", "base")}
    lessons = [Lesson(problem=p.id, prompt=p.question, completion=f"The answer is {p.answer}.") for p in problems]
    write_lines(folders["lessons"] / "lessons.jsonl", lessons)
    write_lines(folders["primer"] / "lessons.jsonl", [Lesson(problem="s", prompt="", completion="Ann has 3\n")] * 5)
    write_lines(folders["problems"] / "train.jsonl", problems)
    parents = {"lessons": folders["primer"], "worked": folders["lessons"]}
    make_base(BaseConfig(scratch=SMALL, fit=FIT), workplace(folders["base"], parents=parents))
    return folders


def test_the_base_knows_all_words_and_all_numbers_up_to_the_largest(house: dict[str, Path]) -> None:
    base = load(house["base"])
    tokens = base.tokenizer("Ann gets 57 and 99.\nThe answer is 0.", add_special_tokens=False)["input_ids"]
    assert base.tokenizer.unk_token_id not in tokens
    assert base.tokenizer(" 100", add_special_tokens=False)["input_ids"] == [base.tokenizer.unk_token_id]
    assert base.model.config.num_hidden_layers == 2
    assert (house["base"] / "metrics.jsonl").exists()


def taught(house: dict[str, Path], folder: Path, **changes: object) -> dict[str, torch.Tensor]:
    config = StudentConfig(**{"fit": FIT, **changes})
    make_student(config, workplace(folder, parents=house))
    return load(folder).model.state_dict()


def test_a_student_starts_at_its_base_and_the_same_seed_gives_the_same_bytes(house, tmp_path: Path) -> None:
    one, two = taught(house, tmp_path / "one"), taught(house, tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]
    still = taught(house, tmp_path / "still", fit=FIT.model_copy(update={"updates": 1, "learning_rate": 1e-9}))
    base = load(house["base"]).model.state_dict()
    for name in base:
        torch.testing.assert_close(still[name], base[name], rtol=0, atol=1e-7)
    assert not torch.equal(one["lm_head.weight"], base["lm_head.weight"])


@pytest.mark.parametrize("changes", [{}, {"codi": {"thoughts": 1}}], ids=["in words", "in thoughts"])
def test_the_words_of_lessons_are_gone_while_a_student_is_trained(
    changes: dict[str, object], house, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They take as much memory as training does."""

    def records() -> int:
        gc.collect()
        return sum(type(one) in (Lesson, Problem) for one in gc.get_objects())

    def counted(*given: object) -> object:
        seen.append(records())
        return fit(*given)

    seen, before = [], records()
    monkeypatch.setattr(students, "fit", counted)
    make_student(StudentConfig.parse({**changes, "fit": FIT.model_dump()}, "here"), workplace(tmp_path, parents=house))
    assert seen == [before]


def test_pauses_belong_to_the_manner_and_change_what_is_learned(house, tmp_path: Path) -> None:
    plain, filler = taught(house, tmp_path / "plain"), taught(house, tmp_path / "filler", pauses=2)
    assert load(tmp_path / "plain").manner.pauses == 0
    assert load(tmp_path / "filler").manner.pauses == 2
    assert any(not torch.equal(plain[name], filler[name]) for name in plain)


def test_a_byte_level_base_reads_any_text(house: dict[str, Path], tmp_path: Path) -> None:
    parents = {"lessons": house["primer"], "worked": house["lessons"]}
    scratch = SMALL.model_copy(update={"tokenizer": "bpe", "vocabulary": 300})
    make_base(BaseConfig(scratch=scratch, fit=FIT), workplace(tmp_path / "bpe", parents=parents))
    base = load(tmp_path / "bpe")
    tokens = base.tokenizer("Zoë 🙂", add_special_tokens=False)["input_ids"]
    assert base.tokenizer.decode(tokens) == "Zoë 🙂"


def test_token_statistics_by_hand() -> None:
    examples = [Example("a", prompt=[1, 2], completion=[3]), Example("b", prompt=[1, 2, 3, 4], completion=[5, 6, 7])]
    assert token_statistics(examples) == {
        "prompt": {"mean": 3, "longest": 4, "total": 6},
        "completion": {"mean": 2, "longest": 3, "total": 4},
    }


def test_a_tokenizer_without_pauses_and_without_an_unknown_token_is_asked_all_the_same() -> None:
    asked = Student(student().model, llama3_like(), Manner())
    assert asked.pauses() == []
    assert asked.prompt("Why?")


@pytest.mark.parametrize(
    ("manner", "told"),
    [
        ({"9" * 5000: 1}, r"student\.json: 9{100}…: Extra inputs are not permitted; copy"),
        ({"pauses": 10**9}, r"1000000000 pauses or thoughts leave no room in a context of \d+ tokens"),
        ({"thoughts": {"count": 2, "begin": "zzz", "projected": False}}, "its tokenizer has no token 'zzz'"),
    ],
)
def test_a_manner_that_cannot_be_asked_is_refused(manner: dict[str, object], told: str, tmp_path: Path) -> None:
    save(student("llama"), tmp_path)
    file = tmp_path / "student.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | manner))
    with pytest.raises(DataError, match=told):
        load(tmp_path)
