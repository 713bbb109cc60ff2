"""Every code block of README.md and docs/ is carried out, on what stands in for it in small; so are links looked up.

A command line is run in a folder that holds what the docs name. What needs minutes, other programs or a network is
planned or read as far as its options. The Python of docs/extending.md and docs/benchmarks.md has tests of its own.
"""

import json
import re
import runpy
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pdoc
import pytest
import typer
import yaml
from typer.testing import CliRunner

import toys
from loopback import Loopback
from stillroom.cli import app
from stillroom.recipes import load_recipe
from stillroom.store import Store
from stillroom.tasks.benchmarks.table import BENCHMARKS
from test_evaluation_models import adapter_folder
from test_recipes_published import DATASETS, problems, tiny
from toy_tokenizers import llama3_like

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(stillroom [a-z]+ (?!--help)[^`]*)`")
LINK = re.compile(r"\]\((?!http)([^)#\s]*)(?:#([^)\s]+))?\)")
TESTED_ELSEWHERE = {"extending.md", "benchmarks.md"}
"""Pages whose Python tests/test_extending.py runs."""
FOREIGN = ("export ", "transformers serve ", "$ cat ", "{")
READ_ONLY = ("fetch", "import", "studio")
"""Commands that need a network, a published checkpoint or a browser: their own tests start them."""
SMALL = {
    "[-n 100]": "-n 3", "[--shots 4]": "--shots 1", "[--json]": "--json", "MODEL...": "model", "-n 100": "-n 3",
    "-n 200": "-n 3", "gsm8k,svamp,asdiv": "gsm8k", "gsm8k,svamp": "gsm8k", "Qwen/Qwen2.5-7B-Instruct": "m",
    "openai:MODEL": "openai:m", "openai:FOLDER": "openai:m", "--samples 8": "--samples 2", "--gpus 8": "--gpus 1",
    "cuda": "cpu", "fit.epochs=1": "fit.epochs=1 fit.batch_size=4 --device cpu",
    "A B [--lens NAME]... [--data TASK] [-n N] [-o FILE.parquet]": "BASE STUDENT --lens weights -o found.parquet",
}  # fmt: skip
"""What a command names, and what it is given in its place."""
ADDED = {
    "run abacus": ["--dry-run"],
    "run gsm8k-llama": ["--dry-run"],
    "run granularity": ["--dry-run"],
    "train ./Llama-3.2-1B": ["fit.precision=float32"],
}
"""What takes minutes is planned."""


class Block(NamedTuple):
    page: str
    language: str
    text: str


BLOCKS = [Block(page.name, *found) for page in PAGES for found in FENCE.findall(page.read_text())]
COMMANDS = ("stillroom ", "$ stillroom ", "torchrun ", "make ", "pip install ", "echo ")
LINES = [
    (block.page, line)
    for block in BLOCKS
    if not block.language
    for line in block.text.splitlines()
    if line.startswith(COMMANDS)
]


def command_of(line: str) -> str:
    """The call of `stillroom` in a line: without a prompt, a comment, and what it is piped into."""
    return line.removeprefix("$ ").partition("  #")[0].partition(" | jq")[0].strip()


def read(words: list[str]) -> None:
    """Raises for a command or an option that does not exist."""
    group: Any = typer.main.get_command(app)
    group.commands[words[0]].make_context(words[0], words[1:])


@pytest.fixture(scope="module")
def here(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the docs name: a store, models, an adapter, questions, lessons, rationales, a recipe, benchmarks' files."""
    root = tmp_path_factory.mktemp("docs")
    shutil.copytree(small_store, root / "stills")
    for name in ("Llama-3.2-1B", "my-model", "model", "runs/one"):
        tiny(root / name, llama3_like())
    adapter_folder(root / "runs" / "adapter", root / "Llama-3.2-1B")
    rows = list(problems(144))
    said = [{"question": q, "answer": f"So <<{step}>>12.\n#### 12"} for q, step, _ in rows]
    (root / "data").mkdir()
    for file in {name for task in DATASETS for name in BENCHMARKS[task].study.values()}:
        (root / "data" / file).write_text("{}\n")
    files = {
        "data/gsm8k_train.jsonl": said[:130], "data/gsm8k_test.jsonl": said[130:],
        "data/gsm8k_official_train.jsonl": said[:130], "data/gsm8k_official_test.jsonl": said[130:],
        "questions.jsonl": [{"id": f"q{i}", "question": q, "answer": "12"} for i, (q, _, _) in enumerate(rows[:3])],
        "lessons.jsonl": [{"prompt": q, "completion": "The answer is 12."} for q, _, _ in rows[:8]],
        "teacher_cot.jsonl": [
            {"dataset": "svamp", "id": str(i), "question": q, "answer": "12", "teacher": "t", "granularity": 3,
             "format": "plain", "cot": f"{step}. The answer is 12."} for i, (q, step, _) in enumerate(rows)
        ],
    }  # fmt: skip
    for name, content in files.items():
        (root / name).write_text("".join(json.dumps(row) + "\n" for row in content))
    shown = next(block.text for block in BLOCKS if "$ cat outputs.jsonl" in block.text)
    (root / "outputs.jsonl").write_text("".join(line + "\n" for line in shown.splitlines() if line.startswith("{")))
    shutil.copy(ROOT / "src/stillroom/recipes/abacus-small.yaml", root / "my-recipe.yaml")
    return root


@pytest.fixture
def world(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The folder as the working one, a server that answers, and what this store calls what the docs name."""
    monkeypatch.chdir(here)
    monkeypatch.setenv("STILLROOM_STORE", "stills")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "none")
    made = {m.name: f"{m.stage}/{m.key}" for m in Store(here / "stills").manifests()}
    latent = made["latent"]
    with Loopback() as server:
        yield {
            "student/3f2a": latent, "STUDENT": latent, "BASE": made["base"],
            "lessons/KEY2": made["lessons distilled"], "lessons/KEY": made["lessons normal"],
            "http://127.0.0.1:8000/v1": server.openai, "URL": server.openai,
        }  # fmt: skip


@pytest.mark.parametrize(("page", "line"), LINES, ids=[f"{page}: {line[:60]}" for page, line in LINES])
def test_a_command_does_what_its_page_says(page: str, line: str, world: dict[str, str]) -> None:
    command = command_of(line)
    if command.startswith("make "):
        assert f"\n{command.split()[1]}:" in (ROOT / "Makefile").read_text()
        return
    if command.startswith("pip install"):
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set(re.findall(r"\[(\w+)\]", command)) <= set(extras)
        return
    said, _, command = command.rpartition(" | ") if command.startswith("echo") else ("", "", command)
    for old, new in {**SMALL, **world}.items():
        command = command.replace(old, new)
    words = shlex.split(command.partition("stillroom ")[2])
    if words[0] in READ_ONLY:
        read(words)
        return
    if words[0] == "run":
        assert load_recipe(words[1], [word for word in words[2:] if "=" in word])
        if words[1] == "granularity-svamp":  # its plan reads recorded rationales
            return
    outcome = CliRunner().invoke(app, [*words, *ADDED.get(" ".join(words[:2]), [])], input=said[5:].strip('" ') + "\n")
    assert outcome.exit_code == 0, (command, outcome.output, outcome.exception)


def test_no_line_of_a_block_is_passed_over() -> None:
    """Blocks without a language are commands, what other programs read or say, and drawings."""
    told = [(block.page, line) for block in BLOCKS if not block.language and "▶" not in block.text
            for line in block.text.splitlines() if line.strip()]  # fmt: skip
    assert [line for line in told if not line[1].startswith((*COMMANDS, *FOREIGN))] == []
    assert {block.language for block in BLOCKS} == {"", "python", "yaml"}


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=lambda block: block.page)
def test_a_piece_of_a_recipe_is_one(block: Block, here: Path) -> None:
    small = yaml.safe_load((here / "my-recipe.yaml").read_text())
    path = here / f"{block.page}.yaml"
    path.write_text(yaml.safe_dump({**small, **yaml.safe_load(block.text)}))
    assert load_recipe(str(path), [])


@pytest.mark.parametrize(
    "block",
    [block for block in BLOCKS if block.language == "python" and block.page not in TESTED_ELSEWHERE],
    ids=lambda block: block.page,
)
def test_python_runs_as_it_stands(block: Block) -> None:
    model, words = toys.llama(), toys.tokenizer()
    ids = {
        name: words.convert_tokens_to_ids(token) for name, token in (("bot", "Ann"), ("eot", " has"), ("eos", "<eos>"))
    }
    named = {"model": model, "projection": None, "pad": words.pad_token_id, "prompts": [[4, 5, 6], [7, 8]], **ids}
    exec(compile(block.text, block.page, "exec"), named)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_exists(page: Path) -> None:
    """Files and headings that links lead to, and the options of commands within the text."""
    for target, heading in LINK.findall(page.read_text()):
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            assert heading in [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles], heading
    for command in INLINE.findall(FENCE.sub("", page.read_text())):
        read(shlex.split(command.removeprefix("stillroom ").partition(" > ")[0]))


def test_the_reference_is_made_of_all_docstrings(tmp_path: Path) -> None:
    told = runpy.run_path(str(ROOT / "tools" / "reference.py"))["modules"]()
    files = {path.relative_to(ROOT / "src").with_suffix("") for path in (ROOT / "src").rglob("*.py")}
    names = {".".join(file.parts).removesuffix(".__init__") for file in files if file.name != "__main__"}
    assert set(told) == names
    pdoc.pdoc("stillroom.students.codi", output_directory=tmp_path)
    page = (tmp_path / "stillroom" / "students" / "codi.html").read_text()
    assert "CodiObjective" in page
    assert "arXiv 2502.21074" in page
