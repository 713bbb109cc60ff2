"""The studio without its page: the door, what is read from a store, why a student failed, and that text stays text."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

import toys
from conversation_toys import COUNT, QUESTIONS, speaker
from stillroom.conversation import Change, Way
from stillroom.errors import StoreError, UsageError
from stillroom.lenses import write_findings
from stillroom.records import Prediction, Verdict
from stillroom.store import Store
from stillroom.studio import failing, holdings, pictures
from stillroom.studio.figures import _findings
from stillroom.studio.serving import admission, bound, gated, is_loopback
from stillroom.studio.speakers import Speakers
from stillroom.studio.talking import Visit

EVIL = '<img src=x onerror="alert(1)"> ${alert(2)} {{value}} `x` </p><script>alert(3)</script> \x1b[31m &amp;'


def knock(token: str | None, query: str = "", **headers: str) -> tuple[int, dict[bytes, bytes]]:
    """The status and the headers of one request; 200 is the page itself."""
    sent: list[dict[str, Any]] = []

    async def page(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> None: ...

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in {"host": "127.0.0.1:7860", **headers}.items()]
    scope = {"type": "http", "headers": raw, "query_string": query.encode()}
    asyncio.run(gated(page, token)(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"])


def test_on_a_loopback_address_everybody_here_may_come_in_under_its_own_name_alone() -> None:
    assert [knock(None, host=host)[0] for host in ("localhost:1", "127.0.0.1", "[::1]:7860")] == [200, 200, 200]
    assert [knock(None, host=host)[0] for host in ("mine.example:7860", "", "10.0.0.1")] == [403, 403, 403]


def test_elsewhere_a_token_is_needed_and_then_kept_in_a_cookie() -> None:
    assert knock("right", host="lab:7860")[0] == 401
    assert knock("right", "token=wrong")[0] == 401
    status, headers = knock("right", "token=right")
    assert (status, headers[b"location"]) == (303, b"/")
    assert b"HttpOnly" in headers[b"set-cookie"]
    cookie = headers[b"set-cookie"].decode().split(";")[0]
    assert knock("right", host="lab:7860", cookie=cookie)[0] == 200
    assert knock("right", cookie=cookie + "x")[0] == 401
    assert knock("right", authorization="Bearer right")[0] == 200
    assert knock("right", authorization="Bearer ríght")[0] == 401


@pytest.mark.parametrize("token", ["a+b", "a&b", "a#b", "a%41", "ríght", "a b", "a;b", 'a"b', "a\r\nX: 1", "a\n"])
def test_a_token_that_an_address_or_a_cookie_would_change_is_refused(token: str) -> None:
    with pytest.raises(UsageError, match=r"letters without accents, digits and -\._~"):
        admission(token, "127.0.0.1")


def test_who_must_know_a_token() -> None:
    assert admission("aZ0-._~", "10.0.0.1") == "aZ0-._~"
    assert admission(None, "127.0.0.1") is None
    assert len(admission("", "10.0.0.1") or "") > 30


def test_the_cookies_of_others_and_a_stale_one_keep_nobody_out() -> None:
    for others in ('{"a":1}', "x[y]=1", "stillroom_token=stale", 'a="b'):
        assert knock("right", cookie=f"{others}; stillroom_token=right; b=c")[0] == 200, others
        assert knock("right", cookie=others)[0] == 401
    assert knock("right", cookie="stillroom_token=stale", authorization="Bearer right")[0] == 200


def test_what_is_no_address_is_told() -> None:
    for token in (None, "right"):
        assert knock(token, host="[")[0] == 403
        assert knock(token, origin="http://[")[0] == 403
    with pytest.raises(UsageError, match="is no address"):
        bound("a..b", 0)


def test_a_table_that_was_cut_short_is_told(tmp_path: Path) -> None:
    write_findings(tmp_path / "findings.parquet", [])
    (tmp_path / "findings.parquet").write_bytes((tmp_path / "findings.parquet").read_bytes()[:-9])
    with pytest.raises(StoreError, match="run its recipe again"):
        _findings(tmp_path / "findings.parquet")


def test_a_page_of_another_site_is_refused_even_with_the_cookie() -> None:
    cookie = "stillroom_token=right"
    assert knock("right", host="lab:7860", origin="http://evil.example", cookie=cookie)[0] == 403
    assert knock("right", host="lab:7860", origin="http://lab:7860", cookie=cookie)[0] == 200
    assert knock(None, origin="http://127.0.0.1:9999")[0] == 403
    assert knock(None, origin="null")[0] == 403


def test_which_addresses_are_loopback() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "localhost.evil.example")] == [False] * 4


def test_an_address_that_is_taken_is_told() -> None:
    with bound("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(UsageError, match="give another --port"):
            bound("127.0.0.1", taken.getsockname()[1])


def test_text_is_never_markup_nor_a_template() -> None:
    shown = pictures.escaped(EVIL)
    assert not re.search(r"[<>${}`\x1b\"]", shown)
    assert "\\x1b[31m" in shown
    assert pictures.escaped("x" * 100_000).endswith("(100000 characters)")
    assert len(pictures.escaped("x" * 100_000)) < 5000


def test_a_caption_has_code_and_nothing_else() -> None:
    told = pictures.caption("Null: `majority` <b>`x`")
    assert told == '<p class="note">Null: <code>majority</code> &lt;b&gt;<code>x</code></p>'


def test_whatever_a_student_writes_stands_in_its_card_as_text() -> None:
    one = speaker()
    one.student.tokenizer.decode = lambda *_, **__: EVIL  # type: ignore[method-assign, assignment]
    one.student.tokenizer.batch_decode = lambda rows, **_: [EVIL] * len(rows)  # type: ignore[method-assign, assignment]
    turn = one.say(EVIL, Way("", (Change(0, "zero"),)))
    shown = pictures.turns([(EVIL, turn), (EVIL, EVIL)])
    assert shown.count("<article>") == 2
    assert not re.search(r"<script|onerror=\"|\$\{|\{\{|\x1b", shown)
    assert shown.count("<img") == 2 * COUNT - 1
    assert [*re.findall(r'data-step="(\d)" aria-pressed="(\w+)"', shown)] == [
        ("0", "true"), ("1", "false"), ("2", "false"),
    ]  # fmt: skip


def made(name: str, text: str, extracted: str | None, **more: Any) -> tuple[Prediction, Verdict]:
    one = toys.problem("p", ("2 + 3", 5), ("5 * 2", 10))
    said = Prediction(problem="p", text=text, tokens=3, **{"stopped": True, **more})
    right = extracted == one.answer
    return said, Verdict(problem="p", correct=right, extracted=extracted, rule=name, parsed=extracted is not None)


def test_why_a_student_failed() -> None:
    chain = "<reasoning>\nStep 1: 2 + 3 = 6\nStep 2: 6 * 2 = 12\n</reasoning>\nThe answer is 12."
    rows = {
        "chain": made("chain", chain, "12"),
        "early": made("early", "The answer is 5.", "5"),
        "same": made("same", "The answer is 12.", "12"),
        "lost": made("lost", "eggs eggs", None, stopped=False),
        "unasked": made("unasked", "", None, stopped=False, truncated=True),
        "good": made("good", "The answer is 10.", "10"),
    }
    case = holdings.Case(
        toys.problem("p", ("2 + 3", 5), ("5 * 2", 10)),
        {name: said for name, (said, _) in rows.items()}, {name: verdict for name, (_, verdict) in rows.items()},
    )  # fmt: skip
    told = {name: " ".join(holdings.reasons(case, name)) for name in rows}
    assert "step 1 comes to 6, where 5 is right" in told["chain"]
    assert "same gave the same wrong answer" in told["chain"]
    assert "good solved it" in told["chain"]
    assert "value of step 1" in told["early"]
    assert "cut it off" in told["lost"]
    assert "No answer could be read" in told["lost"]
    assert told["unasked"].startswith("It was not asked")
    assert told["good"].startswith("It did not fail")


def test_a_failing_student_is_asked_again_in_every_way() -> None:
    one = speaker()
    question = toys.problem("p", ("1", 1), question=QUESTIONS[0])
    tried = list(failing.trials(one, question))
    assert len(tried) == 1 + COUNT + 1 + COUNT * len(failing.TRIED)
    assert tried[0].answer == one.say(QUESTIONS[0], Way()).answer
    assert (
        next(t for t in tried if t.done == "thought 1 by zero").answer
        == one.say(QUESTIONS[0], Way("", (Change(1, "zero"),))).answer
    )
    assert len(list(failing.trials(speaker(toys.student()), question))) == 1
    assert len(list(failing.trials(speaker(company=()), question))) == 1 + COUNT + 1 + COUNT * 2


@pytest.fixture
def visit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Visit:
    """Two students of one run, one of which thinks."""
    folders = {"latent": tmp_path / "a", "normal": tmp_path / "b"}
    opened = {tmp_path / "a": speaker(name="latent"), tmp_path / "b": speaker(toys.student(), name="normal")}
    monkeypatch.setattr("stillroom.studio.talking.students", lambda *_: folders)
    monkeypatch.setattr(Speakers, "of", lambda _, folder: opened[folder])
    return Visit(Store(tmp_path), Speakers(tmp_path))


def test_a_click_replaces_a_thought_and_another_gives_it_back(visit: Visit) -> None:
    visit.choose("run", ["normal", "latent"])
    (_, words), (_, before) = visit.ask(QUESTIONS[0], "")
    assert not isinstance(words, str)
    assert not isinstance(before, str)
    _, (_, after) = visit.replace(1, 1, "zero")
    assert not isinstance(after, str)
    assert (after.thoughts[1].norm, after.undisturbed) == (0.0, before.answer)
    _, (_, again) = visit.replace(1, 1, "zero")
    assert not isinstance(again, str)
    assert again.thoughts == before.thoughts
    visit.replace(1, 0, "noise")
    assert visit.conversations["latent"].way.changes
    visit.restore()
    assert visit.conversations["latent"].way == Way()


def test_what_one_student_cannot_do_keeps_no_other_from_answering(visit: Visit) -> None:
    visit.choose("run", ["latent", "normal"])
    (_, latent), (_, normal) = visit.ask(QUESTIONS[0], "61")
    assert isinstance(latent, str)
    assert "positions" in latent
    assert not isinstance(normal, str)
    assert "digits" in str(visit.ask(QUESTIONS[0], "9" * 5000)[0][1])
    (_, wrong), _ = visit.replace(0, 7, "zero")
    assert "count from 0" in str(wrong)
    ((_, said),) = visit.ask_oracle("Summarize the thinking.")
    assert "nothing was asked" in str(said)


def test_only_students_of_the_run_may_be_chosen(visit: Visit) -> None:
    for names, why in ((["../../etc"], "no student"), ([], "choose 1 to 4"), (["latent"] * 5, "choose 1 to 4")):
        with pytest.raises(UsageError, match=why):
            visit.choose("run", names)
    visit.choose("run", ["normal"])
    with pytest.raises(UsageError, match="none of the chosen students thinks"):
        visit.ask_oracle("Summarize the thinking.")


def test_a_run_is_what_nothing_was_made_from_and_its_lineage_has_parents_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = toys.stage("one")
    second, third = toys.stage("two", one=first), toys.stage("three", one=first)
    last = toys.stage("four", two=second, one=first)
    for stage in (first, second, third, last):
        store.ensure(stage)
    names = list(holdings.runs(store).values())
    assert sorted(names) == sorted([f"echo/{last.key}", f"echo/{third.key}"])
    made = holdings.lineage(store, f"echo/{last.key}")
    assert [manifest.name for manifest in made] == ["echo one", "echo two", "echo four"]
    assert list(holdings.depths(made).values()) == [0, 1, 2]
    with pytest.raises(UsageError, match="choose another run"):
        holdings.lineage(store, "../../etc/passwd")


def test_no_event_makes_a_table_of_all_before_it_so_memory_does_not_grow_with_answers() -> None:
    page = pytest.importorskip("stillroom.studio.page", exc_type=ImportError)

    async def made() -> Any:  # its locks want a loop that runs
        return page.gr.Blocks().queue()._queue

    queue = asyncio.run(made())
    queue.events_recorded = 10_000
    event = {"function": "ask", "status": "success", "process_time": 1.0}
    assert queue.compute_analytics_summary([event]) == {"functions": {}}
    assert queue.ANALYTICS_MAX_EVENTS <= 100
