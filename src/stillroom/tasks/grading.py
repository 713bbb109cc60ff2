"""Verdicts for anybody's outputs: JSON lines of `kind, gold, prediction_text` and perhaps `choices` in, the same lines
with their verdicts out, in order. Only the lines that are under way are held in memory.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from stillroom.errors import DataError, unknown
from stillroom.records import Verdict
from stillroom.tasks.answers import KINDS, Question, grade_all

FIELDS = ("correct", "extracted", "rule", "strict", "flexible", "equivalent", "parsed")

ENCODER = json.JSONEncoder(ensure_ascii=False)


def grade_lines(lines: Iterable[bytes], complain: Callable[[int, str], None]) -> Iterator[bytes]:
    """The lines with their verdicts; a line that cannot be graded goes to `complain` with its number instead."""
    rows: deque[dict[str, Any]] = deque()

    def questions() -> Iterator[Question]:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = parsed_row(line)
                question = read_question(row)
            except DataError as error:
                complain(number, str(error))
                continue
            rows.append(row)
            yield question

    for verdict in grade_all(questions()):
        yield _written(rows.popleft(), verdict)


def parsed_row(line: bytes) -> dict[str, Any]:
    """A line as an object. Raises `DataError`."""
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 ({error.reason})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON ({str(error)[:80]})") from None
    if not isinstance(row, dict):
        raise DataError("not a JSON object; expected kind, gold, prediction_text and perhaps choices")
    return row


def read_question(row: dict[str, Any]) -> Question:
    """The question of a row. Raises `DataError` for a missing field, an unknown kind, or a field of another type."""
    for field in ("kind", "gold", "prediction_text"):
        if field not in row:
            raise DataError(f"the field {field!r} is missing; expected kind, gold, prediction_text")
    kind, gold, text, choices = row["kind"], row["gold"], row["prediction_text"], row.get("choices") or ()
    if not isinstance(kind, str) or kind not in KINDS:
        raise DataError(unknown("kind", str(kind), KINDS))
    if not isinstance(gold, str | int | float):
        raise DataError(f"gold is {json.dumps(gold)[:60]}; expected text, a number, or true or false")
    if not isinstance(text, str):
        raise DataError(f"prediction_text is {json.dumps(text)[:60]}; expected text")
    if not isinstance(choices, list | tuple) or not all(isinstance(choice, str) for choice in choices):
        raise DataError(f"choices is {json.dumps(choices)[:60]}; expected a list of texts")
    return Question(kind, str(gold), text, tuple(choices))  # type: ignore[arg-type]


def _written(row: dict[str, Any], verdict: Verdict) -> bytes:
    row |= {field: getattr(verdict, field) for field in FIELDS}
    try:
        return ENCODER.encode(row).encode() + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair, which UTF-8 cannot hold
        return json.dumps(row).encode() + b"\n"
