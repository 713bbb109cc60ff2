"""Any two models: unequal ones get the lenses that they allow, and each lens left out says why."""

from math import isnan
from pathlib import Path

import pytest
import torch

from architectures import NAMES, tiny
from stillroom.errors import DataError, UsageError
from stillroom.lenses import LENSES
from stillroom.lenses.subjects import BASE
from stillroom.pipeline.diffing import OTHER, _named, difference, headlines, line, opened, problems
from stillroom.students import Manner, Student, save
from stillroom.students.adapters import AdapterConfig, attach
from toys import sums, tokenizer

SPLITS = {"train": sums(18), "validation": sums(6), "test": sums(12)[6:]}
WORDS = tokenizer()
READERS = ("weights", "representations", "kl", "logit_lens")


def small(name: str, seed: int = 0, **settings: int) -> Student:
    return Student(tiny(name, len(WORDS), seed, **settings), WORDS, Manner())


@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_is_compared_full_and_lora(name: str) -> None:
    changed = small(name)
    wrapped = Student(attach(changed.model, AdapterConfig(name="lora", r=2), False), WORDS, Manner())
    for other in (small(name, seed=1), wrapped):
        found = difference(small(name), other, READERS, SPLITS)
        assert found.notes == []
        assert {f.lens for f in found.findings} == {*READERS}
        assert {f.subject for f in found.findings} == {"A", "B"}
        assert {f.reference for f in found.findings} == {"", "A"}
        assert all(f.invalid or (f.nulls and f.low <= f.value <= f.high) for f in found.findings)
        assert all(line(f) for f in headlines(found.findings))


@pytest.mark.parametrize("name", NAMES)
def test_every_other_lens_looks_at_every_architecture_too(name: str) -> None:
    """With an adapter on every second architecture; what finds nothing in so few problems says so."""
    other = small(name, seed=1)
    if NAMES.index(name) % 2:
        other = Student(attach(other.model, AdapterConfig(name="lora", r=2), False), WORDS, Manner())
    few = {"train": sums(5), "validation": sums(3), "test": sums(6)[3:]}
    rest = [lens for lens in LENSES if lens not in (*READERS, "over_training")]
    found = difference(small(name), other, rest, few)
    assert found.notes == []
    assert {f.lens for f in found.findings} == {*rest}
    assert all((f.invalid and isnan(f.value)) or (f.nulls and f.low <= f.value <= f.high) for f in found.findings)


def test_unequal_models_get_what_they_allow() -> None:
    wide = difference(small("llama"), small("llama", hidden_size=64), ["weights", "representations", "kl"], SPLITS)
    assert wide.notes == ["weights: left out, since it compares models of the same shapes"]
    assert {f.lens for f in wide.findings} == {"representations", "kl"}
    assert {f.metric for f in wide.findings if f.lens == "representations"} == {"CKA"}
    other = Student(tiny("gpt2", 30), tokenizer(9), Manner())
    few = [p.model_copy(update={"question": "Ann has 3 eggs and gets 1 and 1."}) for p in SPLITS["test"]]
    apart = difference(small("llama"), other, ["weights", "kl", "logit_lens"], {**SPLITS, "test": few})
    assert [note.partition(":")[0] for note in apart.notes][:2] == ["weights", "kl"]
    assert "same tokens" in apart.notes[1]


def test_what_is_broken_is_named_as_the_findings_name_it() -> None:
    for side, who in enumerate("AB"):
        for norm, head, told in ((torch.nan, 1.0, "weight model.norm"), (3e38, 1e6, "outputs")):
            pair = [small("llama"), small("llama")]
            with torch.no_grad():
                pair[side].model.get_parameter("model.norm.weight").fill_(norm)
                pair[side].model.get_output_embeddings().weight.mul_(head)
            with pytest.raises(DataError, match=f"^{who}: its {told}"):
                difference(pair[0], pair[1], ["kl"], SPLITS)


def test_a_null_that_is_the_other_model_has_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    one = difference(small("llama"), small("llama", seed=1), ["kl"], SPLITS).findings[0]
    assert capsys.readouterr().err == "lens kl ...\n"
    nulls = tuple(one.nulls[0].model_copy(update={"name": name}) for name in (BASE, "untrained"))
    named = _named(one.model_copy(update={"subject": OTHER, "reference": BASE, "nulls": nulls}))
    assert (named.subject, named.reference, [null.name for null in named.nulls]) == ("B", "A", ["A", "untrained"])


def test_an_adapters_folder_stands_on_its_base(tmp_path: Path) -> None:
    """As peft itself writes it, and with an adapter that changes something."""
    one = small("llama")
    one.model.save_pretrained(tmp_path / "base")
    WORDS.save_pretrained(tmp_path / "base")
    wrapped = attach(one.model, AdapterConfig(name="lora", r=2), False)
    for name, weight in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(weight)
    wrapped.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    wrapped.save_pretrained(str(tmp_path / "adapter"))
    found = difference(
        opened(str(tmp_path / "base"), "cpu", "plain"),
        opened(str(tmp_path / "adapter"), "cpu", "plain"),
        ["kl"],
        SPLITS,
    )
    assert all(f.value > 0 for f in headlines(found.findings))


def test_an_unknown_lens_or_task_is_named() -> None:
    with pytest.raises(UsageError, match="did you mean 'weights'"):
        difference(small("llama"), small("llama"), ["weihgts"], SPLITS)
    with pytest.raises(UsageError, match="abacus"):
        problems("abakus", 5)


def test_problems_are_limited_and_halved_where_nothing_is_for_choosing(tmp_path: Path) -> None:
    told = problems("abacus", 3)
    assert {name: len(rows) for name, rows in told.items()} == {"train": 60, "validation": 15, "test": 15}
    file = tmp_path / "q.jsonl"
    file.write_text("".join(f'{{"question": "What is {i}?", "answer": "{i}"}}\n' for i in range(5)))
    halves = problems(str(file), 3)
    assert not {p.id for p in halves["validation"]} & {p.id for p in halves["test"]}
    file.write_text('{"question": "What is 1?", "answer": "1"}\n')
    with pytest.raises(DataError, match="fewer than two"):
        problems(str(file), 3)


def test_models_are_opened_with_and_without_a_manner(tmp_path: Path) -> None:
    save(small("llama"), tmp_path / "s")
    taught = opened(str(tmp_path / "s"), "cpu", "plain")
    (tmp_path / "s" / "student.json").unlink()
    bare = opened(str(tmp_path / "s"), "cpu", "plain")
    assert bare.prompt("Ann has 3 eggs.") == taught.prompt("Ann has 3 eggs.")
