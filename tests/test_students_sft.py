"""Supervised fine-tuning: the loss is transformers' own, on the completion and the end of the text alone."""

import pytest
import torch

from stillroom.errors import DataError
from stillroom.records import Lesson
from stillroom.students import Manner, Student
from stillroom.students.batches import IGNORED, Example, grouped, lesson_batches
from stillroom.students.sft import SftObjective, encode
from toys import MODELS, student, sums, tokenizer

WORDS = tokenizer()
MODEL = MODELS["llama"](len(WORDS))
LESSONS = [
    Lesson(problem=p.id, prompt=p.question, completion=f"Step 1: {s.expression} = {s.value}\n" * (i % 3) + "The answer")
    for i, p in enumerate(sums(8))
    for s in p.steps[:1]
]
STORIES = [Lesson(problem="story", prompt="", completion="Ann has 3 eggs"), *LESSONS[:3]]


def examples(lessons: list[Lesson] = LESSONS, suffix: tuple[int, ...] = ()) -> list[Example]:
    return encode(lessons, Student(MODEL, WORDS, Manner(pauses=len(suffix))))


def batches(rows: list[Example], size: int, lengths: list[int] | None = None, seed: int = 0):
    return lesson_batches(rows, lengths or [len(row.prompt) for row in rows], WORDS.pad_token_id, size, seed)


@pytest.mark.parametrize("lessons", [LESSONS, STORIES], ids=["lessons", "stories"])
@pytest.mark.parametrize("kind", MODELS)
def test_the_loss_is_transformers_own(kind: str, lessons: list[Lesson]) -> None:
    model = MODELS[kind](len(WORDS))
    rows = {row.problem: row for row in examples(lessons)}
    batch = batches(list(rows.values()), len(rows))(0, 0, 1)
    total = count = 0.0
    for row in rows.values():  # one by one, unpadded, all logits
        ids = torch.tensor([row.prompt + row.completion])
        labels = torch.tensor([[IGNORED] * len(row.prompt) + row.completion])
        n = len(row.completion) - (not row.prompt)  # nothing stands before the first token of a story
        total += model(input_ids=ids, labels=labels).loss.item() * n
        count += n
    loss = SftObjective(model)(**batch.tensors)
    assert list(loss) == ["ce"]
    assert batch.counts["ce"] == count
    assert loss["ce"].item() == pytest.approx(total / count, rel=1e-5)


def test_a_batch_of_many_is_the_mean_of_batches_of_one() -> None:
    objective = SftObjective(MODELS["llama"](len(WORDS)))
    rows = examples()
    whole = batches(rows, 8)(0, 0, 1)
    single = batches(rows, 1)
    alone = [single(i, 0, 1) for i in range(8)]
    assert sorted(p for one in alone for p in one.problems) == sorted(whole.problems)
    assert sum(one.counts["ce"] for one in alone) == whole.counts["ce"]
    mean = sum(objective(**one.tensors)["ce"].item() * one.counts["ce"] for one in alone) / whole.counts["ce"]
    assert objective(**whole.tensors)["ce"].item() == pytest.approx(mean, rel=1e-5)


def test_labels_are_the_completion_and_the_end_never_the_prompt_never_padding() -> None:
    pauses = (3, 3)
    rows = {row.problem: row for row in examples(suffix=pauses)}
    batch = batches(list(rows.values()), 8)(0, 0, 1)
    ids, labels = batch.tensors["input_ids_BT"], batch.tensors["labels_BK"]
    first = ids.shape[1] - labels.shape[1]
    for name, row_ids, row_labels in zip(batch.problems, ids.tolist(), labels.tolist(), strict=True):
        row = rows[name]
        assert row.completion[-1] == WORDS.eos_token_id
        assert tuple(row.prompt[-2:]) == pauses
        whole = [*row.prompt, *row.completion]
        padding = len(row_ids) - len(whole)
        assert row_ids == whole + [WORDS.pad_token_id] * padding
        expected = [IGNORED] * len(row.prompt) + row.completion + [IGNORED] * padding
        assert row_labels == expected[first:]
        assert all(label == IGNORED for label in expected[:first])  # what is cut away carries no label
    assert padding_of(ids) > 0
    assert WORDS.eos_token_id in labels
    assert WORDS.pad_token_id not in labels
    assert batch.counts["ce"] == int((labels != IGNORED).sum()) == sum(len(row.completion) for row in rows.values())


