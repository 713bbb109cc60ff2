"""From a row to a problem, one function a notation. The caller puts in the task's name and the problem's id.

A reader mends what it can and says so; `Refused` tells of a row that becomes no problem, `ValueError` of one that is
broken.
"""

import re
from collections.abc import Sequence
from typing import Any

from stillroom.records import Kind, Problem
from stillroom.tasks import numeric
from stillroom.tasks.benchmarks.kinds import LETTERS, infer, letter_of
from stillroom.tasks.benchmarks.notes import Notes, Refused
from stillroom.tasks.benchmarks.repair import balanced, boxed, clean, decimal, number
from stillroom.tasks.benchmarks.rows import Row
from stillroom.tasks.benchmarks.steps import NOTE, equation_steps, note_steps

MARK = re.compile(r"^\s*\(?[A-J]\s*[).:]\s*")


def problem(question: str, answer: str, kind: Kind = "numeric", **more: Any) -> Problem:
    if not question.strip():
        raise Refused("the question is empty")
    return Problem(task="", id="", question=question.strip(), answer=answer, kind=kind, **more)


def kind_of(row: Row, field: str) -> str:
    """The benchmark's own name for the sort of problem, where the row has one."""
    found = row.get(field)
    return found.strip() if isinstance(found, str) else ""


def number_in(text: str, notes: Notes) -> str:
    """A gold that must be a number, without its dress."""
    plain = number(text)
    if plain is None:
        raise Refused("the answer is no number")
    if plain != text.strip():
        notes.mended("comma, currency sign, ~ or trailing dot taken off the answer")
    return plain


def gsm8k(row: Row, notes: Notes) -> Problem:
    """A worked solution with calculator notes, then `#### N`."""
    solution, mark, answer = str(row["answer"]).rpartition("####")
    if not mark:
        raise ValueError("the answer has no `####`")
    worked = NOTE.sub("", solution).strip()
    steps = note_steps(NOTE.findall(solution))
    return problem(str(row["question"]), number_in(answer, notes), steps=steps, solution=worked)


def gsm8k_aug(row: Row, notes: Notes) -> Problem:
    """Machine-made steps `<<a+b=c>>`, some of which do not lead to the answer."""
    answer = number_in(str(row["answer"]), notes)
    try:
        steps = note_steps(note.strip("<> ") for note in row["steps"])
    except ValueError:
        notes.doubtful("a step has no number as its value, so there are no steps")
        steps = ()
    if not row["steps"]:
        notes.doubtful("there are no steps")
    elif steps and not numeric.same(answer, steps[-1].value):
        notes.doubtful("the last step does not give the answer, so there are no steps")
        steps = ()
    return problem(str(row["question"]), answer, steps=steps)


def svamp(row: Row, notes: Notes) -> Problem:
    """Body and question in two fields; the steps are read from the equation, innermost first."""
    steps = equation_steps(str(row["Equation"]))
    answer = f"{float(row['Answer']):.10g}"
    return problem(
        f"{row['Body']} {row['Question']}", answer, steps=steps, story=row["Body"], type=kind_of(row, "Type")
    )


def multiarith(row: Row, notes: Notes) -> Problem:
    """`X=((32.0+42.0)-35.0)`; the model hub's copy has no equations."""
    (answer,), equations = row["lSolutions"], row.get("lEquations") or []
    steps = equation_steps(equations[0].partition("=")[2]) if equations else ()
    return problem(row["sQuestion"], decimal(answer), steps=steps)


def asdiv(row: Row, notes: Notes) -> Problem:
    """`9 (apples)`: the unit goes; what is no number keeps the kind that it has (yes, 5:45, Mary)."""
    answer, bracket, _ = str(row["answer"]).partition(" (")
    if bracket:
        notes.mended("the unit in brackets taken off the answer")
    plain = number(answer)
    kind: Kind = "numeric" if plain else infer(answer)
    return problem(
        f"{row['body']} {row['question']}",
        plain or answer.strip(),
        kind,
        story=row["body"],
        type=kind_of(row, "solution_type"),
    )


