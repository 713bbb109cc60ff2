"""Pictures of a report for these docs: `python docs/gallery/make.py REPORT.html`.

Opens the page in the system's Chromium and writes each chosen figure as `ANCHOR.png`, and `README.md` with captions.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

FIGURES = ("accuracy", "frontier", "early-answering", "memorising", "logit-lens-latent", "ledger-auroc", "oracle-latent")
"""Those of them that the report has are shown."""
HERE = Path(__file__).parent


def main(report: Path) -> None:
    browser = next(path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name)))
    lines = [
        "# Gallery",
        "",
        "Figures of the report of `abacus`, made by `stillroom run abacus`, `stillroom report abacus -o abacus.html` "
        "and `python docs/gallery/make.py abacus.html`. Each stands in the report under the same anchor, with its "
        "data.",
    ]
    with sync_playwright() as driver:
        page = driver.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"]).new_page(
            viewport={"width": 1280, "height": 800}, color_scheme="light"
        )
        page.set_default_timeout(120_000)
        page.goto(report.resolve().as_uri())
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
