"""The task and the lens of docs/extending.md and the benchmark of docs/benchmarks.md, as they stand there."""

import re
import sys
import types
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stillroom import lenses, tasks
from stillroom.pipeline import plan, run
from stillroom.recipes import load_recipe
from stillroom.store import Store
from stillroom.tasks import benchmarks
from stillroom.tasks.benchmarks import readers
from stillroom.tasks.benchmarks.table import Benchmark, Hub

GUIDE = Path(__file__).parents[1] / "docs" / "extending.md"


@pytest.fixture
def guide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file of the guide becomes a module of the room that it names, each line is added to that room's table."""
    text = GUIDE.read_text()
    for room, name in re.findall(r"Save as `src/stillroom/(\w+)/(\w+)\.py`", text):
        code = text.partition(f"/{room}/{name}.py`:\n\n```python\n")[2].partition("```")[0]
        module = types.ModuleType(f"stillroom.{room}.{name}")
        exec(compile(code, module.__name__, "exec"), module.__dict__)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        line = re.search(rf'^([A-Z]+)\["{name}"\] = (.*)$', text, re.MULTILINE)
        assert line is not None
        package = {"tasks": tasks, "lenses": lenses}[room]
        monkeypatch.setitem(vars(package)[line[1]], name, eval(line[2], {**vars(package), name: module}))


def test_the_task_and_the_lens_of_the_guide_run_as_they_stand(guide: None, tmp_path: Path) -> None:
    few = ["fit.updates=3", "base.fit.updates=3", "settings.device=cpu", "base.primer.stories=20"]
    cells = load_recipe("abacus-small", ["task={name: doubling}", "lenses={norms: {}}", *few])
    folder = run(plan("abacus-small", cells), Store(tmp_path), cells[""].settings)
    rows = pq.read_table(folder / "findings.parquet").to_pylist()
    assert {row["subject"] for row in rows} == {"normal", "distilled", "filler", "latent"}
    assert all(row["nulls"][0]["name"] == "base" for row in rows)
    assert "doubles them" in (folder / "report.html").read_text()


def test_the_benchmark_of_its_guide_is_read_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = GUIDE.with_name("benchmarks.md").read_text()
    code = text.partition('BENCHMARKS["addsub"] = ')[2].partition("```")[0]
    row = eval(code, {"Benchmark": Benchmark, "Hub": Hub, "readers": readers})
    monkeypatch.setitem(benchmarks.BENCHMARKS, "addsub", row)
    (tmp_path / "addsub_test.jsonl").write_text('{"input": "Ann has 3 and gets 4. How many?", "target": 7}\n')
    found = benchmarks.read("addsub", benchmarks.config_of("addsub")(), tmp_path)
    assert [(problem.task, problem.answer) for problem in found["test"]] == [("addsub", "7")]
