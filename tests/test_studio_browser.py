"""The studio in a real browser: the system's Chromium, driven by Playwright. Without either, or without the extra
`studio`, these tests skip. Pictures of what was seen go to the folder that STILLROOM_ARTEFACTS names."""

import hashlib
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stillroom.files import sha256
from stillroom.store import MANIFEST, Manifest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("no Chromium on this system: install the package `chromium`", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
if importlib.util.find_spec("gradio") is None:  # to import it here would cost seconds
    pytest.skip("the extra `studio` is not installed", allow_module_level=True)
PATIENCE = 120_000
"""Milliseconds; a machine may be busy."""
QUESTION = "Ann has 5 eggs. Ben gives 2 more. How many eggs does Ann have?"
LOUDER = {"3.": (1, 12.0), "layers": (2, 6.0)}
"""By how much the norm of the thoughts (vectors) and the layers (matrices) are made louder."""
EVIL = (
    '<img src=x onerror="window.mine=1"><script>window.mine=2</script> ${window.mine=3} {{value}} \x1b[2J \u202e **x**'
)


@pytest.fixture(scope="module")
def store(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run with a louder latent student: as it was taught, in seconds, no thought matters to any answer. Its
    readers are told that it is still the student that they know."""
    from safetensors.torch import load_file, save_file

    from stillroom.oracle.traces import fingerprint
    from stillroom.students import load

    root = tmp_path_factory.mktemp("studio") / "store"
    shutil.copytree(small_store, root)
    (projection,) = root.glob("student/*/projection.safetensors")
    for file, part in ((projection, "3."), (projection.with_name("model.safetensors"), "layers")):
        weights = load_file(file)
        save_file(
            {n: LOUDER[part][1] * t if part in n and t.ndim == LOUDER[part][0] else t for n, t in weights.items()}, file
        )
    who = fingerprint(load(projection.parent).plain())
    for told in root.glob("reader/*/reader.json"):
        told.write_text(json.dumps({**json.loads(told.read_text()), "student": who}))
        commit_again(told.parent)
    commit_again(projection.parent)
    return root


def commit_again(folder: Path) -> None:
    """Let the folder's manifest say what now stands there."""
    path = folder / MANIFEST
    manifest = Manifest.model_validate_json(path.read_bytes())
    manifest = manifest.model_copy(update={"files": {name: sha256(folder / name) for name in manifest.files}})
    path.write_text(manifest.model_copy(update={"seal": manifest.sealed()}).model_dump_json())


class Recorder:
    """A proxy that lets nothing through and remembers who knocked: whatever the studio sends out comes here."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                self.heard.append(connection.recv(200))


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    made = Recorder()
    yield made
    made.socket.close()


@pytest.fixture(scope="module")
def address(store: Path, recorder: Recorder) -> Iterator[str]:
    """Where the command says that the studio is."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"STILLROOM_STORE": str(store), "HTTP_PROXY": recorder.address, "HTTPS_PROXY": recorder.address}
    call = [sys.executable, "-m", "stillroom", "studio", "--port", "0", "--device", "cpu"]
    with subprocess.Popen(call, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield re.search(r"http://\S+", process.stdout.readline())[0]  # type: ignore[index]
        process.terminate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


class Tab:
    """One visitor's page; what goes wrong in it, and what it loads, is kept."""

    def __init__(self, browser: Any, address: str) -> None:
        self.page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        self.page.set_default_timeout(PATIENCE)
        self.wrong: list[str] = []
        self.loaded: list[str] = []
        self.page.on("console", lambda said: self.wrong.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.loaded.append(request.url))
        self.page.goto(address)
        self.page.wait_for_selector("#lineage svg")
        self.page.locator("#run input").click()
        self.page.get_by_role("option", name=re.compile("^abacus-small")).click()
        self.page.wait_for_selector("#lineage svg text:has-text('report')")

    def kept(self, name: str) -> None:
        """A picture of the whole page, where they are wanted."""
        if folder := os.environ.get("STILLROOM_ARTEFACTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=Path(folder) / f"studio-{name}.png", full_page=True)

    def open(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def talk_with(self, *names: str) -> None:
        """Choose these students and no other."""
        self.open("Chat")
        self.page.locator("#students .remove-all").click()
        for name in names:
            self.page.locator("#students input").click()
            self.page.get_by_role("option", name=name, exact=True).click()
        self.page.locator("#students input").press("Escape")

    def ask(self, question: str) -> str:
        """The answer of the first student."""
        self.page.fill("#question textarea", question)
        with self.answered():
            self.page.click("#ask")
        return self.answer()

    def answer(self) -> str:
        return str(self.page.locator("#cards .answer").first.inner_text())

    def answered(self) -> Any:
        """Within, one event is sent; at its end the cards are new."""
        return Changed(self.page, "#cards")


class Changed:
    def __init__(self, page: Any, selector: str) -> None:
        self.page, self.selector = page, selector

    def __enter__(self) -> None:
        self.page.evaluate(
            "s => document.querySelector(s + ' .cards, ' + s + ' .note')?.setAttribute('data-old', 1)", self.selector
        )

    def __exit__(self, *_: object) -> None:
        self.page.wait_for_function("s => !document.querySelector(s + ' [data-old]')", arg=self.selector)
        self.page.wait_for_selector(f"{self.selector} article")


@pytest.fixture
def tab(browser: Any, address: str) -> Iterator[Tab]:
    made = Tab(browser, address)
    yield made
    made.page.context.close()


def contents(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file()
    }


def test_a_visit(tab: Tab, store: Path, recorder: Recorder, address: str) -> None:
    """A run and its lineage, a figure, a chat, a thought that is ablated, the oracle, a failed problem; the store stays
    as it was, and nothing is loaded from elsewhere nor sent there."""
    before, page = contents(store), tab.page
    assert page.locator("#lineage details").count() > 30
    tab.kept("run")

    tab.open("Figures")
    page.wait_for_selector("#plot .main-svg")
    page.wait_for_selector("#caption .note:has-text('Null')")
    tab.kept("figures")
    page.locator("#figure input").click()
    page.get_by_role("option", name="What the teacher wrote").click()  # a table without a picture
    page.wait_for_selector("#caption .note:has-text('does not obey')")
    page.wait_for_selector("#plot .main-svg", state="detached")

    tab.talk_with("latent", "normal")
    whole = tab.ask(QUESTION)
    assert page.locator("#cards article").count() == 2
    assert page.locator("#cards button.thought").count() == 6
    assert page.locator("#cards img.heat").count() == 11
    drawn = page.evaluate("() => [...document.querySelectorAll('#cards img.heat')].map(i => i.naturalWidth)")
    assert set(drawn) == {32}
    changed = False
    for step in range(6):
        with tab.answered():
            page.click(f"#cards button[data-step='{step}']")
        assert page.locator("#cards [aria-pressed=true]").count() == step + 1
        assert whole in page.locator("#cards .undisturbed").inner_text()
        changed = changed or tab.answer() != whole
    assert changed, "no thought that was zeroed changed the answer"
    with tab.answered():
        page.click("#restore")
    assert tab.answer() == whole

    page.click("#oracle")
    page.wait_for_selector("#reply td:has-text('settled after')")
    tab.kept("chat")

    tab.open("Problems")
    page.locator("#problems [role=gridcell]").nth(1).click()
    page.wait_for_selector("#detail li")
    page.click("#why")
    page.wait_for_selector("#trials tr:nth-child(26)")
    tab.kept("problems")

    assert tab.wrong == []
    assert [url for url in tab.loaded if not url.startswith((address, "data:", "blob:"))] == []
    assert recorder.heard == []
    assert contents(store) == before


def test_the_page_serves_no_schema_of_the_server_that_it_is_part_of(address: str) -> None:
    httpx = pytest.importorskip("httpx")
    for path in ("openapi.json", "docs", "redoc"):
        assert httpx.get(f"{address}{path}", trust_env=False, timeout=60).status_code == 404


def test_two_browsers_at_once_do_not_see_each_other(browser: Any, address: str) -> None:
    one, two = Tab(browser, address), Tab(browser, address)
    try:
        for tab in (one, two):
            tab.talk_with("latent")
        first, second = one.ask(QUESTION), two.ask("Cara has 9 toys. Cara loses 4 toys. How many toys are there?")
        with one.answered():
            one.page.click("#cards button[data-step='2']")
        assert two.page.locator("#cards [aria-pressed=true]").count() == 0
        assert two.answer() == second
        assert first in one.page.locator("#cards .undisturbed").inner_text()
    finally:
        for tab in (one, two):
            tab.page.context.close()


def test_a_prompt_of_100_kb_and_one_that_would_steer_a_page_are_shown_as_text(tab: Tab) -> None:
    page = tab.page
    tab.talk_with("latent", "normal")
    page.fill("#question textarea", "<b>eggs</b> \x07 " * 7000)
    began = time.monotonic()
    with tab.answered():
        page.click("#ask")
    assert time.monotonic() - began < PATIENCE / 1000
    assert page.locator("#cards .wrong").count() == 2
    tab.ask(EVIL)
    shown = page.locator("#cards .question").first.inner_text()
    assert shown == EVIL.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    assert page.evaluate("window.mine") is None
    assert page.locator("#cards .question img, #cards .question script, #cards .question strong").count() == 0
    assert tab.wrong == []


def test_what_a_model_writes_is_shown_as_text(tab: Tab) -> None:
    """The page's own way to show an answer, given one that a model could write."""
    from conversation_toys import speaker
    from stillroom.conversation import Way
    from stillroom.studio import pictures

    one = speaker()
    one.student.tokenizer.decode = lambda *_, **__: EVIL  # type: ignore[method-assign, assignment]
    one.student.tokenizer.batch_decode = lambda rows, **_: [EVIL] * len(rows)  # type: ignore[method-assign, assignment]
    card = pictures.turns([("toy", one.say("a question", Way()))])
    tab.open("Chat")
    tab.page.evaluate("html => { document.querySelector('#cards').innerHTML = html }", card)
    assert tab.answer() == EVIL.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    assert tab.page.evaluate("window.mine") is None


def test_at_another_address_a_token_is_needed(store: Path, browser: Any) -> None:
    call = [sys.executable, "-m", "stillroom", "studio", "--host", "0.0.0.0", "--port", "0", "--device", "cpu"]
    given = {**os.environ, "STILLROOM_STORE": str(store)}
    with subprocess.Popen(call, env=given, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = re.search(r"http://0\.0\.0\.0:(\d+)/\?token=(\S+)", process.stdout.readline())
        assert told is not None
        port, token = told.groups()
        context = browser.new_context()
        page = context.new_page()
        assert page.goto(f"http://127.0.0.1:{port}/").status == 401
        page.goto(f"http://127.0.0.1:{port}/?token={token}")
        page.wait_for_selector("#lineage svg", timeout=PATIENCE)
        assert token not in page.url
        context.close()
        process.terminate()
