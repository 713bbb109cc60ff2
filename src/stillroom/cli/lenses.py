"""Doors to lenses: diff."""

from pathlib import Path
from typing import Annotated

import typer

from stillroom.cli.app import Json, app, emit, keeps_nothing, refuse_existing, refuse_output, student_folder
from stillroom.errors import UsageError


@app.command()
@keeps_nothing
def diff(
    a: Annotated[str, typer.Argument(help="A student's folder or name in the store, a model's folder, or the hub's.")],
    b: Annotated[str, typer.Argument(help="The other one.")],
    lens: Annotated[list[str] | None, typer.Option(help="A lens, again for each; else all that are possible.")] = None,
    data: Annotated[str, typer.Option(help="A task's name, or a file of questions (.jsonl).")] = "abacus",
    limit: Annotated[int, typer.Option("-n", "--limit", min=2, help="Problems of each number of steps.")] = 100,
    style: Annotated[str, typer.Option(help="How a model that is no student is asked.")] = "plain",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
    as_json: Json = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write all findings here (.parquet).")] = None,
) -> None:
    """What differs inside two models, each number beside its null. For chosen lenses, name them.

    Example: stillroom diff base/1f3a student/3f2a --lens weights --lens kl -o findings.parquet
    """
    from stillroom.devices import use
    from stillroom.lenses import write_findings
    from stillroom.pipeline import diffing
    from stillroom.progress import say

    refuse_existing(output)
    refuse_output(output)
    if output is not None and output.suffix != ".parquet":
        raise UsageError(
            f"-o {output}: findings are written as Parquet: name a file that ends in .parquet, or see --json"
        )
    say(f"opening {a} and {b} ...")
    where = str(use(device, 2))
    splits = diffing.problems(data, limit)
    first, second = (diffing.opened(str(student_folder(name)), where, style) for name in (a, b))
    found = diffing.difference(first, second, lens or [], splits)
    for note in found.notes:
        say(note)
    if output is not None:
        write_findings(output, found.findings)
    if as_json:
        for finding in found.findings:
            emit(finding.model_dump_json())
        return
    for finding in diffing.headlines(found.findings):
        emit(diffing.line(finding))
    emit(f"{len(found.findings)} findings" + (f" in {output}" if output else "; all of them with -o FILE or --json"))
