"""Steps from the notations of the benchmarks: GSM8K's calculator notes and SVAMP's bracketed equations."""

import re
from collections.abc import Iterable

from stillroom.records import Step
from stillroom.tasks.benchmarks.repair import number

NOTE = re.compile(r"<<([^<>]*)>>")


def note_steps(notes: Iterable[str]) -> tuple[Step, ...]:
    """The steps of `48/2=24`, `5+7=12`: what stands before the first `=`, and the value behind the last one.

    Raises `ValueError` for a note without a value that is a number.
    """
    steps = []
    for note in notes:
        expression, *values = (part.strip() for part in note.split("="))
        value = number(values[-1]) if values else None
        if value is None or not expression:
            raise ValueError(f"the step {note!r} has no number as its value")
        steps.append(Step(expression=expression, value=value))
    return tuple(steps)


def equation_steps(equation: str) -> tuple[Step, ...]:
    """The steps of `( ( 4.0 + 13.0 ) * 15.0 )`: `4 + 13` gives 17, `17 * 15` gives 255."""
    text, steps = equation.replace(" ", ""), []
    plain = r"-?\d+(?:\.\d+)?"
    innermost = re.compile(rf"\(({plain})([-+*/])({plain})\)")
    while match := innermost.search(text):
        left, op, right = float(match[1]), match[2], float(match[3])
        if op == "/" and right == 0:
            raise ValueError(f"the equation {equation!r} divides by zero")
        value = {"+": left + right, "-": left - right, "*": left * right, "/": left / right if right else 0.0}[op]
        steps.append(Step(expression=f"{left:.10g} {op} {right:.10g}", value=f"{value:.10g}"))
        text = text[: match.start()] + f"{value:.10f}" + text[match.end() :]
    if not re.fullmatch(plain, text):
        raise ValueError(f"the equation {equation!r} is not a chain of + - * / in brackets")
    return tuple(steps)
