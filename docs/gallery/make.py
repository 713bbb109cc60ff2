"""Pictures of a report for these docs: `python docs/gallery/make.py REPORT.html`.

Opens the page in the system's Chromium and writes each chosen figure as `ANCHOR.png`, and `README.md` with captions and
with the settings that the report itself holds: a run with overrides has the same name as one without.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

FIGURES = ("accuracy", "frontier", "early-answering", "disturbed", "memorising", "logit-lens-latent", "ledger-auroc")
"""Those of them that the report has are shown."""
HERE = Path(__file__).parent


def main(report: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("pictures are taken in the system's Chromium, and there is none: install the package chromium")
    lines = ["# Gallery", ""]
    with sync_playwright() as driver:
        page = driver.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"]).new_page(
            viewport={"width": 1280, "height": 800}, color_scheme="light"
        )
        page.set_default_timeout(120_000)
        page.goto(report.resolve().as_uri())
        lines += [
            f"Figures of one report, {page.locator('h1').inner_text()}, each under its anchor there. The settings that "
            "they were made with, as the report has them:",
            "",
            "```json",
            page.locator("#provenance ~ details pre").last.text_content() or "",
            "```",
        ]
        for name in FIGURES:
            plot = page.locator(f"figure[data-figure={name}] .plot")
            if plot.count():
                plot.scroll_into_view_if_needed()
                plot.locator(".main-svg").first.wait_for(state="attached")
                plot.screenshot(path=HERE / f"{name}.png")
                title = page.locator(f"#{name}").evaluate("heading => heading.firstChild.textContent")
                caption = page.locator(f"figure[data-figure={name}] figcaption").inner_text()
                lines += ["", f"## {title}", "", f"![{title}]({name}.png)", "", caption]
    (HERE / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
