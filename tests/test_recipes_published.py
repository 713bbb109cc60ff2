"""The recipes of the founding works: each plans as it is published, and each runs on tiny models and a few problems."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner

from loopback import Loopback, completion
from stillroom import pipeline
from stillroom.cli import app
from stillroom.files import read_json, read_lines
from stillroom.recipes import Recipe, load_recipe
from stillroom.records import Finding, GridRow, Rationale, Score
from stillroom.store import Manifest, Store
from stillroom.students import save
from stillroom.tasks.benchmarks.table import BENCHMARKS
from test_oracle_traces import thinker
from toy_tokenizers import llama3_like, qwen_like

DATASETS = ("svamp", "gsm8k", "aqua", "math", "csqa", "openbookqa", "strategyqa")
SAID = "I add all the numbers up.\nThe answer is 12."


def problems(count: int, first: int = 0) -> Iterator[tuple[str, str, int]]:
    """Question, step and answer: all answers are 12."""
    for number in range(first, first + count):
        eggs, gets = number % 12, number // 12 % 12
        yield f"Ann has {eggs} eggs and gets {gets} and {12 - eggs}.", f"{eggs}+{12 - eggs}=12", 12


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GSM8K and GSM8K-Aug in small; of every other benchmark a file that nothing reads."""
    root = tmp_path_factory.mktemp("data")
    for file in {name for task in DATASETS for name in BENCHMARKS[task].study.values()}:
        (root / file).write_text("{}\n")
    splits = {"train": (60, 0), "test": (12, 60), "validation": (12, 72)}
    for split, (count, first) in splits.items():
        rows = list(problems(count, first))
        plain = [{"question": q, "answer": f"So <<{step}>>12.\n#### {answer}"} for q, step, answer in rows]
        steps = [{"question": q, "steps": [f"<<{step}>>"], "answer": str(answer)} for q, step, answer in rows]
        if split != "validation":
            (root / BENCHMARKS["gsm8k"].study[split]).write_text("".join(json.dumps(row) + "\n" for row in plain))
        (root / BENCHMARKS["gsm8k_aug"].study[split]).write_text("".join(json.dumps(row) + "\n" for row in steps))
    return root


def tiny(folder: Path, words: PreTrainedTokenizerFast, seed: int = 0) -> str:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=8192, eos_token_id=words.eos_token_id,
        bos_token_id=words.bos_token_id, pad_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


