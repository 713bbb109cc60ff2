"""Thinking without words: students that reason in continuous thoughts, answered in batches, disturbed and traced.

`think_and_answer` is how such a student answers; `answer_variants` answers each question in many ways that share what
they can; `trace_variants` lists the ways of a full trace. What a thought and each intervention mean: docs/thoughts.md.
"""

from collections.abc import Sequence

from stillroom.students.thoughts.engine import MEMORY, answer_variants, think_and_answer
from stillroom.students.thoughts.interventions import Intervention, Mean, Noise, Patch, Skip, Swap, Zero
from stillroom.students.thoughts.statistics import Statistics, statistics
from stillroom.students.thoughts.thinker import Answer, Thinker, Variant

__all__ = [
    "Answer", "Intervention", "Mean", "Noise", "Patch", "Skip", "Statistics", "Swap", "Thinker", "Variant", "Zero",
    "answer_variants", "statistics", "think_and_answer", "trace", "trace_variants",
]  # fmt: skip


def trace_variants(thoughts: int, partners: Sequence[int], scale: float = 1.0, seed: int = 0) -> dict[str, Variant]:
    """The ways of a full trace by name: `zero 0` … `swap 5`, `early 0` … `early 6` (the undisturbed run), `off`."""
    steps = range(thoughts)
    return {
        **{f"zero {i}": Variant(thoughts, (Zero(i),)) for i in steps},
        **{f"mean {i}": Variant(thoughts, (Mean(i),)) for i in steps},
        **{f"noise {i}": Variant(thoughts, (Noise(i, scale, seed),)) for i in steps},
        **{f"swap {i}": Variant(thoughts, (Swap(i, tuple(partners)),)) for i in steps},
        **{f"early {j}": Variant(j) for j in range(thoughts + 1)},
        "off": Variant(None),
    }


def trace(
    thinker: Thinker,
    prompts: Sequence[Sequence[int]],
    thoughts: int,
    new_tokens: int,
    partners: Sequence[int],
    scale: float = 1.0,
    seed: int = 0,
    *,
    memory: int = MEMORY,
) -> list[dict[str, Answer]]:
    """For each question its answers in all of `trace_variants`, by name. Raises as `answer_variants` does."""
    variants = trace_variants(thoughts, partners, scale, seed)
    answers = answer_variants(thinker, prompts, list(variants.values()), new_tokens, memory=memory)
    return [dict(zip(variants, row, strict=True)) for row in answers]