def target(row: Row, notes: Notes) -> Problem:
    """`input` and a number `target`, as in GSM-Hard and MAWPS."""
    return problem(row["input"], decimal(row["target"]), type=kind_of(row, "type"))


def mathematics(row: Row, notes: Notes) -> Problem:
    r"""MATH: LaTeX; the answer is what the solution's last `\boxed` holds where it is not given or cut at a brace."""
    answer, solution = str(row.get("answer") or "").strip(), str(row["solution"])
    if not answer:
        answer = boxed(solution) or ""
    elif not balanced(answer):
        notes.mended("an answer cut at a brace, read again from the solution")
        answer = boxed(solution) or ""
    if not answer or not balanced(answer):
        raise Refused("no whole answer, neither given nor boxed in the solution")
    return problem(row["problem"], answer, "math", solution=solution, type=kind_of(row, "type"))


def lettered(question: str, texts: Sequence[str], letter: str, solution: str, notes: Notes) -> Problem:
    """A question with its options under it. An answer whose text another option has too is no single letter."""
    if not letter:
        raise Refused("the answer is hidden")
    if letter not in LETTERS[: len(texts)]:
        raise ValueError(f"the answer {letter!r} is none of the {len(texts)} options")
    options = [clean(text, notes).strip() for text in texts]
    alike = [text for text in options if options.count(text) > 1]
    if options[LETTERS.index(letter)] in alike:
        notes.doubtful("another option says the same as the right one")
    elif alike:
        notes.add("kept", "two wrong options say the same")
    return offered(question, options, letter, "choice", solution)


def offered(stem: str, options: Sequence[str], answer: str, kind: Kind, solution: str) -> Problem:
    """A question as it is asked, its options under it, with the stem kept apart."""
    listed = "".join(f"\n({mark}) {text}" for mark, text in zip(LETTERS, options, strict=False))
    return problem(stem.strip() + listed, answer, kind, choices=tuple(options), solution=solution, story=stem.strip())


def aqua(row: Row, notes: Notes) -> Problem:
    texts = [MARK.sub("", option, count=1) for option in row["options"]]
    return lettered(row["question"], texts, row["correct"], row["rationale"] or "", notes)


def labelled(stem: str, choices: list[Row], key: str, notes: Notes) -> Problem:
    """Options as `{label, text}`; labels need not be letters, nor in order."""
    labels = [choice["label"] for choice in choices]
    if key and key not in labels:
        raise ValueError(f"the answer {key!r} is none of the labels {', '.join(labels)}")
    letter = LETTERS[labels.index(key)] if key else ""
    return lettered(stem, [choice["text"] for choice in choices], letter, "", notes)


def csqa(row: Row, notes: Notes) -> Problem:
    return labelled(row["question"]["stem"], row["question"]["choices"], row["answerKey"], notes)


def openbookqa(row: Row, notes: Notes) -> Problem:
    return labelled(row["question_stem"], row["choices"], row["answerKey"], notes)


def strategyqa(row: Row, notes: Notes) -> Problem:
    """The supporting facts stand as the solution."""
    if not isinstance(row["answer"], bool):
        raise ValueError(f"the answer {row['answer']!r} is neither true nor false")
    facts = row["facts"] if isinstance(row["facts"], str) else " ".join(row["facts"])
    return problem(row["question"], "yes" if row["answer"] else "no", "boolean", solution=facts)


def own(row: Row, notes: Notes) -> Problem:
    """A user's question; the kind is inferred where it is not given, and a letter is looked up among the choices."""
    answer, choices = row.get("answer"), [str(choice) for choice in row.get("choices") or ()]
    solution = str(row.get("solution") or "")
    said = ("yes" if answer else "no") if isinstance(answer, bool) else "" if answer is None else str(answer).strip()
    kind = row.get("kind") or ("choice" if choices else infer(said) if said else "text")
    if said and kind == "choice" and choices:
        letter = letter_of(said, choices)
        if letter is None:
            raise ValueError(f"the answer {said!r} is none of the {len(choices)} choices")
        said = letter
    if choices:
        return offered(row["question"], choices, said, kind, solution)
    return problem(row["question"], said, kind, solution=solution)
