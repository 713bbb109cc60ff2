"""How fast and how dearly to ask: settings that change no reply, the pace they set, and the purse they fill."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from stillroom.config import Config
from stillroom.errors import TeacherError
from stillroom.teachers.prices import DATE, Price, price_of
from stillroom.teachers.requests import Ask

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0


class Limits(Config):
    """Settings of a run of requests: part of no key."""

    concurrency: int = Field(8, ge=1)
    requests_per_minute: float | None = Field(None, gt=0)
    tokens_per_minute: float | None = Field(None, gt=0)
    max_usd: float | None = Field(None, ge=0)
    """What all requests of the run may cost, those that the journal holds included."""
    price: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] | None = None
    """US dollars a million input and output tokens, for models that the table does not know."""
    batch: bool = False
    """Hand the requests in through the provider's batch interface: cheaper, and answered within a day."""
    attempts: int = Field(6, ge=1)
    timeout_s: float = Field(120.0, gt=0)
    poll_s: float = Field(30.0, gt=0)
    retry_failed: bool = False
    """Ask again what failed for good before."""

    def price_of(self, teacher: str, model: str, endpoint: str) -> Price | None:
        """The price that was given, else the table's; None where neither is known."""
        return Price(*self.price) if self.price else price_of(teacher, model, endpoint)


class Pace:
    """When the next request may go: evenly spaced by both limits, and not before the provider says."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._second_a_request = 60.0 / limits.requests_per_minute if limits.requests_per_minute else 0.0
        self._second_a_token = 60.0 / limits.tokens_per_minute if limits.tokens_per_minute else 0.0
        self._clock, self._next = clock, clock()

    def wait(self, ask: Ask) -> float:
        """Takes a place in the line; seconds until it is due."""
        due = max(self._clock(), self._next)
        tokens = ask.likely_tokens() + ask.max_new_tokens
        self._next = due + max(self._second_a_request, tokens * self._second_a_token)
        return due - self._clock()

    def hold(self, seconds: float) -> float:
        """Nothing is due for so long; the seconds that this adds to the wait."""
        now, before = self._clock(), self._next
        self._next = max(before, now + seconds)
        return min(seconds, self._next - before) if self._next > before else 0.0


def backoff(attempt: int, rng: random.Random) -> float:
    """Exponential with full jitter above a half (attempts count from 0)."""
    return min(LONGEST_WAIT_S, FIRST_WAIT_S * float(2**attempt)) * rng.uniform(0.5, 1.0)


class Purse:
    """What may still be spent. A request is sent only if the limit holds even should it cost all it can."""

    def __init__(self, limit: float | None, price: Price | None, teacher: str, spent: float = 0.0) -> None:
        if limit is not None and price is None:
            raise TeacherError(
                f"the price of {teacher} is not in the table of {DATE}, so --max-usd cannot be kept: "
                "give it with --price IN,OUT (US dollars a million tokens; in a recipe settings.teach.price), or leave "
                "--max-usd out"
            )
        self.limit, self.price, self.spent, self._held = limit, price, spent, 0.0

    def most(self, ask: Ask, batch: bool = False) -> float:
        return self.price.usd(ask.most_tokens(), ask.max_new_tokens, batch) if self.price else 0.0

    def take(self, amount: float) -> bool:
        if self.limit is not None and self.spent + self._held + amount > self.limit:
            return False
        self._held += amount
        return True

    def hold(self, amount: float) -> None:
        """For what was sent before and is not answered yet."""
        self._held += amount

    def settle(self, held: float, cost: float) -> None:
        self._held -= held
        self.spent += cost


async def pause(seconds: float, stop: asyncio.Event) -> bool:
    """Waits, or less long where the run is to stop; whether it may go on."""
    if seconds > 0 and not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)
    return not stop.is_set()