def padding_of(ids: torch.Tensor) -> int:
    return int((ids == WORDS.pad_token_id).sum())


def test_a_prompt_ends_as_the_student_is_asked() -> None:
    asked = student(pauses=3)
    (row,) = encode(LESSONS[:1], asked)
    assert row.prompt == asked.prompt(LESSONS[0].prompt)
    assert asked.tokenizer.decode(row.prompt) == LESSONS[0].prompt + "\n<pause><pause><pause>"
    assert asked.tokenizer.decode(row.completion) == LESSONS[0].completion + "<eos>"


def test_training_moves_the_loss_down_to_memory() -> None:
    model = MODELS["llama"](len(WORDS), spread=0.1)
    objective, batch = SftObjective(model), batches(examples(), 8)(0, 0, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        loss = objective(**batch.tensors)["ce"]
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3


def holding(tokens: int) -> Student:
    """A student of so short a context."""
    asked = student()
    asked.model.config.max_position_embeddings = tokens
    return asked


@pytest.mark.parametrize(
    ("lessons", "longest", "told"),
    [
        ([], 64, "there are no lessons"),
        ([Lesson(problem="p9", prompt="Ann has", completion="")], 64, "lesson p9: the completion has no token"),
        (
            [Lesson(problem="p9", prompt="Ann has 3", completion="eggs 3 eggs 3")],
            15,
            r"lesson p9 \(9 tokens\): longer than the 8 tokens",
        ),
    ],
)
def test_what_cannot_be_learned_is_named(lessons: list[Lesson], longest: int, told: str) -> None:
    with pytest.raises(DataError, match=told):
        encode(lessons, holding(longest))


@pytest.mark.parametrize("context", [8, 9, 15])
def test_a_lesson_of_just_the_longest_length_is_learned_and_its_padding_has_positions(context: int) -> None:
    (row,) = encode([Lesson(problem="p", prompt="Ann has 3", completion="eggs 3 eggs")], holding(context))
    assert row.length == 8
    assert batches([row], 1)(0, 0, 1).tensors["input_ids_BT"].shape[1] <= context


LENGTHS = [7 + (i * 37) % 23 for i in range(1003)]


@pytest.mark.parametrize("size", [1, 8, 64, 5000])
def test_an_epoch_visits_each_row_at_most_once_and_misses_less_than_a_batch(size: int) -> None:
    rows_of = grouped(LENGTHS, size, 3)
    width = min(size, 1003)
    per_epoch = 1003 // width
    epochs = [[rows_of(e * per_epoch + i) for i in range(per_epoch)] for e in range(3)]
    for epoch in epochs:
        seen = [row for batch in epoch for row in batch]
        assert len(seen) == len(set(seen)) > 1003 - width
        assert {len(batch) for batch in epoch} == {width}
        assert set(seen) <= set(range(1003))
    assert epochs[0] != epochs[1]


def test_a_batch_is_a_pure_function_of_its_index() -> None:
    forward, backward = grouped(LENGTHS, 8, 3), grouped(LENGTHS, 8, 3)
    indices = list(range(0, 400, 7))
    there = [forward(i) for i in indices]
    assert [backward(i) for i in reversed(indices)] == there[::-1]
    assert [grouped(LENGTHS, 8, 4)(i) for i in indices] != there


def test_rows_of_like_length_stand_together_in_mixed_order() -> None:
    batches = [grouped(LENGTHS, 8, 3)(i) for i in range(125)]
    spread = [max(LENGTHS[r] for r in rows) - min(LENGTHS[r] for r in rows) for rows in batches]
    assert sum(spread) / len(spread) < 3  # a batch at random spans about 18
    middle = [LENGTHS[rows[0]] for rows in batches]
    assert middle != sorted(middle)


def test_two_arms_see_the_same_problems_in_the_same_order() -> None:
    lengths = [len(lesson.prompt) for lesson in LESSONS]
    short = [lesson.model_copy(update={"completion": "The answer"}) for lesson in LESSONS]
    one, other = batches(examples(), 3, lengths), batches(examples(short, (3,) * 4), 3, lengths)
    assert [one(i, 0, 1).problems for i in range(20)] == [other(i, 0, 1).problems for i in range(20)]
