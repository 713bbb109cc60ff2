"""Doors to questions, rationales and verdicts: teach, compliance, fetch, grade."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from stillroom.cli.app import Json, app, emit, refuse_output, store_root
from stillroom.errors import UsageError


@app.command()
def teach(
    questions: Annotated[Path, typer.Argument(help="JSON lines with `question`, and `id` and `answer` if known.")],
    teacher: Annotated[str, typer.Option(help="openai:MODEL, anthropic:MODEL, local:FOLDER, human or recorded:FILE.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the rationales go (JSON lines).")] = Path(
        "cot.jsonl"
    ),
    base_url: Annotated[str | None, typer.Option(help="Another server that speaks the provider's language.")] = None,
    granularity: Annotated[int, typer.Option(help="Level of detail, 1 to 6.")] = 3,
    format: Annotated[str, typer.Option(help="plain, least-to-most, rephrase-and-respond or symbolic.")] = "plain",
    limit: Annotated[int | None, typer.Option("-n", "--limit", min=1, help="The first N questions only.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Replies a question.")] = 1,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 512,
    temperature: Annotated[
        str | None, typer.Option(help="Greedy for one sample, 0.2 for several; `unset` sends none.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight at once.")] = 8,
    requests_per_minute: Annotated[float | None, typer.Option()] = None,
    tokens_per_minute: Annotated[float | None, typer.Option()] = None,
    max_usd: Annotated[float | None, typer.Option(help="Stop before these requests have cost more.")] = None,
    price: Annotated[
        str | None, typer.Option(metavar="IN,OUT", help="US dollars a million input and output tokens.")
    ] = None,
    batch: Annotated[bool, typer.Option("--batch", help="Use the provider's batch interface.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for one reply.")] = 120.0,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Ask again what failed for good.")] = False,
    device: Annotated[str, typer.Option(help="For local models: auto, cpu, cuda ...")] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Estimate tokens and cost; send nothing.")] = False,
    prompt: Annotated[
        bool, typer.Option("--show-prompt", help="Print the first question's prompt; send nothing.")
    ] = False,
) -> None:
    """Ask a teacher for rationales. What was answered is never asked again: run the same command to go on.

    Example: stillroom teach questions.jsonl --teacher openai:gpt-4o-mini --granularity 3 -o cot.jsonl
    """
    from stillroom.store import Store
    from stillroom.teachers import teaching
    from stillroom.teachers.asking import Desk
    from stillroom.teachers.limits import Limits
    from stillroom.teachers.questions import Questions

    options = {
        "base_url": base_url, "granularity": granularity, "format": format, "samples": samples,
        "max_new_tokens": max_new_tokens, "temperature": teaching.parse_temperature(temperature),
    }  # fmt: skip
    pace = {
        "concurrency": concurrency, "requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute,
        "max_usd": max_usd, "price": teaching.parse_price(price), "batch": batch, "timeout_s": timeout,
        "retry_failed": retry_failed,
    }  # fmt: skip
    config = teaching.parse_teacher(teacher, options)
    asked = Questions(questions, limit)
    desk = Desk(Store(store_root()).journal, Limits.parse(pace, "teach"), device)
    if isinstance(config, tuple):
        if prompt or dry_run:
            raise UsageError(f"the teacher {config[0]} is sent nothing: leave --show-prompt and --dry-run out")
        teaching.finish(teaching.copy_and_write(config[0], config[1], asked, output), output)
    elif prompt:
        emit(teaching.show_prompt(config, asked))
    elif dry_run:
        emit(teaching.forecast(config, asked, desk)[0])
    else:
        teaching.finish(teaching.ask_and_write(config, asked, desk, output), output)


@app.command()
def compliance(
    file: Annotated[Path, typer.Argument(help="JSON lines: dataset, id, teacher, granularity, format, cot, answer?")],
    as_json: Json = False,
) -> None:
    """Measure whether teachers obeyed: length, steps, accuracy and diversity of rationales by level and format.

    Example: stillroom compliance teacher_cot.jsonl
    """
    from stillroom.curriculum.compliance import compliance as measure
    from stillroom.curriculum.compliance import read_texts, shown

    report = measure(read_texts(file))
    emit(report.model_dump_json() if as_json else shown(report))


def rationales_of_the_study(source: Path | None, folder: Path) -> str:
    from stillroom.teachers.eit import FILE, build

    if source is None:
        raise UsageError("eit is a repository: check EIT-NLP/Distilling-CoT-Reasoning out and name it with --from")
    built = build(source, folder)
    notes = "".join(f"\n  {count} {what}" for what, count in built.notes.items() if count)
    lacking = f"\n  {len(built.missing)} files that its index names are not there" if built.missing else ""
    return f"fetched  {folder / FILE}  {built.rows} rows in {built.cells} cells{notes}{lacking}"


@app.command()
def fetch(
    datasets: Annotated[list[str], typer.Argument(metavar="DATASET...", help="Names of benchmarks, such as gsm8k.")],
    source: Annotated[Path | None, typer.Option("--from", help="Copy from this folder, not from the hub.")] = None,
    to: Annotated[Path | None, typer.Option(help="The data folder: $STILLROOM_DATA, else ./data.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Bring and replace files that are there.")] = False,
    as_json: Json = False,
) -> None:
    """Bring benchmarks into the data folder: the model hub's own splits, or local files that are read first.

    `eit` stands for the recorded rationales of the granularity study, built from a checkout of its repository.

    A file that is there and whole is not brought again, so the same command goes on after an interruption.

    Example: stillroom fetch gsm8k svamp --from ~/downloads
    """
    from stillroom.tasks.fetching import fetch as bring

    folder = to or Path(os.environ.get("STILLROOM_DATA") or "data")
    if "eit" in datasets:
        emit(rationales_of_the_study(source, folder))
        datasets = [name for name in datasets if name != "eit"]
    for done in bring(datasets, folder, source, again):
        row = {"file": str(folder / done.file), "fate": done.fate, **done.entry.model_dump()}
        emit(json.dumps(row) if as_json else f"{row['fate']:9}{row['file']}  {row['rows']} rows  {row['source']}")


@app.command()
def grade(
    file: Annotated[
        Path, typer.Argument(help="JSON lines: kind, gold, prediction_text, perhaps choices; `-` is stdin.")
    ],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the verdicts to this file.")] = None,
) -> None:
    """Grade anybody's outputs: each line comes back with its verdict, in order; bad lines are named on stderr.

    Kinds are numeric, math, choice, boolean and text. Exit code 1 when a line could not be graded.

    Example: stillroom grade predictions.jsonl -o verdicts.jsonl
    """
    from contextlib import nullcontext

    from stillroom.files import stream_atomic
    from stillroom.tasks.grading import grade_lines

    refuse_output(output, None if str(file) == "-" else file)
    bad: list[int] = []

    def complain(number: int, reason: str) -> None:
        bad[:] = [number]
        print(f"stillroom: {file}:{number}: {reason}", file=sys.stderr)  # noqa: T201

    try:
        source = nullcontext(sys.stdin.buffer) if str(file) == "-" else file.open("rb")
    except OSError as error:
        raise UsageError(
            f"{file}: cannot be read ({error.strerror}); give a file of JSON lines, or - for stdin"
        ) from None
    with source as lines, stream_atomic(output) if output else nullcontext(sys.stdout.buffer) as out:
        try:
            for line in grade_lines(lines, complain):
                out.write(line)
            out.flush()
        except BrokenPipeError:  # the reader of a pipe has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if bad:
        raise typer.Exit(1)
