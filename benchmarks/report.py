"""The report of a run in Chromium: how large it is, and how soon its text and its first figure stand there.

    .venv/bin/python benchmarks/report.py [REPORT.html] [--quick]      (--quick: 5 opens, not 15)

`REPORT.html` is a report of `abacus` (`stillroom report abacus -o REPORT.html`); without it, one of `abacus-small` is
made. Each open is a browser of its own; medians are told. Needs the system's Chromium and the package playwright.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from figures import at_most, close, small, told_load
from playwright.sync_api import sync_playwright

WATCH = """new MutationObserver((_, watch) => {
  if (!document.querySelector(".plot .main-svg")) return;
  watch.disconnect();
  requestAnimationFrame(() => setTimeout(() => { window.painted = performance.now() }));
}).observe(document, {childList: true, subtree: true})"""
TIMES = """() => {
  const [page] = performance.getEntriesByType("navigation");
  const [text] = performance.getEntriesByName("first-contentful-paint");
  const [content, load] = [page.domContentLoadedEventEnd, page.loadEventEnd];
  return {text: text.startTime, "content loaded": content, load, "first figure": painted};
}"""
PATIENCE = 120_000
"""Milliseconds."""


def opened(driver: Any, page: Path) -> dict[str, float]:
    """Milliseconds from the click to the first text, the events, and the first figure that is painted; and how many of
    them the page's thread computed, which other work on the machine does not lengthen."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        sys.exit("report.py opens pages in the system's Chromium, and there is none: install the package chromium")
    browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
    sheet = browser.new_page(viewport={"width": 1280, "height": 800})
    sheet.add_init_script(WATCH)
    session = sheet.context.new_cdp_session(sheet)
    session.send("Performance.enable")
    sheet.goto(page.resolve().as_uri())
    sheet.wait_for_function("window.painted", timeout=PATIENCE)
    told: dict[str, float] = sheet.evaluate(TIMES)
    measured = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    browser.close()
    return {**told, "computed until then": 1000 * measured["ThreadTime"]}


def made(scratch: Path) -> Path:
    store, page = small(scratch), scratch / "report.html"
    call = [sys.executable, "-m", "stillroom", "report", "abacus-small", "-o", str(page)]
    subprocess.run(call, env={**os.environ, "STILLROOM_STORE": str(store)}, check=True)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, nargs="?")
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    load = told_load()
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as driver:
        page = asked.report or made(Path(scratch))
        times = [opened(driver, page) for _ in range(5 if asked.quick else 15)]
        size = page.stat().st_size / 1e6
    median = {name: float(np.median([one[name] for one in times])) / 1000 for name in times[0]}
    figures = [at_most("size", size, "MB", 8.0)]
    figures += [at_most(name, seconds, "s", 2.0) for name, seconds in median.items()]
    close("report", figures, load, "plotly", "playwright", opens=len(times))


if __name__ == "__main__":
    main()
