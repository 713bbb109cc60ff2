"""The report: torch stays out, a page that opens offline, model text escaped, figures that equal the records."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from report_toys import COMPARISONS, FINDINGS, HOSTILE, METRICS, SCORES, house, manifest
from stillroom.recipes import load_recipe
from stillroom.records import Score
from stillroom.report import ReportConfig, make_report
from stillroom.report.organism import student_rows
from stillroom.report.provenance import with_times
from toys import workplace

CONFIG = ReportConfig(recipe=f"toy {HOSTILE}", resolved={"b": HOSTILE}, students=("normal",), lenses=("toy",))


def told(page: str, name: str) -> dict[str, Any]:
    """What a figure's block of data holds."""
    (block,) = re.findall(rf'<script type="application/json" id="data-{name}">(.*?)</script>', page)
    found = json.loads(block)
    cells = [[c["words"][at] for at in c["at"]] if isinstance(c, dict) else c for c in found["cells"]]
    return {**found, "rows": [list(row) for row in zip(*cells, strict=True)]}


class Reader(HTMLParser):
    """Every tag with its attributes, and the text outside of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] not in ("script", "style"):
            self.text.append(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    make_report(CONFIG, workplace(root / "out", parents=house(root)))
    return root / "out"


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_report_and_all_below_it_know_no_torch() -> None:
    code = "import sys, stillroom.report; assert not {'torch', 'transformers', 'accelerate'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_models_and_people_write_is_text_and_no_markup(page: str) -> None:
    assert HOSTILE not in page
    read = Reader(page)
    assert "alert(1)" not in [data for tag, data in read.tags if tag == "script"]
    assert not [attributes for _, attributes in read.tags if "onerror" in attributes]
    assert HOSTILE in "".join(read.text)


def test_the_page_needs_nothing_from_outside(page: str) -> None:
    for tag, attributes in Reader(page).tags:
        assert "src" not in attributes, tag
        assert not (attributes.get("href") or "").startswith("http"), tag
        assert tag not in ("link", "iframe")
    assert "Plotly" in page
    assert page.count("<html") == 1


def test_every_figure_is_drawn_from_the_records(page: str) -> None:
    drawn = {
        (t["name"], x): y for t in told(page, "accuracy")["plot"]["data"] for x, y in zip(t["x"], t["y"], strict=True)
    }
    known = {(s.student, int(s.group)): s.value for s in SCORES if s.split == "test" and s.group != "all"}
    assert drawn == known
    reading = next(f for f in FINDINGS if f.lens == "logit_lens" and "chosen" not in f.metric)
    lens = told(page, "logit-lens-distilled")["plot"]["data"]
    assert [trace["y"] for trace in lens] == [[reading.value], [reading.nulls[0].value]]
    bars = [f.value for f in FINDINGS if f.metric == "relative difference"]
    assert [trace["y"] for trace in told(page, "weights")["plot"]["data"]] == [bars]
    assert [trace["y"] for trace in told(page, "loss")["plot"]["data"]] == [[row["ce"] for row in METRICS]]


def test_every_figure_has_its_data_its_null_an_anchor_and_how_it_is_made_again(page: str) -> None:
    figures = re.findall(r'<figure data-figure="([^"]*)".*?</figure>', page, flags=re.DOTALL)
    assert len(figures) == len(set(figures)) > 5
    for name, figure in zip(figures, re.findall(r"<figure .*?</figure>", page, flags=re.DOTALL), strict=True):
        assert f'id="{name}"' in page
        assert f'href="#{name}"' in page
        assert 'data-save="csv"' in figure
        assert re.search(r"<figcaption>.*([Nn]ull|not with the others)", figure, flags=re.DOTALL), name
        assert "stillroom show student/abc" in figure
        assert told(page, name)["rows"]


def test_intervals_are_drawn_as_they_were_measured(page: str) -> None:
    for trace in told(page, "accuracy")["plot"]["data"]:
        rows = {int(s.group): s for s in SCORES if (s.student, s.split) == (trace["name"], "test") and s.group != "all"}
        bars = zip(trace["x"], trace["error_y"]["array"], trace["error_y"]["arrayminus"], strict=True)
        for x, above, below in bars:
            assert (above, below) == pytest.approx((rows[x].high - rows[x].value, rows[x].value - rows[x].low))


def test_no_figure_needs_colour(page: str) -> None:
    accuracy, weights = (told(page, name)["plot"]["data"] for name in ("accuracy", "weights"))
    looks = [(trace["line"]["dash"], trace["marker"]["symbol"]) for trace in accuracy]
    assert len(set(looks)) == len(looks) > 1
    patterns = [trace["marker"]["pattern"]["shape"] for trace in weights]
    assert len(set(patterns)) == len(patterns)


def test_the_first_screen_tells_what_students_were_shown_and_how_often_they_are_right(page: str) -> None:
    rows = re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td>(.*?)</tr>', page)
    assert [name for name, _, _ in rows] == ["majority", "normal", "distilled"]
    assert re.findall(r"<td>([\d.]+) <small>(.*?)</small>", rows[2][2]) == [("50.0", "[40.0, 60.0]")] * 2


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("{variant: normal}", "question → steps → answer"),
        ("{variant: distilled, pauses: 4}", "question → 4 pauses → answer"),
        ("{variant: latent, codi: {thoughts: 5}}", "question → 5 thoughts → answer (codi)"),
        ("{variant: latent, codi: {thoughts: 5, filler: true}}", "question → 5 pauses → answer (codi)"),
        ("{variant: latent, coconut: {max_latent_stage: 3}}", "question → 6 thoughts → answer (coconut)"),
        ("{variant: latent, stepwise: {}}", "question → answer (stepwise)"),
    ],
)
def test_what_a_student_was_shown_is_told_as_it_was_taught(entry: str, told: str) -> None:
    recipe = load_recipe("abacus-small", [f"students={{one: {entry}}}"])[""]
    score = Score(student="one", seed=0, split="test", group="all", metric="accuracy", value=1, low=1, high=1, n=1)
    assert student_rows([score], recipe.model_dump(mode="json"))[0].shown == told


def test_the_findings_stand_beside_the_page(folder: Path) -> None:
    import pyarrow.parquet as pq

    rows = pq.read_table(folder / "findings.parquet").to_pylist()
    assert [row["value"] for row in rows] == [f.value for f in FINDINGS]
    assert json.loads((folder / "recipe.json").read_text()) == {"b": HOSTILE}


def test_tables_tell_comparisons_and_where_it_comes_from(page: str) -> None:
    (one,) = [c for c in COMPARISONS if c.split == "test"]
    row = re.findall(r"<tr><td>normal</td><td>distilled</td>.*?</tr>", page)
    assert len(row) == 1
    cells = re.findall(r"<td>(.*?)</td>", row[0])
    assert cells == ["normal", "distilled", "0", "all", "9", "77.8 %", "44.4 % to 100.0 %", "8", "1", "0.0391"]
    assert one.p == 0.0390625
    assert "student/abc" in page
    assert "host-of-the-toy" not in page  # times and hosts are no result


def test_a_report_that_is_handed_out_tells_machine_time_and_cost(folder: Path) -> None:
    for name in ("report.html", "report.md"):
        page = (folder / name).read_text(encoding="utf-8")
        house_of = {**json.loads(manifest("report", "report")), "parents": {}}
        (folder / "manifest.json").write_text(json.dumps(house_of))
        full = with_times(page, folder, [{"teacher": HOSTILE, "usd": 0.25}])
        (folder / "manifest.json").unlink()
        assert "host-of-the-toy" in full
        assert "0.25" in full
        assert HOSTILE not in full


def test_the_same_stands_in_markdown(folder: Path) -> None:
    page = (folder / "report.md").read_text(encoding="utf-8")
    assert "| student | was shown | all | 1 step |" in page
    assert "| distilled |  | 50.0 [40.0, 60.0] | 50.0 [40.0, 60.0] |" in page
    assert "| normal | distilled | 0 | 9 | 77.8 % | 44.4 % to 100.0 % | 8 | 1 | 0.0391 |" in page
    assert "<script" not in page
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert tables
    assert not re.search(r"\|\n\n\|(?!-)", page)  # an empty line would end a table


def test_the_same_records_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    make_report(CONFIG, workplace(tmp_path / "out", parents=house(tmp_path)))
    for name in ("report.html", "report.md", "findings.parquet", "recipe.json"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes(), name


def test_a_run_without_lenses_has_a_report_too(tmp_path: Path) -> None:
    make_report(CONFIG.model_copy(update={"lenses": ()}), workplace(tmp_path / "out", parents=house(tmp_path)))
    assert "Not established: no lens of this run measures it." in (tmp_path / "out" / "report.html").read_text()
