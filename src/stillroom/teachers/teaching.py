"""`stillroom teach`: questions from a file, one teacher, rationales to a file of the fields of `teacher_cot.jsonl`."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from stillroom.errors import DataError, StoreError, TeacherError, UsageError, unknown
from stillroom.files import lines_atomic, numbered_lines, resolved
from stillroom.progress import say
from stillroom.records import Problem, Rationale
from stillroom.teachers import TEACHERS, prompts
from stillroom.teachers.asking import AskConfig, Asks, Desk, Estimate, answers, conclude, estimate, gather
from stillroom.teachers.journal import Journal
from stillroom.teachers.limits import Limits
from stillroom.teachers.prices import DATE, price_of
from stillroom.teachers.questions import Questions, read_row
from stillroom.teachers.running import Tally

ARGUMENT = {"openai": "model", "anthropic": "model", "local": "folder"}


def parse_teacher(text: str, options: dict[str, Any]) -> Any:
    """The config that `openai:MODEL`, `anthropic:MODEL`, `local:FOLDER` or `human` stands for, with further fields."""
    name, _, argument = text.partition(":")
    if name not in (*ARGUMENT, "human", "recorded"):
        raise UsageError(unknown("teacher", name, [*ARGUMENT, "human", "recorded"]))
    if name == "recorded" and not argument:
        raise UsageError("--teacher recorded: expected recorded:FILE")
    if name in ARGUMENT:
        if not argument:
            raise UsageError(f"--teacher {name}: expected {name}:{ARGUMENT[name].upper()}")
        options = {**options, ARGUMENT[name]: argument}
        given = {"name": name, **{k: v for k, v in options.items() if v is not None}}
        return TEACHERS[name].config.parse(given, "--teacher")
    return name, argument


def parse_temperature(text: str | None) -> float | str | None:
    """`0.7`, or `unset` to send none."""
    return (
        text if text is None or text == "unset" else _number(text, "--temperature", "a number, or unset to send none")
    )


def parse_price(text: str | None) -> list[float] | None:
    """`2.5,10`: US dollars a million input and output tokens."""
    how = "two numbers, as in 2.5,10: US dollars a million input and output tokens"
    if text is None:
        return None
    if text.count(",") != 1:
        raise UsageError(f"--price {text}: expected {how}")
    return [_number(part, "--price", how) for part in text.split(",")]


def _number(text: str, option: str, expected: str) -> float:
    try:
        if math.isfinite(number := float(text)):
            return number
    except ValueError:
        pass
    raise UsageError(f"{option} {text}: expected {expected}")


def show_prompt(config: AskConfig, questions: Questions) -> str:
    """What is sent about the first question."""
    problem = next(iter(questions), None)
    if problem is None:
        raise DataError(f"{questions.path}: no question to ask")
    chat = prompts.messages(problem, config.granularity, config.format)
    return "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in chat)


class Outcome(NamedTuple):
    """What was written where. `failed` counts the requests that got no rationale."""

    written: int
    failed: int
    failures: Path


def row_of(problem: Problem, teacher: str, granularity: int | None, format: str, cot: str) -> dict[str, Any]:
    return {
        "dataset": problem.task, "id": problem.id, "question": problem.question, "answer": problem.answer,
        "kind": problem.kind,
        "teacher": teacher, "granularity": granularity, "format": format, "cot": cot,
    }  # fmt: skip


def failures_of(output: Path) -> Path:
    """Where the requests stand that got no rationale."""
    return output.with_name(f"{output.stem}.failed.jsonl")


def check_output(output: Path, *sources: Path) -> None:
    """Raises `UsageError` or `StoreError` for a file that cannot be written, before anything is asked."""
    read = {resolved(source) for source in sources}
    if resolved(output) in read or resolved(failures_of(output)) in read:
        raise UsageError(f"{output} or {failures_of(output).name} beside it is what is read: give another file with -o")
    if output.is_dir():
        raise UsageError(f"{output} is a folder: give a file with -o")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(output, error) from None
    if not os.access(output.parent, os.W_OK):
        raise _unwritable(output, PermissionError("its folder is not writable"))


def _unwritable(output: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{output}: cannot be written ({error.strerror or error}); what was answered is in the journal: mend that, or "
        "give another file with -o, and run again"
    )


def ask_and_write(config: AskConfig, questions: Questions, desk: Desk, output: Path) -> Outcome:
    """Asks, then writes what the journal holds: rationales to `output`, failures beside it."""
    check_output(output, questions.path)
    asks = Asks.of(config, questions)
    with Journal(desk.journal) as journal:
        count = sum(1 for _ in questions)
        if not count:
            raise DataError(f"{questions.path}: no question to ask")
        tally = gather(asks, journal, desk, count * config.samples)
        conclude(tally)
        try:
            return _write(asks, journal, output, tally, desk.limits)
        except OSError as error:
            raise error if isinstance(error, StoreError) else _unwritable(output, error) from None


def _write(asks: Asks, journal: Journal, output: Path, tally: Tally, limits: Limits) -> Outcome:
    failures = failures_of(output)
    config, written, failed = asks.config, 0, 0
    price = limits.price_of(*asks.who)
    with lines_atomic(output) as add, lines_atomic(failures) as add_failure:
        for item, row in answers(asks, journal):
            if row is not None and row.reply is not None:
                reply = row.reply
                line = row_of(item.problem, config.name, config.granularity, config.format, reply.text)
                usd = price.usd(reply.input_tokens, reply.output_tokens, row.batch) if price else None
                asked = {"sample": item.ask.sample, "finish": reply.finish, "model": item.ask.model}
                cost = {"input_tokens": reply.input_tokens, "output_tokens": reply.output_tokens, "usd": usd}
                add({**line, **asked, **cost})
                written += 1
            else:
                reason = row.reason if row is not None else f"no answer yet: {tally.last_reason}"
                add_failure({"id": item.problem.id, "sample": item.ask.sample, "reason": reason})
                failed += 1
    if not failed:
        failures.unlink()
    return Outcome(written, failed, failures)


def copy_and_write(name: str, argument: str, questions: Questions, output: Path) -> Outcome:
    """The teachers that ask nobody: the people who wrote the benchmark, or a file that was written before."""
    check_output(output, questions.path, Path(argument))
    failures = failures_of(output)
    written, taught = 0, set()
    try:
        with lines_atomic(output) as add:
            for line in _recorded(Path(argument), questions) if name == "recorded" else _human(questions):
                add(line)
                written += 1
                taught.add(line["id"])
            if not written:
                raise DataError(f"{argument or questions.path}: holds no rationale for these questions")
    except OSError as error:
        raise _unwritable(output, error) from None
    if left_out := sum(1 for problem in questions if problem.id not in taught):
        say(f"! {left_out} questions have no rationale there and are left out")
    return Outcome(written, 0, failures)


def _human(questions: Questions) -> Iterator[dict[str, Any]]:
    with_solution = [problem for problem in questions if problem.solution]
    found: list[Rationale] = TEACHERS["human"].write(TEACHERS["human"].config(), with_solution, Path(), Desk())
    for problem, rationale in zip(with_solution, found, strict=True):  # an id may stand under two tasks
        line = row_of(problem, "human", None, "plain", rationale.text)
        yield {**line, "sample": 0, "finish": "stop"}


def _recorded(path: Path, questions: Questions) -> Iterator[dict[str, Any]]:
    wanted = {problem.id for problem in questions}
    met: dict[int, int] = {}
    for number, line in numbered_lines(path):
        row = read_row(line)
        if row is None or not isinstance(row.get("id"), str) or not isinstance(row.get("cot"), str):
            raise DataError(f"{path}:{number}: no rationale: expected JSON with the texts id and cot; mend this line")
        if row["id"] in wanted:
            said = [row.get(field) for field in ("dataset", "id", "teacher", "granularity", "format", "sample")]
            first = met.setdefault(hash(json.dumps(said)), number)
            if first != number:
                raise DataError(f"{path}:{number}: the rationale of line {first} once more; remove one of them")
            yield {"sample": 0, "finish": "stop", **row}


def forecast(config: AskConfig, questions: Questions, desk: Desk) -> tuple[str, Estimate]:
    """What a run would send and cost, without sending anything."""
    asks = Asks.of(config, questions)
    with Journal(desk.journal) as journal:
        found = estimate(asks, journal, desk.limits)
    todo = found.requests - found.recorded
    lines = [
        f"{found.requests} requests to {asks.who[0]}:{asks.who[1]}: {found.recorded} recorded, {todo} to send",
        f"about {found.input_tokens} input tokens, at most {found.output_tokens} output tokens to come",
    ]
    if desk.limits.price_of(*asks.who) is None:
        lines.append(f"cost unknown: the table of {DATE} has no price for this model at {asks.who[2]}; give --price")
    else:
        origin = "your price" if desk.limits.price else f"prices of {DATE}"
        lines.append(f"at most {found.most_usd:.4f} USD to come, {found.spent_usd:.4f} spent ({origin})")
    return "\n".join(lines), found


def finish(outcome: Outcome, output: Path) -> None:
    say(f"{outcome.written} rationales in {output}")
    if outcome.failed:
        first = json.loads(next(line for _, line in numbered_lines(outcome.failures)))
        raise TeacherError(
            f"{outcome.failed} of {outcome.written + outcome.failed} requests gave no rationale, as {first['id']}: "
            f"{first['reason']}; all are listed in {outcome.failures}; the others are kept. Mend the questions, or "
            "run the same command with --retry-failed"
        )


def journal_report(path: Path) -> list[dict[str, Any]]:
    """The journal by teacher, model, endpoint and status, with tokens and cost (None where the price is unknown)."""
    if not path.is_file():
        raise UsageError(f"{path}: there is no journal: `stillroom teach` begins one")
    with Journal(path) as journal:
        found = list(journal.summary())
    for row in found:
        price = price_of(row["teacher"], row["model"], row["endpoint"])
        cost = price.usd(row["input_tokens"], row["output_tokens"], bool(row["batch"])) if price else None
        row["usd"] = None if cost is None else round(cost, 6)
    return found
