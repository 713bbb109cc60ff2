"""Models of all kinds are named, opened and asked: students, any folder, an adapter on a base, those of a folder."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from architectures import tiny
from stillroom.errors import DataError, StillroomError, UsageError
from stillroom.evaluation.answering import AnswerConfig
from stillroom.evaluation.models import Given, open_model, settled, stamp
from stillroom.pipeline import diffing, questions
from stillroom.pipeline.evaluating import evaluation_plan, labelled, models_below, named, problems_of
from stillroom.pipeline.sharing import share_out, visible
from stillroom.students import save
from stillroom.students.adapters import known_warnings
from stillroom.teachers.limits import Limits
from toys import student, sums, tokenizer

CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"


def model_folder(folder: Path, chat: bool = False, seed: int = 0) -> Path:
    words = tokenizer()
    words.chat_template = CHAT if chat else None
    model = tiny("llama", len(words), seed)
    model.config.eos_token_id = words.eos_token_id
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def adapter_folder(folder: Path, base: Path) -> Path:
    torch.manual_seed(3)
    with known_warnings():
        made = get_peft_model(
            open_model(Given(source=str(base)), "cpu").model, LoraConfig(r=2, init_lora_weights=False)
        )
    made.peft_config["default"].base_model_name_or_path = str(base)
    made.save_pretrained(folder)
    return folder


def logits(given: Given) -> torch.Tensor:
    one = open_model(settled(given), "cpu")
    with torch.inference_mode():
        return one.model(torch.tensor([one.prompt("Ann has 3 eggs and gets 1 and 1.")])).logits


def test_a_foreign_model_is_asked_in_its_own_template_or_plainly_or_as_told(tmp_path: Path) -> None:
    plain, chat = model_folder(tmp_path / "plain"), model_folder(tmp_path / "chat", chat=True)
    assert open_model(Given(source=str(plain)), "cpu").manner.style == "plain"
    assert open_model(Given(source=str(chat)), "cpu").manner.style == "chat"
    told = open_model(Given(source=str(chat), style="alpaca", dtype="bfloat16"), "cpu")
    assert told.manner.style == "alpaca"
    assert told.model.dtype == torch.bfloat16


def test_a_student_keeps_its_manner_unless_told(tmp_path: Path) -> None:
    save(student(pauses=2), tmp_path / "s")
    one = open_model(Given(source=str(tmp_path / "s")), "cpu")
    assert (one.manner.pauses, one.manner.style, one.model.dtype) == (2, "plain", torch.float32)
    other = open_model(Given(source=str(tmp_path / "s"), style="llama3", dtype="bfloat16"), "cpu")
    assert (other.manner.pauses, other.manner.style, other.model.dtype) == (2, "llama3", torch.bfloat16)


def test_an_adapter_alone_or_on_its_named_base_is_the_same_model(tmp_path: Path) -> None:
    base = model_folder(tmp_path / "base")
    adapter = adapter_folder(tmp_path / "adapter", base)
    alone, both = logits(Given(source=str(adapter))), logits(Given(source=str(base), adapter=str(adapter)))
    assert torch.equal(alone, both)
    assert not torch.allclose(both, logits(Given(source=str(base))), atol=1e-3)
    small = tmp_path / "small"
    other = tiny("llama", len(tokenizer()), hidden_size=16)
    other.save_pretrained(small)
    tokenizer().save_pretrained(small)
    with pytest.raises(DataError, match="does not fit its base"):
        logits(Given(source=str(small), adapter=str(adapter)))


def test_a_stamp_follows_what_the_files_hold_and_not_where_they_stand(tmp_path: Path) -> None:
    one = model_folder(tmp_path / "a")
    shutil.copytree(one, tmp_path / "b")
    assert stamp(Given(source=str(one))) == stamp(Given(source=str(tmp_path / "b")))
    assert stamp(Given(source=str(one))) != stamp(Given(source=str(model_folder(tmp_path / "c", seed=1))))
    assert stamp(Given(source=str(one))) != stamp(Given(source=str(one), style="bare"))
    (tmp_path / "b" / "manifest.json").write_text("{}")
    assert stamp(Given(source=str(one))) == stamp(Given(source=str(tmp_path / "b")))


def test_what_is_no_model_is_told_before_anything_is_asked(tmp_path: Path) -> None:
    bare = model_folder(tmp_path / "bare")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bare / name).unlink()
    save(student(), tmp_path / "mute")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "mute" / name).unlink()
    (tmp_path / "empty").mkdir()
    for source, told in (
        ("bare", "no tokenizer"), ("mute", "no tokenizer"), ("empty", "neither student"), ("gone", "no such folder"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=told):
            settled(Given(source=str(tmp_path / source)))
    with pytest.raises(DataError, match=r"no adapter_config\.json"):
        settled(Given(source=str(tmp_path / "mute"), adapter=str(tmp_path / "empty")))
    with pytest.raises(UsageError, match="in its own chat template"):
        settled(Given(source="m", base_url="http://127.0.0.1:1/v1", style="plain"))


def test_every_model_below_a_folder_is_found_once(tmp_path: Path) -> None:
    save(student(), tmp_path / "runs" / "one")
    model_folder(tmp_path / "runs" / "deep" / "two")
    adapter_folder(tmp_path / "runs" / "three", tmp_path / "runs" / "deep" / "two")
    model_folder(tmp_path / "runs" / "one" / "checkpoint-5")
    assert [Path(p).name for p in models_below(tmp_path / "runs")] == ["two", "one", "three"]
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="no folder below it holds"):
        models_below(tmp_path / "none")


def test_labels_are_unique_and_tell_a_seed(tmp_path: Path) -> None:
    for run in ("x", "y"):
        save(student(), tmp_path / run / "normal")
    both = labelled([Given(source=str(tmp_path / run / "normal")) for run in ("x", "y", "x")])
    assert len(both) == 2
    assert all(label.startswith("normal_") for label in both)
    assert named("normal@3") == ("normal", 3)
    assert named("me@home") == ("me@home", 0)


def test_a_plan_names_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path))
    with pytest.raises(UsageError, match="did you mean 'gsm8k'"):
        problems_of("gsm8")
    with pytest.raises(DataError, match=r"svamp_train\.jsonl: no such file"):
        problems_of("svamp")
    save(student(), tmp_path / "one")
    rows = [{"id": p.id, "question": p.question, "answer": p.answer} for p in sums(3)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def keys(**told: object) -> list[str]:
        config = AnswerConfig(**told)  # type: ignore[arg-type]
        own = str(tmp_path / "own.jsonl")
        plan, _ = evaluation_plan([Given(source=str(tmp_path / "one"))], [own], config, Limits())
        return [stage.key for stage in plan]

    assert keys() == keys()
    assert keys()[0] == keys(shots=1)[0]
    assert keys()[1] != keys(shots=1)[1]


def test_a_benchmark_is_asked_in_the_splits_that_fetch_has_brought(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path))
    row = json.dumps({"question": "What is 5 + 7?", "answer": "<<5+7=12>>12\n#### 12"}) + "\n"
    others = [{"question": f"What is {n} + 8?", "answer": f"#### {n + 8}"} for n in range(101)]
    (tmp_path / "gsm8k_official_train.jsonl").write_text("".join(json.dumps(other) + "\n" for other in others))
    (tmp_path / "gsm8k_official_test.jsonl").write_text(row)
    assert problems_of("gsm8k").config["split"] == "official"
    assert [problem.answer for problem in questions.test_problems("gsm8k")] == ["12"]  # `trace`, `--thoughts`
    assert [problem.answer for problem in diffing.problems("gsm8k", 9)["test"]] == ["12"]
    for split in ("train", "test"):
        (tmp_path / f"gsm8k_{split}.jsonl").write_text(row)
    assert problems_of("gsm8k").config["split"] == "study"


def test_two_files_of_one_name_are_not_taken_for_one_another(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "q.jsonl").write_text('{"question": "Q?", "answer": 1}\n')
    files = [str(tmp_path / name / "q.jsonl") for name in ("a", "b")]
    with pytest.raises(UsageError, match="another task is called q too; rename the file"):
        evaluation_plan([], files, AnswerConfig(), Limits())


def test_models_are_shared_out_and_a_failure_is_named(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert [visible(gpu) for gpu in range(2)] == ["4", "7"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible(1) == "1"
    with pytest.raises(StillroomError, match="1 of 2 models failed: no-such/thing"):
        share_out([["schema", "--help"], ["show", "no-such/thing"]], 2)
    assert "[" in capsys.readouterr().err
