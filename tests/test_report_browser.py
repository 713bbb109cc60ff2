"""The report in a browser: nothing on the console, nothing from the network, every figure drawn, readable by everybody.

Playwright drives the system's Chromium. Without either these tests skip; where STILLROOM_BROWSER is `required`, as in
`.ci/run`, they fail instead. Pictures of what was seen go to the folder that STILLROOM_ARTEFACTS names.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from report_toys import sweep_house
from stillroom.report.overview import OverviewConfig, make_overview
from toys import workplace

NAMES = ("chromium", "chromium-browser", "google-chrome")
WIDE, NARROW = 1280, 390
AXE = "Promise.race([axe.run(), new Promise((_, no) => setTimeout(() => no('axe took too long'), 240000))])"
pytestmark = pytest.mark.timeout(900)


def lacking(why: str) -> None:
    if os.environ.get("STILLROOM_BROWSER") == "required":
        pytest.fail(f"{why}; STILLROOM_BROWSER=required does not let this pass")
    pytest.skip(why)


class Seen(NamedTuple):
    page: Any
    asked: list[str]
    """Addresses that the page asked for, but its own."""
    said: list[str]
    """What stood on the console as an error or a warning, and errors that nobody caught."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        lacking(f"no browser: none of {', '.join(NAMES)} is on the path (`apt-get install chromium`)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        lacking("no playwright: `pip install -e '.[dev]'` brings it")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def opened(browser: Any, page: Path, width: int, scheme: str) -> Seen:
    sheet = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme).new_page()
    sheet.set_default_timeout(120_000)
    seen = Seen(sheet, [], [])
    sheet.on("request", lambda request: seen.asked.append(request.url))
    sheet.on("pageerror", lambda error: seen.said.append(str(error)))
    sheet.on("console", lambda told: seen.said.append(told.text) if told.type in ("error", "warning") else None)
    sheet.goto(page.as_uri())
    return seen


def drawn_to_the_end(sheet: Any) -> tuple[int, int]:
    """Every figure scrolled into view; how many there are, and how many were drawn."""
    for place in range(sheet.locator(".plot").count()):
        plot = sheet.locator(".plot").nth(place)
        plot.scroll_into_view_if_needed()
        plot.locator(".main-svg").first.wait_for(state="attached")
    plots = sheet.locator(".plot")
    return plots.count(), plots.filter(has=sheet.locator(".cartesianlayer :is(.trace, .hm)")).count()


