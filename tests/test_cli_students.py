"""The doors train, import and export, walked from a folder to a plain model that answers; the plan tells memory."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner, Result

from architectures import tiny
from stillroom.cli import app
from stillroom.cli.app import copy_student
from stillroom.errors import StillroomError
from stillroom.students import load
from stillroom.students.thoughts import think_and_answer
from toys import sums, tokenizer

SETTINGS = ["fit.updates=20", "fit.batch_size=8", "fit.learning_rate=1e-2", "fit.precision=float32", "fit.threads=1"]


def stillroom(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=True)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, lessons and a store of its own."""
    monkeypatch.setenv("STILLROOM_STORE", str(tmp_path / "store"))
    words = tokenizer()
    model = tiny("llama", len(words))
    model.config.eos_token_id = words.eos_token_id
    model.save_pretrained(tmp_path / "model")
    words.save_pretrained(tmp_path / "model")
    rows = [{"prompt": p.question, "completion": "The answer is 2.", "source": "toy"} for p in sums(8)]
    (tmp_path / "lessons.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def trained(here: Path, *more: str) -> Path:
    said = stillroom(
        "train",
        str(here / "model"),
        str(here / "lessons.jsonl"),
        *SETTINGS,
        *more,
        "-o",
        str(here / "student"),
        "--device",
        "cpu",
    )
    assert said.exit_code == 0, said.output + str(said.exception)
    return here / "student"


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_a_student_is_trained_and_exported_as_a_plain_model_that_answers_alike(adapter: str, here: Path) -> None:
    folder = trained(here, "--adapter", adapter)
    assert (folder / "adapter_config.json").exists() == (adapter == "lora")
    (made,) = (here / "store" / "student").glob("[0-9a-f]*")
    said = stillroom("export", str(made), "--merged", "-o", str(here / "plain"))
    assert said.exit_code == 0, said.output + str(said.exception)
    student = load(folder)
    model = AutoModelForCausalLM.from_pretrained(here / "plain", attn_implementation="eager")
    ids = torch.tensor([student.prompt("Ann has 3 eggs and gets 1 and 1.")])
    torch.testing.assert_close(model(ids).logits, student.model(ids).logits, rtol=0, atol=1e-5)
    words = AutoTokenizer.from_pretrained(here / "plain")
    out = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    assert words.decode(out, skip_special_tokens=True) == "The answer is 2."
    card = (here / "plain" / "README.md").read_text()
    assert "fit.learning_rate | 0.01" in card
    assert f"adapter.name | {adapter}" in card
    again = stillroom("export", str(made), "--merged", "-o", str(here / "plain"))
    assert "exists; remove it" in str(again.exception)


def test_a_student_learns_from_a_models_distribution(here: Path) -> None:
    teacher = trained(here)
    (here / "student").rename(here / "teacher")
    folder = trained(here, "--teacher", str(here / "teacher"), "gkd.share=0.5", "gkd.new_tokens=8", "gkd.beta=0.1")
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert set(logged[-1]) == {"step", "learning_rate", "gradient_norm", "gkd"}
    assert teacher == folder


def test_an_adapter_on_a_base_of_the_store_is_opened_where_it_was_copied_to(here: Path) -> None:
    few = ["base.fit.updates=2", "fit.updates=2", "settings.device=cpu", "adapter={name: lora}", "lenses={}"]
    assert (
        stillroom("run", "abacus-small", *few, "students={normal: {variant: normal}}", "--until", "student").exit_code
        == 0
    )
    (made,) = (here / "store" / "student").glob("[0-9a-f]*")
    copied = copy_student(made, here / "elsewhere" / "student")
    ids = torch.tensor([load(made).prompt("Ann has 3 apples.")])
    assert torch.equal(load(copied).model(ids).logits, load(made).model(ids).logits)


def test_a_student_that_thinks_is_exported_with_what_it_thinks_with(here: Path) -> None:
    few = ["base.fit.updates=2", "fit.updates=2", "settings.device=cpu", "lenses={}"]
    students = "students={latent: {variant: latent, codi: {thoughts: 2}}}"
    said = stillroom("run", "abacus-small", *few, students, "--until", "student")
    assert said.exit_code == 0, said.output + str(said.exception)
    (made,) = (here / "store" / "student").glob("[0-9a-f]*")
    said = stillroom("export", str(made), "--merged", "-o", str(here / "plain"))
    assert said.exit_code == 0, said.output + str(said.exception)
    prompts = [load(made).prompt("Ann has 3 apples.")]
    one, two = (think_and_answer(load(f).thinker(), prompts, 2, 4)[0] for f in (made, here / "plain"))
    assert torch.equal(one.thoughts_Kd, two.thoughts_Kd)


def test_a_teacher_of_another_vocabulary_is_refused(here: Path) -> None:
    """Pitfall 18."""
    other = tokenizer(40)
    tiny("llama", len(other)).save_pretrained(here / "other")
    other.save_pretrained(here / "other")
    said = stillroom(
        "train",
        str(here / "model"),
        str(here / "lessons.jsonl"),
        *SETTINGS,
        "--teacher",
        str(here / "other"),
        "--device",
        "cpu",
    )
    assert "GKD compares token by token" in str(said.exception)


def test_a_pickled_folder_is_imported_and_then_trained(here: Path) -> None:
    pickled = here / "pickled"
    (here / "model").rename(pickled)
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    said = stillroom("train", str(pickled), str(here / "lessons.jsonl"), *SETTINGS, "--device", "cpu")
    assert f"stillroom import {pickled}" in str(said.exception)
    said = stillroom("import", str(pickled), "-o", str(here / "model"))
    assert said.exit_code == 0, said.output + str(said.exception)
    assert trained(here).exists()


def test_the_plan_tells_what_each_student_takes(here: Path) -> None:
    said = stillroom(
        "train", str(here / "model"), str(here / "lessons.jsonl"), *SETTINGS, "--adapter", "lora", "--dry-run"
    )
    assert said.exit_code == 0, said.output
    assert "memory of student: " in said.output
    assert (
        "8 rows of 64 tokens (at most: lengths are not known yet) in float32, lora; smallest usual GPU 8 GB"
        in said.output
    )
    assert not (here / "store").exists()
    said = stillroom("run", "abacus-small", "--dry-run")
    assert said.output.count("memory of ") == 4


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "{here}/model", "{here}/none.jsonl"], "no such file; expected JSON lines with `prompt`"),
        (["train", "{here}/nothing", "{here}/lessons.jsonl"], "nothing: no such folder"),
        (["train", "no/such", "{here}/lessons.jsonl"], "there is no such folder here, so it was looked for on the hub"),
        (["train", "{here}/model", "{here}/lessons.jsonl", "fit.epoch=1"], "did you mean 'fit.epochs'"),
        (
            ["train", "{here}/model", "{here}/lessons.jsonl", "--adapter", "dora"],
            "Input should be 'full', 'lora' or 'qlora'",
        ),
        (["train", "{here}/model", "{here}/lessons.jsonl", "--style", "chat"], "has no chat template"),
        (["export", "{here}/model", "--merged", "-o", "{here}/x"], "no student.json, so this is no student's folder"),
        (["export", "{here}/model", "-o", "{here}/x"], "say what is wanted"),
        (["import", "{here}/model", "-o", "{here}/x"], "holds safetensors already"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(arguments: list[str], told: str, here: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = stillroom(*[argument.format(here=here) for argument in arguments])
    assert isinstance(said.exception, StillroomError)
    assert told in str(said.exception)
    assert not (here / "x").exists()
