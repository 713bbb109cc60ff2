"""Supervised fine-tuning: cross-entropy on the completion and the end of the text, and on nothing else.

*Distilling step-by-step* (Hsieh et al. 2023, arXiv 2305.02301, eq. 3) is the same with two terms: L = L_label +
λ L_rationale, each a mean over the labels of its own lessons.

Legend: B rows, T tokens, K positions whose next token may be a label, V vocabulary.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from transformers import PreTrainedModel

from stillroom.errors import DataError
from stillroom.records import Lesson
from stillroom.students.batches import CE, IGNORED, Example, longest_lesson
from stillroom.students.folders import Student
from stillroom.students.prompts import completions_ids

SHOWN = 5
"""How many offending lessons an error names."""


class SftObjective(nn.Module):
    """Weighted mean negative log-likelihoods of the labels, in nats a token: the term `ce`, or one for each task."""

    def __init__(self, model: PreTrainedModel, weights: Mapping[str, float] = {CE: 1.0}) -> None:
        super().__init__()
        self.model = model
        self.weights = dict(sorted(weights.items()))

    def forward(
        self,
        input_ids_BT: Tensor,
        labels_BK: Tensor,
        keep_K: Tensor,
        position_ids_BT: Tensor | None = None,
        term_B: Tensor | None = None,
    ) -> dict[str, Tensor]:
        logits_BKV = kept_logits(self.model, input_ids_BT, keep_K, position_ids_BT)
        if term_B is None:
            ce = nn.functional.cross_entropy(logits_BKV.flatten(0, 1), labels_BK.flatten(), ignore_index=IGNORED)
            return {name: weight * ce for name, weight in self.weights.items()}
        loss_BK = nn.functional.cross_entropy(
            logits_BKV.transpose(1, 2), labels_BK, ignore_index=IGNORED, reduction="none"
        )
        terms = {}
        for number, (name, weight) in enumerate(self.weights.items()):
            own_BK = (labels_BK != IGNORED) & (term_B == number)[:, None]
            terms[name] = weight * (loss_BK * own_BK).sum() / own_BK.sum().clamp(min=1)
        return terms


def kept_logits(model: PreTrainedModel, input_ids_BT: Tensor, keep_K: Tensor, position_ids_BT: Tensor | None) -> Tensor:
    """Logits (B, K, V) in float32, computed only where a label follows."""
    places = {} if position_ids_BT is None else {"position_ids": position_ids_BT}
    output = model(input_ids=input_ids_BT, logits_to_keep=keep_K, use_cache=False, **places)
    return output.logits.float()  # type: ignore[no-any-return]


def encode(lessons: Sequence[Lesson], student: Student) -> list[Example]:
    """Lessons as tokens, each prompt as the student is asked. Raises `DataError` for what cannot be learned, with the
    first lessons that offend."""
    if not lessons:
        raise DataError("there are no lessons to learn from: the training split is empty")
    prompts = student.taught([lesson.prompt for lesson in lessons])
    answers = completions_ids([lesson.completion for lesson in lessons], student.manner.style, student.tokenizer)
    examples = [
        Example(lesson.problem, prompt, answer, lesson.term)
        for lesson, prompt, answer in zip(lessons, prompts, answers, strict=True)
    ]
    empty = [lesson.problem for lesson in lessons if not lesson.completion]
    if empty:
        raise DataError(f"{named(empty)}: the completion has no token, so there is nothing to learn")
    most = longest_lesson(student.context)
    long = [f"{example.problem} ({example.length} tokens)" for example in examples if example.length > most]
    if long:
        raise DataError(
            f"{named(long)}: longer than the {most} tokens that the model has room for: raise "
            "base.scratch.positions, choose a model with a longer context, or leave such problems out"
        )
    if not any(example.labels for example in examples):
        raise DataError(f"{named([e.problem for e in examples])}: no token of any lesson is a label")
    return examples


def named(problems: Sequence[str]) -> str:
    """The first lessons of those that offend, and how many more there are."""
    more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return f"lesson {', '.join(problems[:SHOWN])}{more}"