def overflow(sheet: Any) -> int:
    return int(sheet.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def kept(sheet: Any, name: str) -> None:
    if folder := os.environ.get("STILLROOM_ARTEFACTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        sheet.evaluate("scrollTo(0, 0)")
        sheet.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def serious(sheet: Any) -> list[str]:
    """Rules of axe-core that are broken with a serious or critical effect, each with its first element."""
    import axe_playwright_python

    sheet.evaluate((Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    found = sheet.evaluate(AXE)["violations"]
    return [f"{v['id']}: {v['nodes'][0]['html']}" for v in found if v["impact"] in ("serious", "critical")]


@pytest.fixture(scope="module")
def report(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a real `abacus-small`, as it is handed out, with times."""
    page = tmp_path_factory.mktemp("page") / "report.html"
    environment = {**os.environ, "STILLROOM_STORE": str(small_store)}
    command = [sys.executable, "-m", "stillroom", "report", "abacus-small", "-o", str(page)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return page


@pytest.mark.parametrize(("width", "scheme"), [(WIDE, "light"), (NARROW, "dark")])
def test_every_figure_draws_in_silence_and_nothing_overflows(
    chromium: Any, report: Path, width: int, scheme: str
) -> None:
    page, asked, said = opened(chromium, report, width, scheme)
    count, drawn = drawn_to_the_end(page)
    assert count == drawn > 10
    assert overflow(page) <= 0
    kept(page, f"report-{width}-{scheme}")
    assert serious(page) == []
    assert said == []
    assert asked == [report.as_uri()]
    page.context.close()


def test_figures_wait_until_they_are_looked_at_and_anchors_lead_to_them(chromium: Any, report: Path) -> None:
    page, _, said = opened(chromium, report, WIDE, "light")
    page.locator(".plot .main-svg").first.wait_for(state="attached")
    assert page.locator(".plot[data-drawn]").count() < page.locator(".plot").count() / 2
    links = page.eval_on_selector_all("a[href^='#']", "all => all.map(link => link.getAttribute('href').slice(1))")
    assert len(links) > 30
    assert page.evaluate("names => names.filter(name => !document.getElementById(name))", links) == []
    unlike = "[...document.querySelectorAll('[id]')].map(one => one.id)"
    names = page.evaluate(unlike)
    assert len(names) == len(set(names))
    page.goto(report.as_uri() + "#oracle-latent")
    page.locator("figure[data-figure=oracle-latent] .main-svg").first.wait_for(state="attached")
    at = "Math.abs(document.getElementById('oracle-latent').getBoundingClientRect().top)"
    page.wait_for_function(f"{at} < 400")  # what is folded around it opens after the browser has scrolled there
    assert said == []
    page.context.close()


def test_the_text_does_not_wait_for_the_figures(chromium: Any, report: Path) -> None:
    sheet = chromium.new_context(viewport={"width": WIDE, "height": 800}).new_page()
    sheet.add_init_script("addEventListener('load', () => { window.early = !window.Plotly })")
    sheet.goto(report.as_uri())
    sheet.locator(".plot .main-svg").first.wait_for(state="attached")
    assert sheet.evaluate("early")
    kinds = set(sheet.evaluate("Object.keys(Plotly.PlotSchema.get().traces)"))
    assert kinds == {"scatter", "bar", "box", "heatmap"}
    sheet.context.close()


def test_a_table_opens_by_keyboard_and_its_data_can_be_taken_home(chromium: Any, report: Path) -> None:
    page, asked, said = opened(chromium, report, WIDE, "light")
    figure = page.locator("figure[data-figure=accuracy]")
    figure.locator("details.numbers summary").focus()
    page.keyboard.press("Enter")
    figure.locator("details.numbers tbody tr").first.wait_for()
    shown = figure.locator("details.numbers tbody tr").count()
    with page.expect_download() as held:
        figure.locator("[data-save=csv]").click()
    lines = Path(held.value.path()).read_text(encoding="utf-8").splitlines()
    assert held.value.suggested_filename == "accuracy.csv"
    assert lines[0] == "student,seed,split,steps,accuracy,low,high,n"
    assert len(lines) == shown + 1
    with page.expect_download() as held:
        figure.locator("[data-save=svg]").click()
    assert Path(held.value.path()).read_text(encoding="utf-8").startswith("<svg")
    assert said == []
    assert [address for address in asked if not address.startswith("blob:")] == [report.as_uri()]
    page.context.close()


def test_it_prints_every_figure_in_light(chromium: Any, report: Path) -> None:
    page, _, said = opened(chromium, report, WIDE, "dark")
    page.emulate_media(media="print", color_scheme="light")
    pages = page.pdf(format="A4")
    assert pages.startswith(b"%PDF")
    assert page.locator(".plot[data-drawn]").count() == page.locator(".plot").count()
    if folder := os.environ.get("STILLROOM_ARTEFACTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "report.pdf").write_bytes(pages)
    assert said == []
    page.context.close()


def test_a_sweep_of_a_thousand_runs_is_folded_and_quick_to_use(chromium: Any, tmp_path: Path) -> None:
    make_overview(OverviewConfig(recipe="a thousand"), workplace(tmp_path / "out", parents=sweep_house(tmp_path, 1000)))
    report = tmp_path / "out" / "report.html"
    assert report.stat().st_size < 8_000_000
    page, asked, said = opened(chromium, report, WIDE, "light")
    assert drawn_to_the_end(page) == (2, 2)
    assert page.locator("tr").count() < 100  # rows are made when a table is opened
    page.locator("figure[data-figure=accuracy] details.numbers summary").click()
    figure = page.locator("figure[data-figure=accuracy]")
    figure.locator("tbody tr").nth(199).wait_for()
    assert figure.locator("tbody tr").count() == 200
    figure.locator("input").fill("place 77 ")
    figure.locator("tbody tr").nth(199).wait_for(state="detached")
    assert figure.locator("tbody tr").count() > 0
    assert overflow(page) <= 0
    kept(page, "sweep")
    assert (said, asked) == ([], [report.as_uri()])
    page.context.close()
