"""What the models of a pair read: problems with their answers, or with what the subject itself says; and single words.

Legend: D width.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from stillroom.activations import residual_stream
from stillroom.crosscoder.causal import alike
from stillroom.crosscoder.data import Live, one_reading
from stillroom.crosscoder.geometry import shape
from stillroom.crosscoder.measuring import Address
from stillroom.crosscoder.words import functions
from stillroom.decoding import decode_all
from stillroom.records import Finding, Null, Problem
from stillroom.students import Student
from stillroom.students.prompts import completions_ids

SHUFFLED = "shuffled pairs"
COMPONENTS = (None, 2, 5, 10, 20)
BATCH = 128


def answers(student: Student, problems: Sequence[Problem], own_tokens: int) -> list[list[int]]:
    """What follows each question: the right answer in words, or the student's own of at most `own_tokens` tokens."""
    if not own_tokens:
        told = [f"The answer is {problem.answer}." for problem in problems]
        return completions_ids(told, student.manner.style, student.tokenizer)
    asked = student.prompts([problem.question for problem in problems])
    pad = int(student.tokenizer.pad_token_id)
    found: dict[int, list[int]] = {}
    with torch.inference_mode():
        for done in decode_all(student.model, asked, own_tokens, pad, student.stops, BATCH):
            found |= {row: [*said.ids, *student.stops[: int(said.stopped)]] for row, said in done.items()}
    return [found[row] for row in range(len(problems))]


def source(people: Mapping[str, Student], problems: Sequence[Problem], said: Sequence[list[int]], layer: int) -> Live:
    """The problems, and after each the tokens `said`, as all of them read them."""
    ids = {
        name: [
            [*asked, *row]
            for asked, row in zip(student.prompts([problem.question for problem in problems]), said, strict=True)
        ]
        for name, student in people.items()
    }
    return Live(dict(people), one_reading(ids), layer)


@torch.inference_mode()
def last_activations(student: Student, texts: Sequence[str], layer: int, before: str) -> torch.Tensor:
    """The residual stream (texts, D) at each text's last token, after the words `before` or alone at position 0."""
    rows: list[list[int]] = student.tokenizer([before + text for text in texts], add_special_tokens=False)["input_ids"]
    found: dict[int, torch.Tensor] = {}
    for batch in alike(rows, BATCH):
        ids_BT = torch.tensor([rows[row] for row in batch], device=student.model.device)
        with residual_stream(student.model) as stream:
            student.model(input_ids=ids_BT, logits_to_keep=1, use_cache=False)
        found |= zip(batch, stream[layer][:, -1].float().cpu(), strict=True)
    return torch.stack([found[row] for row in range(len(rows))])


def geometry(
    address: Address, pair: Mapping[str, Student], layer: int
) -> tuple[dict[str, dict[str, Any]], list[Finding]]:
    """Parallelogram losses of the functions that the tokenizer has words for, in both models, raw and in principal
    components, in a sentence and at position 0; the curves, with those of `SHUFFLED` words, are without reduction."""
    curves: dict[str, dict[str, Any]] = {}
    findings = []
    for name, before, words in functions(next(iter(pair.values())).tokenizer):
        alone = () if " + " in words[0][0] else (("position 0", ""),)  # several words have no reading at position 0
        for where, first in (("in context", before), *alone):
            for person, student in pair.items():
                inputs, outputs = ([w[side] for w in words] for side in (0, 1))
                input_PD, output_PD = (last_activations(student, texts, layer, first) for texts in (inputs, outputs))
                for count in COMPONENTS:
                    found = shape(input_PD, output_PD, count)
                    kept = "all dimensions" if count is None else f"{count} components"
                    null = Null(name=SHUFFLED, **found.null._asdict())
                    metric = f"parallelogram loss of {name} in {person}, {kept}"
                    findings.append(address.finding(metric, found.loss, len(words), [null], where))
                    if count is None and where == "in context":
                        drawn = {person: found.cumulative, f"{person}, {SHUFFLED}": found.shuffled}
                        curves.setdefault(name, {}).update(drawn)
    return curves, findings
