"""The pace keeps both limits; the purse never lets more out than it holds."""

from datetime import date
from pathlib import Path

import pytest

from stillroom.errors import UsageError
from stillroom.teachers.clients import retry_after
from stillroom.teachers.journal import on_local_disk
from stillroom.teachers.limits import Limits, Pace, Purse
from stillroom.teachers.prices import DATE, HOSTS, PRICES, SOURCES, Price, price_of
from stillroom.teachers.requests import Ask
from stillroom.teachers.teaching import parse_price

ASK = Ask("openai", "m", "e", ({"role": "user", "content": "x" * 360},), 100, 0.0, 0)


def test_a_hold_tells_what_it_adds() -> None:
    pace = Pace(Limits(), lambda: 100.0)
    assert [pace.hold(seconds) for seconds in (60.0, 40.0, 70.0)] == [60.0, 0.0, 10.0]


def test_requests_and_tokens_are_spaced() -> None:
    pace = Pace(Limits(requests_per_minute=60.0), lambda: 0.0)
    assert [pace.wait(ASK) for _ in range(3)] == [0.0, 1.0, 2.0]
    pace = Pace(Limits(requests_per_minute=60.0, tokens_per_minute=1200.0), lambda: 0.0)
    assert [pace.wait(ASK) for _ in range(2)] == [0.0, 10.0]  # 90 + 10 in, 100 out: 200 tokens at 20 a second
    pace.hold(60.0)
    assert pace.wait(ASK) == 60.0


def test_the_purse_counts_what_is_in_flight() -> None:
    purse = Purse(1.0, Price(1.0, 1.0), "m")
    assert purse.take(0.6)
    assert not purse.take(0.6)
    purse.settle(0.6, 0.1)
    assert purse.take(0.6)


def test_retry_after_in_seconds_milliseconds_and_as_a_date() -> None:
    assert retry_after({"retry-after": "7"}) == 7.0
    assert retry_after({"retry-after-ms": "250", "retry-after": "7"}) == 0.25
    assert retry_after({"retry-after": "Thu, 01 Jan 1970 00:01:00 GMT"}, lambda: 20.0) == 40.0
    assert retry_after({}) is None


def test_prices_are_known_for_the_provider_and_dated_versions_alone() -> None:
    assert price_of("openai", "gpt-4o-2024-08-06", HOSTS["openai"]) == Price(2.5, 10.0)
    assert price_of("openai", "gpt-4o-next", HOSTS["openai"]) is None
    assert price_of("openai", "gpt-4o", "http://127.0.0.1/v1") is None


def test_the_table_names_its_day_and_where_each_price_stands() -> None:
    assert date.fromisoformat(DATE) <= date.today()
    assert set(SOURCES) == set(PRICES) == set(HOSTS)
    assert all(url.startswith("https://") for url in SOURCES.values())


def test_a_price_is_two_numbers() -> None:
    assert parse_price("2.5,10") == [2.5, 10.0]
    for text in ("2.5", "1,2,3", "a,b", ""):
        with pytest.raises(UsageError, match=r"--price .*: expected two numbers, as in 2.5,10"):
            parse_price(text)
    with pytest.raises(UsageError, match=r"price\.1"):
        Limits.parse({"price": [1.0, -1.0]}, "teach")


def test_a_network_disk_is_told_from_a_local_one() -> None:
    mounts = "/dev/sda / ext4 rw 0 0\nserver:/x /net nfs4 rw 0 0\n"
    assert on_local_disk(Path("/home/j"), lambda: mounts)
    assert not on_local_disk(Path("/net/j"), lambda: mounts)
