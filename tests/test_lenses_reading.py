"""Reading: every token of the spoken text has its class, and numbers are known by their tokens."""

import pytest
import torch

from stillroom.errors import DataError
from stillroom.lenses.reading import finite, number_token, read_spoken, spoken
from toys import problem, student, sums

PROBLEMS = [*sums(5), problem("long", ("3 + 1", 4), question="Ann has 3 eggs and gets 1 and 1 and 1.")]


def test_every_token_of_the_spoken_text_has_its_class() -> None:
    one = student()
    text = spoken(one, sums(4)[3])
    words = [one.tokenizer.decode([token]).strip() for token in text.ids]
    told = {kind: [w for w, k in zip(words, text.classes, strict=True) if k == kind] for kind in set(text.classes)}
    assert told["operands"] == ["3", "1", "1", "3", "1", "4", "1"]  # the question's numbers, then each step's
    assert told["operators"] == ["+", "=", "+", "="]
    assert told["answer"][:3] == ["The", "answer", "is"]
    assert {"4", "5"} <= set(told["reasoning"])  # what the steps give
    assert spoken(student(pauses=2), sums(4)[3]) == text  # pauses are no part of it


def test_reading_ends_where_numbers_do() -> None:
    broken = student()
    with torch.no_grad():
        broken.model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(DataError, match="NaN"):
        list(read_spoken(broken, [spoken(broken, p) for p in PROBLEMS], 4))
    assert finite(torch.ones(2), "x").sum() == 2


def test_a_number_is_known_by_the_token_that_has_its_digits() -> None:
    one = student()
    assert one.tokenizer.decode([number_token(one, "7")]).strip() == "7"
    assert number_token(one, "eggs") is None
