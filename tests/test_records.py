"""A record's key is the hash of all its content and of nothing else; JSON carries it whole."""

import hashlib
import json

import pytest
from pydantic import ValidationError

from stillroom.records import Finding, Lesson, Null, Problem, Record, Step, content_key
from toys import problem

RECORDS = [
    problem("a", ("2 + 3", 5), ("5 * 2", 10), question="Zoë has “2” <b>eggs</b>\n"),
    Lesson(problem="a", prompt="q", completion="c"),
    Finding(
        lens="l", subject="s", reference="", layer=None, module="m", position="", metric="x", value=0.1 + 0.2, n=3,
        low=0.0, high=1.0, nulls=(Null(name="n", value=0.0, low=-0.0, high=1e-17),),
    ),
]  # fmt: skip


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_json_carries_a_record_whole(record: Record) -> None:
    again = type(record).model_validate_json(record.model_dump_json())
    assert again == record
    assert again.key() == record.key()


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_every_field_is_part_of_the_key(record: Record) -> None:
    changed = {str: "text", int: 99, float: 99.5, type(None): 7}
    for name, value in record:
        other = changed.get(type(value), () if value else ("one",))
        assert record.model_copy(update={name: other}).key() != record.key(), name


def test_a_key_is_the_sha256_of_canonical_json() -> None:
    text = '{"completion":"é","problem":"a","prompt":"q","rationale":[],"term":"ce","value_at":0}'
    expected = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert Lesson(problem="a", prompt="q", completion="é").key() == expected
    assert content_key(json.loads(text)) == expected
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})


def test_records_are_frozen_and_refuse_what_they_do_not_know() -> None:
    step = Step(expression="1 + 1", value="2")
    with pytest.raises(ValidationError, match="frozen"):
        step.value = "3"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Problem(task="t", id="1", question="q", answer="2", colour="red")  # type: ignore[call-arg]


def test_a_number_that_json_cannot_hold_has_no_key() -> None:
    with pytest.raises(ValueError, match="JSON"):
        content_key([float("nan")])
