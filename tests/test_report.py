"""The report: torch stays out, a page that opens offline, model text escaped, figures that equal the records."""

import json
import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from report_toys import COMPARISONS, FINDINGS, HOSTILE, METRICS, SCORES, house
from stillroom.report import ReportConfig, make_report
from toys import workplace

CONFIG = ReportConfig(recipe=f"toy {HOSTILE}", resolved={"b": HOSTILE}, students=("normal",), lenses=("toy",))


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
    plots = [json.loads(unescape(found)) for found in re.findall(r'data-plot="([^"]*)"', page)]
    assert len(plots) == 4  # accuracy, the lens of one student, weights, loss
    accuracy, lens, weights, loss = plots
    drawn = {(trace["name"], x): y for trace in accuracy["data"] for x, y in zip(trace["x"], trace["y"], strict=True)}
    told = {(s.student, int(s.group)): s.value for s in SCORES if s.split == "test" and s.group != "all"}
    assert drawn == told
    reading = next(f for f in FINDINGS if f.lens == "logit_lens" and "chosen" not in f.metric)
    assert [trace["y"] for trace in lens["data"]] == [[reading.value], [reading.nulls[0].value]]
    bars = [f.value for f in FINDINGS if f.metric == "relative difference"]
    assert [trace["y"] for trace in weights["data"]] == [bars]
    assert [trace["y"] for trace in loss["data"]] == [[row["ce"] for row in METRICS]]


def test_intervals_are_drawn_as_they_were_measured(page: str) -> None:
    accuracy = json.loads(unescape(re.findall(r'data-plot="([^"]*)"', page)[0]))
    for trace in accuracy["data"]:
        rows = {int(s.group): s for s in SCORES if (s.student, s.split) == (trace["name"], "test") and s.group != "all"}
        bars = zip(trace["x"], trace["error_y"]["array"], trace["error_y"]["arrayminus"], strict=True)
        for x, above, below in bars:
            assert (above, below) == pytest.approx((rows[x].high - rows[x].value, rows[x].value - rows[x].low))


def test_no_figure_needs_colour(page: str) -> None:
    accuracy, _, weights, _ = (json.loads(unescape(p)) for p in re.findall(r'data-plot="([^"]*)"', page))
    looks = [(trace["line"]["dash"], trace["marker"]["symbol"]) for trace in accuracy["data"]]
    assert len(set(looks)) == len(looks) > 1
    patterns = [trace["marker"]["pattern"]["shape"] for trace in weights["data"]]
    assert len(set(patterns)) == len(patterns)


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


def test_the_same_records_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    make_report(CONFIG, workplace(tmp_path / "out", parents=house(tmp_path)))
    for name in ("report.html", "findings.parquet", "recipe.json"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes(), name


def test_a_run_without_lenses_has_a_report_too(tmp_path: Path) -> None:
    make_report(CONFIG.model_copy(update={"lenses": ()}), workplace(tmp_path / "out", parents=house(tmp_path)))
    assert "Not established: no lens of this run measures it." in (tmp_path / "out" / "report.html").read_text()
