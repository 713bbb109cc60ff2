"""Running: many requests at once, each journalled before it counts, stopped and taken up at any moment.

The requests are streamed: what is held in memory is what is in flight.
"""

import asyncio
import random
import signal
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from stillroom.errors import Interrupted, TeacherError
from stillroom.progress import Meter, say
from stillroom.teachers.journal import Journal
from stillroom.teachers.limits import Limits, Pace, Purse, backoff, pause
from stillroom.teachers.requests import Ask, Client, Refused, Transient

SAME_REFUSALS = 5
"""So many refusals and no reply: something is wrong with all requests, not with these."""
BREATH = 256
"""Recorded requests passed over between two looks at the event loop (where Ctrl-C arrives)."""
LONG_WAIT_S = 30.0
"""A wait that a service asks for is told from so many seconds on."""
T = TypeVar("T")


@dataclass
class Tally:
    """What became of the requests of one call."""

    reused: int = 0
    answered: int = 0
    failed: int = 0
    unanswered: int = 0
    last_reason: str = ""
    stopped: bool = False
    terminated: bool = False
    over_budget: bool = False


@dataclass
class Run:
    """One call's state, shared by its workers."""

    client: Client
    journal: Journal
    limits: Limits
    purse: Purse
    meter: Meter | None = None
    tally: Tally = field(default_factory=Tally)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    rng: random.Random = field(default_factory=random.Random)
    error: BaseException | None = None
    at_work: set[str] = field(default_factory=set)
    """Keys of the requests in flight: a question that stands twice is asked once."""

    def __post_init__(self) -> None:
        self.pace = Pace(self.limits)

    def advance(self) -> None:
        if self.meter is not None:
            self.meter.advance(1, f"{self.purse.spent:.4f} USD" if self.purse.price else "")


def wanted(ask: Ask, journal: Journal, retry_failed: bool) -> bool:
    """Whether a request still has to be sent."""
    row = journal.find(ask.key())
    return row is None or (retry_failed and row.reply is None)


async def ask_all(run: Run, asks: Iterable[Ask]) -> Tally:
    """Sends what the journal does not hold. Raises the first `TeacherError`, once what is in flight is recorded."""
    queue = iter(asks)
    size = run.limits.concurrency
    await asyncio.gather(*(_worker(run, queue) for _ in range(size)))
    if run.error is not None:
        raise run.error
    return run.tally


async def _worker(run: Run, asks: Iterator[Ask]) -> None:
    passed = 0
    for ask in asks:
        try:
            key = ask.key()
            if key not in run.at_work and wanted(ask, run.journal, run.limits.retry_failed):
                run.at_work.add(key)
                await _send(run, ask)
                run.at_work.discard(key)
            else:
                run.tally.reused += 1
                run.advance()
                passed += 1
                if passed % BREATH == 0:
                    await asyncio.sleep(0)
        except Exception as error:
            run.error = run.error or error
            run.stop.set()
        if run.stop.is_set():
            return


async def _send(run: Run, ask: Ask) -> None:
    held = run.purse.most(ask)
    answered_before = run.tally.answered
    reason = ""
    for attempt in range(run.limits.attempts):
        if not await pause(run.pace.wait(ask), run.stop):
            return
        if not run.purse.take(held):
            run.tally.over_budget = True
            run.stop.set()
            return
        cost = 0.0
        try:
            reply = await run.client.ask(ask)
            cost = run.purse.price.usd(reply.input_tokens, reply.output_tokens) if run.purse.price else 0.0
            await run.journal.record(ask, reply)
            run.tally.answered += 1
            run.advance()
            return
        except Refused as error:
            await _refuse(run, ask, str(error))
            return
        except Transient as error:
            reason, cost = str(error), held if error.billed else 0.0
            if error.wait is not None and run.pace.hold(error.wait) >= LONG_WAIT_S:
                say(f"  {reason}: it asks to wait {error.wait:.0f} s; Ctrl-C stops, nothing is lost")
            wait = error.wait if error.wait is not None else backoff(attempt, run.rng)
        finally:
            run.purse.settle(held, cost)
        if attempt + 1 < run.limits.attempts and not await pause(wait, run.stop):
            return
    _give_up(run, reason, answered_before)


async def _refuse(run: Run, ask: Ask, reason: str) -> None:
    await run.journal.record(ask, None, reason)
    run.tally.failed += 1
    run.tally.last_reason = reason
    run.advance()
    if run.tally.answered + run.tally.reused == 0 and run.tally.failed >= SAME_REFUSALS:
        raise TeacherError(
            f"every request so far was refused ({reason}): mend the call; then run it with --retry-failed"
        )


def _give_up(run: Run, reason: str, answered_before: int) -> None:
    """One request's attempts are spent: if none was answered meanwhile it is the server, else it is the request."""
    if run.tally.answered == answered_before:
        raise TeacherError(
            f"{reason}, {run.limits.attempts} times: look at the network and the address; nothing that was answered "
            "is lost, run the same command to go on"
        )
    run.tally.unanswered += 1
    run.tally.last_reason = reason


@contextmanager
def interruptible(stop: asyncio.Event, tally: Tally) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM lets what is in flight finish; a second one stops at once."""
    loop = asyncio.get_running_loop()
    main = asyncio.current_task()

    def terminate() -> None:
        tally.terminated = True
        interrupt()

    def interrupt() -> None:
        if tally.stopped and main is not None:
            main.cancel()
            return
        say("stopping: what is in flight is still recorded (Ctrl-C again stops at once)")
        tally.stopped = True
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        loop.add_signal_handler(signal.SIGINT, interrupt)
        loop.add_signal_handler(signal.SIGTERM, terminate)
    except NotImplementedError:  # Windows: Ctrl-C stops at once
        yield
        return
    try:
        yield
    except asyncio.CancelledError:
        said = "stopped at once: what was in flight may have been answered and is asked again, the rest is recorded"
        if tally.terminated:
            raise Interrupted(said) from None
        say(said)
        raise KeyboardInterrupt from None
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)  # None where no Python set it


def drive(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Runs asynchronous work to its end, in a thread of its own where a loop runs already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(work())).result()