@torch.no_grad()
def parrot(folder: Path) -> str:
    """A teacher of 8 dimensions that says `SAID` to everything, and stops."""
    words = qwen_like()
    words.chat_template = None
    words.add_tokens([AddedToken(SAID, special=False)])
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        max_position_embeddings=16384, tie_word_embeddings=False, eos_token_id=words.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    for name, parameter in model.named_parameters():
        parameter.fill_(float("norm" in name))
    (said,) = words(SAID, add_special_tokens=False)["input_ids"]
    model.model.embed_tokens.weight[:, 0] = 1
    model.model.embed_tokens.weight[said] = torch.eye(8)[1]
    model.lm_head.weight[said, 0] = model.lm_head.weight[words.eos_token_id, 1] = 9
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a recipe to its end and gives the manifests by the stages' names."""
    monkeypatch.setenv("STILLROOM_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "none")

    def carry_out(name: str, *overrides: str) -> dict[str, Manifest]:
        said = CliRunner().invoke(app, ["run", name, "settings.device=cpu", *overrides], catch_exceptions=False)
        assert said.exit_code == 0, said.output
        return {m.name: m for m in Store(tmp_path / "store").manifests()}

    return carry_out


def answers(body: dict[str, Any], head: str) -> Any:
    """Whoever is asked says `SAID`."""
    reply = completion(body, "/messages" in head.split("\r\n", maxsplit=1)[0])
    text = json.dumps(reply).replace(json.dumps(text_in(reply)), json.dumps(SAID))
    return 200, {"content-type": "application/json"}, text


def text_in(reply: dict[str, Any]) -> str:
    found = reply["content"][0]["text"] if "content" in reply else reply["choices"][0]["message"]["content"]
    return str(found)


def path(manifest: Manifest, tmp_path: Path) -> Path:
    return tmp_path / "store" / manifest.stage / manifest.key


@pytest.mark.parametrize("name", ["gsm8k-llama", "qwen-lora", "deepseek-crosscoder", "codi-oracle"])
def test_a_recipe_is_planned_as_published_without_network_or_model(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLROOM_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("STILLROOM_DATA", str(data))
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as if it were not installed
    said = CliRunner().invoke(app, ["run", name, "--dry-run"], catch_exceptions=False)
    assert said.exit_code == 0, said.output
    missing = [line.split(": ")[1] for line in said.stdout.splitlines() if line.startswith("missing: ")]
    lacked = {"gsm8k-llama": ["ANTHROPIC_API_KEY is not set"], "qwen-lora": ["4-bit weights need bitsandbytes"]}
    assert missing == lacked.get(name, [])
    assert "run   report" in said.stdout
    assert said.stdout.count("looked for on the hub") <= 1  # once for all students of a base
    assert not (tmp_path / "store").exists()


def test_a_plan_tells_what_the_teachers_of_a_mixture_lack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_STORE", str(tmp_path / "store"))
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    mixed = "teacher={name: mixture, of: [{name: worked}, {name: anthropic, model: m}]}"
    said = CliRunner().invoke(app, ["run", "abacus-small", mixed, "--dry-run"], catch_exceptions=False)
    assert "missing: ANTHROPIC_API_KEY is not set" in said.stdout


def test_the_settings_are_the_published_ones() -> None:
    found: dict[str, Recipe] = {
        name: load_recipe(name, [])[""] for name in ("gsm8k-llama", "qwen-lora", "deepseek-crosscoder", "codi-oracle")
    }
    claude, qwen, deepseek, codi = found.values()
    assert (claude.task["train"], claude.teacher["name"], claude.base.pretrained.source) == (
        1000, "anthropic", "meta-llama/Llama-3.2-1B",
    )  # fmt: skip
    lora, fit = qwen.adapter, qwen.fit
    assert (lora.name, lora.r, lora.alpha, lora.dropout) == ("qlora", 8, 16, 0.05)
    assert lora.modules == ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj")
    assert (fit.learning_rate, fit.micro_batch, fit.batch_size, fit.epochs) == (2e-4, 4, 4 * 4, 3)
    assert (qwen.evaluate.new_tokens, qwen.teacher["max_new_tokens"]) == (512, 512)
    assert deepseek.crosscoder.dictionary.l1 == 2
    assert deepseek.crosscoder.fit.learning_rate == 5e-5
    assert deepseek.crosscoder.dictionary.l1_warmup == 0.05 * 1024 * deepseek.crosscoder.fit.updates
    reader = codi.oracle.reader
    assert (reader.adapter.r, reader.adapter.alpha, reader.fit.learning_rate) == (32, 64, 2e-4)
    assert reader.fit.batch_size == 4 * 4


def test_granularity_has_every_corner_of_the_study(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(data))
    cells = load_recipe("granularity", [])
    assert len(cells) == 7 * 7 * (3 * 6 * 4 + 1)  # people's rationales have one form
    assert len({cell.task["name"] for cell in cells.values()}) == 7
    assert len({cell.base.pretrained.source for cell in cells.values()}) == 7
    some = {name: cell for name, cell in cells.items() if "task=svamp" in name or "name=svamp" in name}
    corner = {n: c for n, c in some.items() if "bloom-560m" in n and ("gpt-4o" in n or "people" in n)}
    assert len(corner) == 6 * 4 + 1
    stages = pipeline.plan("granularity", corner)
    assert [stage.stage for stage in stages[-2:]] == ["comparison", "report"]
    assert sum(stage.stage == "student" for stage in stages) == 25
    assert len({arm["arm"]["level"] for arm in stages[-2].config["members"]}) == 7  # six levels, and none


def test_gsm8k_llama_runs(run: Any, data: Path, tmp_path: Path) -> None:
    base = tiny(tmp_path / "model", llama3_like())
    with Loopback(always=answers) as server:
        made = run(
            "gsm8k-llama", f"base={{pretrained: {{source: {base}}}}}", f"data={data}", "task.validation=10",
            f"teacher.base_url={server.anthropic}", "task.train=40", "evaluate={new_tokens: 6, train_sample: 4}",
            "fit.epochs=1", "lenses={weights: {}, representations: {}}",
        )  # fmt: skip
        assert len(server.asked) == 40
    taught = read_lines(path(made["kept"], tmp_path) / "rationales.jsonl", Rationale)
    assert len(taught) == 40
    assert {r.teacher for r in taught} == {"anthropic"}
    assert {"base", "normal", "distilled", "report"} <= made.keys()


def test_qwen_lora_runs(run: Any, data: Path, tmp_path: Path) -> None:
    base, teacher = tiny(tmp_path / "model", qwen_like()), parrot(tmp_path / "teacher")
    made = run(
        "qwen-lora", f"base={{pretrained: {{source: {base}, style: chat}}}}", f"data={data}", "task.validation=10",
        f"teacher.folder={teacher}", "evaluate={new_tokens: 6, train_sample: 0}", "fit.epochs=1",
    )  # fmt: skip
    adapter = read_json(path(made["normal"], tmp_path) / "adapter_config.json")
    assert {name.rpartition(".")[2] for name in adapter["target_modules"]} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj",
    }  # fmt: skip
    assert read_json(path(made["normal"], tmp_path) / "student.json")["quantised"]
    assert "4-bit" in made["normal"].config["adapter"]["name"] or made["normal"].config["adapter"]["name"] == "qlora"


def test_deepseek_crosscoder_runs_on_two_models_of_two_tokenizers(run: Any, data: Path, tmp_path: Path) -> None:
    base, other = tiny(tmp_path / "model", qwen_like()), tiny(tmp_path / "other", qwen_like(), seed=1)
    llama3_like().save_pretrained(other)
    made = run(
        "deepseek-crosscoder", f"base={{pretrained: {{source: {base}, style: bare}}}}", f"data={data}",
        f"students.distilled.pretrained={{source: {other}, tokenizer: {base}, style: bare}}", "task.validation=10",
        "evaluate={new_tokens: 4, train_sample: 0}", "crosscoder.documents=30", "crosscoder.exam=2",
        "crosscoder.dictionary.expansion=2", "crosscoder.dictionary.l1_warmup=64",
        "crosscoder.fit={updates: 6, batch_size: 64, learning_rate: 1e-3, warmup: 0}",
    )  # fmt: skip
    assert made["distilled"].parents == {}
    findings = read_lines(path(made["crosscoder base → distilled"], tmp_path) / "findings.jsonl", Finding)
    assert {"mean NRN"} <= {finding.metric for finding in findings}


def test_codi_oracle_runs(run: Any, data: Path, tmp_path: Path) -> None:
    base = tiny(tmp_path / "model", llama3_like())
    save(thinker(), tmp_path / "codi")
    made = run(
        "codi-oracle", f"base={{pretrained: {{source: {base}, style: bare}}}}", f"data={data}",
        f"students.latent={{variant: latent, codi: {{thoughts: 3}}, pretrained: {{source: {tmp_path / 'codi'}}}}}",
        "evaluate={new_tokens: 4, train_sample: 0}", "oracle.traces={train: 12, test: 6, new_tokens: 4}",
        "oracle.questions.each=8", f"oracle.reader.pretrained.source={base}", "oracle.reader.fit.epochs=0.2",
        "oracle.questions.strategies=[settled, removed, founding critical, founding convergence, founding contrastive, "
        "founding redundancy]",
    )  # fmt: skip
    told = read_json(path(made["oracle latent"], tmp_path) / "oracle.json")
    assert "founding" in json.dumps(told)
    adapter = read_json(path(made["reader latent injection"], tmp_path) / "adapter_config.json")
    assert (adapter["r"], adapter["lora_alpha"]) == (32, 64)


def test_a_student_from_elsewhere_must_think_as_the_recipe_says(data: Path, tmp_path: Path) -> None:
    from stillroom.errors import DataError
    from stillroom.students.pretrained import Pretrained, make_taught_elsewhere
    from toys import workplace

    save(thinker(), tmp_path / "codi")
    at = workplace(tmp_path / "out")
    with pytest.raises(DataError, match="makes 3 thoughts, the recipe says 6"):
        make_taught_elsewhere(Pretrained(source=str(tmp_path / "codi")), 6, at)
    for missing in ("./nowhere", "an/owner"):
        with pytest.raises(DataError, match=r"stillroom import CHECKPOINT --codi"):
            make_taught_elsewhere(Pretrained(source=missing), 6, at)


def test_granularity_runs(run: Any, data: Path, tmp_path: Path) -> None:
    base = tiny(tmp_path / "model", llama3_like())
    with Loopback(always=answers) as server:
        teacher = f"teacher={{name: openai, model: gpt-4o, base_url: {server.openai}}}"
        made = run(
            "granularity", f"base={{pretrained: {{source: {base}, style: llama3}}}}", f"data={data}", teacher,
            "sweep={teacher.granularity: [1, 6], teacher.format: [plain, symbolic]}", "evaluate.new_tokens=4",
            "fit.epochs=1", "task.validation=10", "task.train=20",
        )  # fmt: skip
    grid = read_lines(path(made["comparison"], tmp_path) / "grid.jsonl", GridRow)
    assert len(grid) == 5  # four students and their base
    assert read_lines(path(made["comparison"], tmp_path) / "scores.jsonl", Score)
