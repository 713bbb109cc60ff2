"""What decides a reply is in the key, and nothing else is."""

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stillroom.records import Problem
from stillroom.teachers.asking import Asks, Desk, OpenAIConfig
from stillroom.teachers.limits import Limits
from stillroom.teachers.requests import Ask

BASE: dict[str, Any] = {
    "teacher": "openai", "model": "m", "endpoint": "http://a/v1", "max_new_tokens": 5, "temperature": 0.0, "sample": 0,
    "messages": ({"role": "user", "content": "hello"},),
}  # fmt: skip
texts = st.text(max_size=12)
OTHER = st.one_of(
    st.tuples(st.sampled_from(["teacher", "model", "endpoint"]), texts),
    st.tuples(st.just("max_new_tokens"), st.integers(1, 9999)),
    st.tuples(st.just("temperature"), st.floats(0, 2)),
    st.tuples(st.just("sample"), st.integers(0, 99)),
    st.tuples(st.just("messages"), texts.map(lambda text: ({"role": "user", "content": text},))),
    st.tuples(st.just("messages"), texts.map(lambda text: ({"role": "system", "content": text}, *BASE["messages"]))),
)


@given(OTHER)
def test_a_change_of_anything_that_decides_the_reply_changes_the_key(change: tuple[str, Any]) -> None:
    field, value = change
    assert (Ask(**{**BASE, field: value}).key() == Ask(**BASE).key()) == (BASE[field] == value)


@given(st.integers(1, 500), st.one_of(st.none(), st.floats(0.1, 1e6)), st.floats(0, 100), texts, st.integers(1, 9))
def test_settings_that_decide_no_reply_change_no_key(
    concurrency: int, pace: float | None, usd: float, place: str, limit: int
) -> None:
    problems = [Problem(task="t", id=f"{place}{i}", question=f"What is {i}?", answer="1") for i in range(10)]
    config = OpenAIConfig(model="m", base_url="http://a/v1")
    Desk(Path(place), Limits(concurrency=concurrency, requests_per_minute=pace, tokens_per_minute=pace, max_usd=usd))
    few = [ask.key() for ask in Asks.of(config, problems[:limit])]
    assert few == [ask.key() for ask in Asks.of(config, problems)][:limit]
    assert few == [
        ask.key() for ask in Asks.of(config.model_copy(update={"base_url": "http://a/v1"}), problems[:limit])
    ]
