"""Keys are planted in the environment, and then looked for in all that runs, failures and reports write."""

import json
from pathlib import Path
from typing import Any

import pytest

from loopback import GARBAGE, Loopback, completion
from nursery import Nursery
from stillroom.store import Store

KEYS = {
    name: f"planted-{name.lower()}" for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "HF_TOKEN", "WANDB_API_KEY")
}
TINY = """
task={name: abacus, largest: 12, steps: 2, train: 60, narrated: 60, validation: 6, test: 8}
base.scratch={width: 32, layers: 1, heads: 2, feed_forward: 32}
base.primer={singles: 30, lines: 10, stories: 10}
base.fit.updates=3
fit.updates=3
students={normal: {variant: normal}}
evaluate={new_tokens: 4, train_sample: 4}
faithfulness=null
cost=null
memorising=null
oracle=null
lenses={weights: {}}
gates.correct=false
settings={device: cpu, teach: {attempts: 2, timeout_s: 3}}
""".strip().splitlines()


def key_in(head: str) -> str:
    """The key that a request brought."""
    return next((key for key in KEYS.values() if key in head), "no key")


def says(text: str) -> Any:
    """A provider whose every reply is `text`, the asker's own key put in for {key}."""

    def answer(body: dict[str, Any], head: str) -> Any:
        reply = completion(body, "/messages" in head.split("\r\n", maxsplit=1)[0])
        said = text.replace("{key}", key_in(head))
        if "content" in reply:
            reply["content"][0]["text"] = said
        else:
            reply["choices"][0]["message"]["content"] = said
        return 200, {"content-type": "application/json"}, json.dumps(reply)

    return answer


def fails(status: int) -> Any:
    return lambda body, head: (
        status,
        {},
        json.dumps({"error": {"message": f"bad key {key_in(head)}", "key": key_in(head)}}),
    )


CASES: dict[str, tuple[Any, int]] = {
    "a good reply": (says("Step 1: 2 + 3 = 5\nThe answer is 5."), 0),
    "a reply that repeats the key": (says("Your key is {key}, and so 2 + 3 = 5.\nThe answer is 5."), 0),
    "a refused key": (fails(401), 1),
    "a refused request": (fails(400), 1),
    "a server that fails": (fails(500), 1),
    "an unknown model": (fails(404), 1),
    "garbage": (lambda *_: GARBAGE, 1),
}


@pytest.mark.parametrize("case", CASES)
def test_no_key_is_written_anywhere(case: str, tmp_path: Path, nursery: Nursery) -> None:
    """By `teach` with both clients and by a whole recipe; sent they are, so that the search means something."""
    always, code = CASES[case]
    (tmp_path / "q.jsonl").write_text('{"id": "a", "question": "What is 2 + 3?", "answer": "5"}\n')
    home = {"STILLROOM_STORE": str(tmp_path / "store"), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path), **KEYS}
    with Loopback(always=always) as server:
        for name in ("openai", "anthropic"):
            call = ("teach", str(tmp_path / "q.jsonl"), "--teacher", f"{name}:m", "--base-url", getattr(server, name))
            out = ("-o", str(tmp_path / f"{name}.jsonl"))
            assert nursery.run(tmp_path / "log", home, *call, *out) == code, (tmp_path / "log").read_text()
        teacher = f"teacher={{name: anthropic, model: m, base_url: '{server.anthropic}'}}"
        told = nursery.run(tmp_path / "log", home, "run", "abacus-small", teacher, *TINY)
        assert told == code, (tmp_path / "log").read_text()
        nursery.run(tmp_path / "log", home, "show", "journal")
        sent = "".join(server.headers)
    assert KEYS["OPENAI_API_KEY"] in sent
    assert KEYS["ANTHROPIC_API_KEY"] in sent
    if not code:
        assert {"report", "rationales"} <= {m.stage for m in Store(tmp_path / "store").manifests()}
    assert "Traceback" not in (tmp_path / "log").read_text()
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert tmp_path / "store" / "journal.sqlite" in written
    assert tmp_path / "log" in written
    for path in written:
        content = path.read_bytes()
        assert not [name for name, key in KEYS.items() if key.encode() in content], path


def test_a_proxy_with_a_password_is_not_repeated(tmp_path: Path, nursery: Nursery) -> None:
    """Neither one that no client can use, nor one that nobody answers at."""
    for number, proxy in enumerate(("ftp://me:planted-word@127.0.0.1:1", "http://me:planted-word@127.0.0.1:1")):
        log = tmp_path / f"log-{number}"
        proxies = {"HTTP_PROXY": proxy, "ALL_PROXY": proxy, "NO_PROXY": "", "no_proxy": ""}
        home = {"STILLROOM_STORE": str(tmp_path / "store"), **proxies, **KEYS}
        teacher = "teacher={name: openai, model: m, base_url: 'http://10.255.255.1:9/v1'}"
        assert nursery.run(log, home, "run", "abacus-small", teacher, *TINY) == 1, log.read_text()
        assert log.read_text().splitlines()[-1].startswith("stillroom: ")
        for path in (path for path in tmp_path.rglob("*") if path.is_file()):
            assert b"planted-word" not in path.read_bytes(), path


def test_no_door_of_the_package_listens_to_the_world() -> None:
    """Whatever serves does so on the loopback unless it is told otherwise."""
    package = Path(__file__).parents[1] / "src" / "stillroom"
    for path in package.rglob("*.py"):
        text = path.read_text()
        assert "0.0.0.0" not in text, path
        assert "share=True" not in text, path
