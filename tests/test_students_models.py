"""Any architecture: a model's folder becomes a base, learns, is saved, is opened again, and stops by itself."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from architectures import NAMES, tiny
from stillroom.decoding import decode
from stillroom.errors import DataError, UsageError
from stillroom.files import write_lines
from stillroom.records import Lesson
from stillroom.students import Manner, StudentConfig, load, make_student
from stillroom.students.adapters import AdapterConfig
from stillroom.students.folders import Origin, open_weights
from stillroom.students.pretrained import Pretrained, make_pretrained
from stillroom.students.sft import encode
from stillroom.training import FitConfig
from toys import sums, tokenizer, workplace

FIT = FitConfig(updates=30, batch_size=8, warmup=3, learning_rate=1e-2, precision="float32", threads=1)
PROBLEMS = sums(8)


@pytest.fixture
def house(tmp_path: Path) -> dict[str, Path]:
    folders = {name: workplace(tmp_path / name).out for name in ("lessons", "problems")}
    lessons = [Lesson(problem=p.id, prompt=p.question, completion="The answer is 2.") for p in PROBLEMS]
    write_lines(folders["lessons"] / "lessons.jsonl", lessons)
    write_lines(folders["problems"] / "train.jsonl", PROBLEMS)
    return folders


def model_folder(folder: Path, name: str, **settings: int) -> Path:
    words = tokenizer()
    model = tiny(name, len(words), **settings)
    model.config.eos_token_id = words.eos_token_id
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def test_a_tokenizer_whose_settings_no_file_can_hold_is_told(tmp_path: Path) -> None:
    source = model_folder(tmp_path / "source", NAMES[0])
    path = source / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "note": "\ud800"}))
    with pytest.raises(DataError, match=f"{source}: its tokenizer's settings hold half of a character"):
        make_pretrained(Pretrained(source=str(source)), workplace(tmp_path / "base"))


def base(house: dict[str, Path], folder: Path, name: str = "llama", **settings: object) -> Path:
    source = model_folder(folder / "source", name)
    config = Pretrained(source=str(source), **settings)
    make_pretrained(config, workplace(folder / "base"))
    return folder / "base"


def taught(house: dict[str, Path], base: Path, folder: Path, **changes: object) -> Path:
    config = StudentConfig(**{"fit": FIT, **changes})
    make_student(config, workplace(folder, parents={**house, "base": base}))
    return folder


@pytest.mark.parametrize("adapter", ["full", "lora"])
@pytest.mark.parametrize("name", NAMES)
def test_a_model_learns_is_saved_is_opened_again_and_stops_by_itself(house, name, adapter, tmp_path: Path) -> None:
    """Pitfall 16: a student whose end of text was masked never stops."""
    start = base(house, tmp_path, name)
    pieces = [p.name for p in start.iterdir()]
    assert "model.safetensors" not in pieces  # the weights are not copied
    folder = taught(house, start, tmp_path / "student", adapter=AdapterConfig(name=adapter, dropout=0.0))
    one, two = load(folder), load(folder)
    prompts = one.prompts([p.question for p in PROBLEMS])
    ids = torch.tensor(prompts[:1])
    assert torch.equal(one.model(input_ids=ids).logits, two.model(input_ids=ids).logits)
    answers = decode(one.model, prompts, 12, one.tokenizer.pad_token_id, one.stops)
    assert {one.tokenizer.decode(answer.ids) for answer in answers} == {"The answer is 2."}
    assert all(answer.stopped for answer in answers)
    before = load(start)
    assert not torch.equal(before.model(input_ids=ids).logits, one.model(input_ids=ids).logits)


@pytest.mark.parametrize("name", NAMES)
def test_pause_tokens_are_learned_beside_an_adapter_and_kept(house, name, tmp_path: Path) -> None:
    start = base(house, tmp_path, name)
    source = tmp_path / "source"
    words = tokenizer()
    assert "<hush>" not in words.get_vocab()
    folder = taught(house, start, tmp_path / "student", pauses=2, adapter=AdapterConfig(name="lora", dropout=0.0))
    student = load(folder)
    assert student.prompt("Ann has 3 eggs")[-2:] == student.pauses()
    assert source.exists()


def test_a_folder_that_is_no_model_pickled_or_brings_code_is_refused(tmp_path: Path) -> None:
    def refused(source: Path | str, told: str) -> None:
        with pytest.raises(DataError, match=told):
            make_pretrained(Pretrained(source=str(source)), workplace(tmp_path / "base"))
        assert not list((tmp_path / "base").iterdir())

    refused(tmp_path, r"no config\.json, so this is no model's folder")
    refused("./nowhere", r"\./nowhere: no such folder")
    coded = model_folder(tmp_path / "coded", "llama")
    text = (coded / "config.json").read_text()
    (coded / "config.json").write_text(text.replace("{", '{"auto_map": {"AutoModelForCausalLM": "evil.Model"},', 1))
    (coded / "evil.py").write_text("raise SystemExit('run')\n")
    refused(coded, "this model brings its own code; set trust_remote_code=true")
    lacking = model_folder(tmp_path / "lacking", "llama")
    weights = load_file(lacking / "model.safetensors")
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, lacking / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"its weights lack model\.layers\.1\.mlp\.down_proj\.weight"):
        open_weights(Origin(source=str(lacking)), Manner(), "cpu")
    pickled = model_folder(tmp_path / "pickled", "llama")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    refused(pickled, r"no weights in safetensors, .* use stillroom import")


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    source = model_folder(tmp_path / "source", "llama")
    tiny("llama", 20).save_pretrained(source)
    with pytest.raises(DataError, match="the model's embedding ends at 19: they do not belong"):
        make_pretrained(Pretrained(source=str(source)), workplace(tmp_path / "base"))


def test_gradient_checkpointing_changes_nothing_but_memory(house, tmp_path: Path) -> None:
    start = base(house, tmp_path)
    plain = load(taught(house, start, tmp_path / "plain")).model.state_dict()
    spared = load(taught(house, start, tmp_path / "spared", checkpointing=True)).model.state_dict()
    for name, tensor in plain.items():
        torch.testing.assert_close(spared[name], tensor, rtol=1e-5, atol=1e-6)


LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8, "rope_theta": 10.0}  # fmt: skip


def test_the_scaling_of_rotary_embeddings_reaches_the_student(house, tmp_path: Path) -> None:
    """Pitfall 12: a Llama 3 without it is another model."""
    source = model_folder(tmp_path / "source", "llama")
    plain = AutoModelForCausalLM.from_pretrained(source, attn_implementation="eager")
    config = AutoConfig.from_pretrained(source)
    config.rope_parameters = LLAMA3
    scaled = AutoModelForCausalLM.from_pretrained(source, config=config, attn_implementation="eager")
    scaled.save_pretrained(source)
    make_pretrained(Pretrained(source=str(source), attention="eager"), workplace(tmp_path / "base"))
    still = FIT.model_copy(update={"updates": 1, "learning_rate": 1e-12, "warmup": 0})
    student = load(taught(house, tmp_path / "base", tmp_path / "student", fit=still))
    ids = torch.arange(2, 30)[None]
    torch.testing.assert_close(student.model(ids).logits, scaled(ids).logits, rtol=0, atol=1e-5)
    assert not torch.allclose(student.model(ids).logits, plain(ids).logits, atol=1e-2)


def test_the_manner_of_asking_is_saved_and_used_by_every_later_reader(house, tmp_path: Path) -> None:
    """Pitfall 16: the template at training is the one at inference."""
    start = base(house, tmp_path, style="alpaca")
    student = load(taught(house, start, tmp_path / "student"))
    assert student.manner.style == "alpaca"
    asked = student.tokenizer.decode(student.prompt("Ann has 3 eggs."))
    assert asked.startswith("<unk>")  # words of the instruction that this small vocabulary lacks
    assert " 3 eggs" in asked
    examples = encode([Lesson(problem="p", prompt="Ann has 3 eggs.", completion="The answer is 2.")], student)
    assert examples[0].prompt == student.prompt("Ann has 3 eggs.")


def test_step_by_step_students_learn_two_tasks_and_are_asked_for_the_answer(house, tmp_path: Path) -> None:
    lessons = [
        Lesson(problem=p.id, prompt=f"[{term}] {p.question}", completion=text, term=term)
        for p in PROBLEMS
        for term, text in (("answer", "The answer is 2."), ("rationale", "Step 1: 1 + 1 = 2"))
    ]
    write_lines(house["lessons"] / "lessons.jsonl", lessons)
    terms = {"answer": 1.0, "rationale": 0.5}
    start = base(house, tmp_path)
    folder = taught(
        house, start, tmp_path / "student", terms=terms, prefix="[answer] ", fit=FIT.model_copy(update={"updates": 60})
    )
    logged = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"answer", "rationale"} <= set(logged)
    student = load(folder)
    answers = decode(student.model, student.prompts([p.question for p in PROBLEMS]), 12, 0, student.stops)
    assert {student.tokenizer.decode(answer.ids) for answer in answers} == {"The answer is 2."}


def test_packing_trains_alike_and_is_refused_where_rows_would_mix(house, tmp_path: Path) -> None:
    start = base(house, tmp_path)
    plain = load(taught(house, start, tmp_path / "plain")).model.state_dict()
    close = load(
        taught(house, start, tmp_path / "packed", fit=FIT.model_copy(update={"packing": True}))
    ).model.state_dict()
    for name, tensor in plain.items():
        torch.testing.assert_close(close[name], tensor, rtol=1e-3, atol=1e-4)
    mixing = base(house, tmp_path / "bloom", "bloom")
    with pytest.raises(UsageError, match=r"attention mixes rows that are packed; set fit\.packing=false"):
        taught(house, mixing, tmp_path / "mixed", fit=FIT.model_copy(update={"packing": True}))


def test_a_4_bit_student_trains_is_saved_and_is_opened_again(house, tmp_path: Path) -> None:
    source = model_folder(tmp_path / "source", "llama", hidden_size=64, intermediate_size=128, head_dim=16)
    make_pretrained(Pretrained(source=str(source), attention="eager"), workplace(tmp_path / "base"))
    folder = taught(house, tmp_path / "base", tmp_path / "student", adapter=AdapterConfig(name="qlora", dropout=0.0))
    one, two = load(folder), load(folder)
    assert one.manner.quantised
    ids = torch.tensor([one.prompt(PROBLEMS[0].question)])
    assert torch.equal(one.model(input_ids=ids).logits, two.model(input_ids=ids).logits)
    answers = decode(one.model, ids.tolist(), 12, 0, one.stops)
    assert one.tokenizer.decode(answers[0].ids) == "The answer is 2."
    assert not list(folder.glob("model*.safetensors"))


def test_what_an_adapter_starts_from_follows_the_seed_and_nothing_that_was_drawn_before(house, tmp_path: Path) -> None:
    start = base(house, tmp_path)
    lora = AdapterConfig(name="lora")
    short = FIT.model_copy(update={"updates": 2})
    torch.manual_seed(1)
    one = taught(house, start, tmp_path / "one", adapter=lora, fit=short)
    torch.manual_seed(2)
    two = taught(house, start, tmp_path / "two", adapter=lora, fit=short)
    other = taught(house, start, tmp_path / "other", adapter=lora, fit=short.model_copy(update={"seed": 5}))
    files = [(folder / "adapter_model.safetensors").read_bytes() for folder in (one, two, other)]
    assert files[0] == files[1] != files[2]


def test_fewer_rows_than_an_update_asks_for_are_one_update_in_any_parts(house, tmp_path: Path) -> None:
    start = base(house, tmp_path)
    few = FIT.model_copy(update={"updates": 3, "batch_size": 64})
    whole = load(taught(house, start, tmp_path / "whole", fit=few)).model.state_dict()
    parts = taught(house, start, tmp_path / "parts", fit=few.model_copy(update={"micro_batch": 1}))
    for name, tensor in load(parts).model.state_dict().items():
        torch.testing.assert_close(tensor, whole[name], rtol=0, atol=1e-5)


def test_tasks_that_are_not_those_of_the_lessons_are_refused(house, tmp_path: Path) -> None:
    start = base(house, tmp_path)
    with pytest.raises(UsageError, match="the lessons' tasks are ce, and `terms` weighs ce, other"):
        taught(house, start, tmp_path / "student", terms={"ce": 1.0, "other": 0.5})


def test_updates_counted_from_epochs_are_hand_worked() -> None:
    settled = FitConfig(epochs=3, batch_size=64).settled(40)
    assert (settled.updates, settled.batch_size, settled.warmup) == (3, 40, 0)
    settled = FitConfig(epochs=2.5, batch_size=8).settled(800)
    assert (settled.updates, settled.warmup) == (250, 25)
    assert FitConfig(updates=7).settled(800).warmup == 50
