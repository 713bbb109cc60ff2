"""The command line: thin doors to the rooms. Exit codes: 0 done, 1 failed, 2 wrong usage, 75 stopped by SIGTERM.

Rooms are imported inside the commands, so that `--help` answers at once and `report` opens without torch.
"""

import json
import os
import shutil
import signal
import sys
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer

from stillroom import __version__
from stillroom.errors import Interrupted, StillroomError, UsageError, unknown

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Distils chains of thought and looks inside what comes out.",
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="Copy the result to this file.")]


def store_root() -> Path:
    return Path(os.environ.get("STILLROOM_STORE", "stills"))


def emit(text: str) -> None:
    print(text)  # noqa: T201


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if show:
        emit(f"stillroom {__version__}")
        raise typer.Exit


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or the path of a .yaml file.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    until: Annotated[str | None, typer.Option(help="Go as far as this stage.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; run and write nothing.")] = False,
    output: Output = None,
) -> None:
    """Run a whole experiment, reusing what the store holds.

    Example: stillroom run abacus students.filler.pauses=4
    """
    from stillroom import pipeline
    from stillroom.recipes import load_recipe
    from stillroom.report.figures import accuracy_table
    from stillroom.store import Store

    cells = load_recipe(recipe, overrides or [])
    plan = pipeline.upto(pipeline.plan(recipe, cells), until)
    store = Store(store_root())
    if dry_run:
        for stage in plan:
            emit(f"{'reuse' if store.find(stage) else 'run':6}{stage.name:28}{stage.stage}/{stage.key}")
        return
    folder = pipeline.run(plan, store, next(iter(cells.values())).settings)
    if os.environ.get("RANK", "0") != "0":
        return
    result = folder / "report.html"
    told = [stage for stage in plan if stage.stage == "comparison"] or [s for s in plan if s.stage == "scores"]
    if told:
        emit(accuracy_table(store.folder(told[0].stage, told[0].key) / "scores.jsonl"))
    emit(f"{result if result.exists() else folder}")
    if output is not None:
        copy(result, output)


def copy(source: Path, target: Path) -> None:
    if not source.exists():
        raise UsageError(f"there is no report to copy to {target}: run the recipe to its end, without --until")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


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
    asked = teaching.Questions(questions, limit)
    desk = Desk(Store(store_root()).journal, Limits.parse(pace, "teach"), device)
    if isinstance(config, tuple):
        teaching.finish(teaching.copy_and_write(config[0], config[1], asked, output), output)
    elif prompt:
        emit(teaching.show_prompt(config, next(iter(asked))))
    elif dry_run:
        emit(teaching.forecast(config, asked, desk)[0])
    else:
        teaching.finish(teaching.ask_and_write(config, asked, desk, output), output)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List what the store holds, oldest first.

    Example: stillroom list --json
    """
    from stillroom.store import Store

    for manifest in Store(store_root()).manifests():
        row = {
            "name": manifest.name,
            "path": f"{manifest.stage}/{manifest.key}",
            "started": manifest.started,
            "seconds": manifest.seconds,
        }
        emit(
            json.dumps(row)
            if as_json
            else f"{row['path']:32}{row['name']:28}{manifest.started[:19]}  {manifest.seconds:8.1f} s"
        )


@app.command()
def show(
    path: Annotated[str, typer.Argument(help="STAGE/KEY as `list` prints it; the key may be cut short. Or `journal`.")],
    as_json: Json = False,
) -> None:
    """Show how one folder of the store came to be, and whether it is still what was committed.

    Example: stillroom show student/3f2a
    """
    from stillroom.store import Store, code_version

    store = Store(store_root())
    if path == "journal":
        from stillroom.teachers.teaching import journal_report

        for row in journal_report(store.journal):
            emit(json.dumps(row, indent=None if as_json else 1))
        return
    known = {f"{m.stage}/{m.key}": m for m in store.manifests()}
    found = [name for name in known if name.startswith(path)]
    if len(found) != 1:
        raise UsageError(
            unknown("folder", path, known) if not found else f"{path!r} could be any of {', '.join(found)}"
        )
    manifest = known[found[0]]
    notes = [damage] if (damage := store.damage(store.folder(manifest.stage, manifest.key))) else []
    if manifest.code != code_version():
        notes.append(f"made by code {manifest.code}; this is {code_version()}")
    for role, parent in manifest.parents.items():
        current = known.get(f"{parent.stage}/{parent.key}")
        if current is None or current.content != parent.content:
            fate = "gone" if current is None else "not the one it was made from"
            notes.append(f"its parent {role} ({parent.stage}/{parent.key}) is {fate}")
    data: dict[str, Any] = {**manifest.model_dump(mode="json"), "notes": notes}
    emit(json.dumps(data, indent=None if as_json else 1, ensure_ascii=False))


@app.command()
def report(
    recipe: Annotated[str | None, typer.Argument(help="The recipe whose newest report is meant.")] = None,
    output: Output = None,
    browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Find the newest report of the store.

    Example: stillroom report abacus -o abacus.html
    """
    from stillroom.store import Store

    store = Store(store_root())
    found = [m for m in store.manifests() if m.stage == "report" and recipe in (None, m.config["recipe"])]
    if not found:
        raise UsageError(
            f"{store.root} holds no report{f' of {recipe}' if recipe else ''}: make one with `stillroom run abacus`"
        )
    path = store.folder("report", found[-1].key) / "report.html"
    emit(str(path))
    if output is not None:
        copy(path, output)
    if browser:
        webbrowser.open(path.resolve().as_uri())


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
def export(
    lessons: Annotated[list[str], typer.Argument(metavar="NAME=FOLDER...", help="Cells, each a folder of `lessons`.")],
    to: Annotated[str, typer.Option(help="trl or llama-factory.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write into.")],
    model: Annotated[str, typer.Option(help="The model that LLaMA-Factory is to train.")] = "meta-llama/Llama-3.2-1B",
    template: Annotated[str, typer.Option(help="Its chat template there: llama3, gemma, alpaca, qwen.")] = "llama3",
) -> None:
    """Write lessons as other trainers take them; `stillroom list` names the folders of the stage `lessons`.

    Example: stillroom export normal=stills/lessons/3f2a... --to trl -o data
    """
    from stillroom.curriculum.exports import export as write
    from stillroom.curriculum.exports import read_cells

    if to not in ("trl", "llama-factory"):
        raise UsageError(unknown("trainer", to, ("trl", "llama-factory")))
    for path in write(read_cells(lessons), to, output, model, template):  # type: ignore[arg-type]
        emit(str(path))


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
def schema() -> None:
    """Print the JSON Schema of recipes, for editors.

    Example: stillroom schema > recipe.schema.json
    """
    from stillroom import pipeline

    emit(json.dumps(pipeline.schema(), indent=1))


def terminated(*_: object) -> None:
    raise Interrupted("stopped by SIGTERM; what was done is kept: run the same command to go on")


def main() -> None:
    signal.signal(signal.SIGTERM, terminated)
    try:
        app()
    except StillroomError as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"stillroom: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(75 if isinstance(error, Interrupted) else 2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        print("stillroom: stopped; run the same command to go on", file=sys.stderr)  # noqa: T201
        sys.exit(130)
