"""The text on which a student is read, and which of its positions hold what.

A text is the question as the student is asked it (with its pauses, or with the thoughts that it thinks about it), then
words of an answer. Thoughts enter as the vectors that they are, so that one pass reads the whole. Numbers of a question
are found in the tokens themselves, whatever the style that stands around it.

Legend: B rows, T tokens, K thoughts, d model width, V vocabulary.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from stillroom.errors import DataError
from stillroom.lenses.reading import ANSWER as SAID
from stillroom.lenses.reading import NUMBER, padded, tokens
from stillroom.records import Problem
from stillroom.students import Student
from stillroom.students.thoughts import think_and_answer

SIGNS = re.compile(r"[-+*/×÷−=]")
SENTENCE = re.compile(r"[^.?!\n]*[.?!\n]?")
END = "question end"
ANSWER = "answer"
Spans = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Text:
    ids: list[int]
    spans: Spans
    """From the name of a class of positions to the positions in it. `number 1`, `number 2` … are the question's
    numbers, `operands` all of them, `operators` the other words of their sentences and the signs of written steps."""
    thoughts_Kd: Tensor
    """What stands at the positions `thoughts` in place of the tokens' embeddings."""
    words: int
    """The position at which the words after the question, its pauses and its thoughts begin."""


def texts(student: Student, problems: Sequence[Problem], worked: bool = False) -> list[Text]:
    """Each problem as this student is asked it, up to where the answer's value follows; `worked` has the problem's
    steps written out before that."""
    prompts = student.prompts([problem.question for problem in problems])
    thought = _thoughts(student, prompts)
    return [
        _text(student, problem, prompt, thoughts_Kd, worked)
        for problem, prompt, thoughts_Kd in zip(problems, prompts, thought, strict=True)
    ]


def _thoughts(student: Student, prompts: Sequence[Sequence[int]]) -> list[Tensor]:
    told = student.manner.thoughts
    if told is None or not told.count:
        return [torch.empty(0, 0)] * len(prompts)
    return [answer.thoughts_Kd for answer in think_and_answer(student.thinker(), prompts, told.count, 1)]


def _text(student: Student, problem: Problem, prompt: list[int], thoughts_Kd: Tensor, worked: bool) -> Text:
    asked = prompt[: len(prompt) - student.manner.pauses]
    begin, end = student.ends_of_thoughts()
    ids = [*prompt, *begin]
    spans = {**question_spans(student, asked, problem.question), END: (len(asked) - 1,)}
    spans["pauses"] = tuple(range(len(asked), len(prompt)))
    spans["thoughts"] = tuple(range(len(ids), len(ids) + len(thoughts_Kd)))
    spans |= {f"thought {j}": (at,) for j, at in enumerate(spans["thoughts"], 1)}
    ids += [0] * len(thoughts_Kd) + list(end)
    words = len(ids)
    if worked:
        written, lines = _steps(student, problem, len(ids))
        ids += written
        spans |= lines
        pieces = _pieces(student, ids)
        signs = [at for at in lines["steps"] if SIGNS.fullmatch(pieces[at].strip())]
        spans["operators"] = (*spans.get("operators", ()), *signs)
    else:
        ids += tokens(student, SAID)
    spans[ANSWER] = (len(ids) - 1,)
    return Text(ids, spans, thoughts_Kd, words)


def _steps(student: Student, problem: Problem, start: int) -> tuple[list[int], dict[str, tuple[int, ...]]]:
    """The problem's steps as the lessons write them, then the words before the answer; and where each step stands."""
    ids = tokens(student, "<reasoning>\n")
    spans: dict[str, tuple[int, ...]] = {"steps": ()}
    for number, step in enumerate(problem.steps, 1):
        line = tokens(student, f"Step {number}: {step.expression} = {step.value}\n")
        spans[f"step {number}"] = tuple(range(start + len(ids), start + len(ids) + len(line)))
        spans["steps"] += spans[f"step {number}"]
        ids += line
    return [*ids, *tokens(student, f"</reasoning>\n{SAID}")], spans


def question_spans(student: Student, asked: Sequence[int], question: str) -> dict[str, tuple[int, ...]]:
    """Where the question's numbers stand in the tokens, and the other words of the sentences that hold a number after
    the first; nothing at all where the tokens do not spell the question's numbers, as a small vocabulary may not."""
    pieces = _pieces(student, asked)
    ends = list(accumulate(map(len, pieces)))
    text = "".join(pieces)
    wanted, found = NUMBER.findall(question), list(NUMBER.finditer(text))
    starts = [i for i in range(len(found) - len(wanted) + 1) if _spelled(found[i : i + len(wanted)]) == wanted]
    if not starts:
        return {}

    def over(first: int, last: int) -> tuple[int, ...]:
        """The tokens that hold a character of text[first:last]."""
        return tuple(i for i, end in enumerate(ends) if end > first and end - len(pieces[i]) < last)

    numbers = [over(*match.span()) for match in found[starts[-1] :][: len(wanted)]]
    spans = {f"number {i}": at for i, at in enumerate(numbers, 1)}
    spans["operands"] = tuple(at for number in numbers for at in number)
    told = {at for number in numbers[1:] for at in number}
    sentences = [over(*match.span()) for match in SENTENCE.finditer(text) if match[0].strip()]
    around = {at for sentence in sentences if told & set(sentence) for at in sentence}
    spans["operators"] = tuple(sorted(around - set(spans["operands"])))
    return spans


def spelled(student: Student, problem: Problem) -> bool:
    """Whether the student's tokens spell the question's numbers, so that their positions are known."""
    return bool(question_spans(student, student.prompt(problem.question), problem.question))


def _spelled(matches: Sequence[re.Match[str]]) -> list[str]:
    return [match[0] for match in matches]


def _pieces(student: Student, ids: Sequence[int]) -> list[str]:
    """The text of each token, with the blank that its mark stands for."""
    tokens: Any = student.tokenizer.convert_ids_to_tokens(list(ids))
    return [token.replace("Ġ", " ").replace("▁", " ").replace("Ċ", "\n") for token in tokens]


def value_token(student: Student, value: str) -> int:
    """The first token of a value that follows `The answer is`."""
    return tokens(student, f" {value}")[0]


def batch(student: Student, rows: Sequence[Text]) -> dict[str, Tensor]:
    """The inputs of one pass, padded on the right, where no token of a text sees the padding."""
    device = student.model.device
    ids_BT = padded(student, [row.ids for row in rows])
    if not any(len(row.thoughts_Kd) for row in rows):
        return {"input_ids": ids_BT}
    inputs_BTd = student.model.get_input_embeddings()(ids_BT).clone()
    for i, row in enumerate(rows):
        inputs_BTd[i, list(row.spans["thoughts"])] = row.thoughts_Kd.to(device, inputs_BTd.dtype)
    return {"inputs_embeds": inputs_BTd}


@torch.inference_mode()
def answer_logits(student: Student, rows: Sequence[Text]) -> Tensor:
    """Logits (B, V) in float32 of what follows each text. Raises `DataError` where they are no numbers."""
    ends_B = torch.tensor([len(row.ids) - 1 for row in rows], device=student.model.device)
    keep_K, which_B = torch.unique(ends_B, return_inverse=True)
    out: Any = student.model(**batch(student, rows), logits_to_keep=keep_K, use_cache=False)
    logits_BV: Tensor = out.logits[torch.arange(len(rows), device=ends_B.device), which_B].float()
    if not logits_BV.isfinite().all():
        raise DataError("a student's outputs are no finite numbers: its weights or activations hold NaN or infinity")
    return logits_BV.cpu()
