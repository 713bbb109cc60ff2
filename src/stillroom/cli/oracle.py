"""Doors to thoughts: trace, ask."""

from pathlib import Path
from typing import Annotated

import typer

from stillroom.cli.app import Json, app, emit, store_root, student_folder


@app.command()
def trace(
    model: Annotated[str, typer.Argument(help="A latent student's folder, or its name in the store.")],
    task: Annotated[str, typer.Option(help="A task's name, or a file of questions (.jsonl).")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder for the table and its tensors.")],
    limit: Annotated[int, typer.Option("-n", "--limit", min=2, help="So many test problems, evenly spaced.")] = 500,
    new_tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 24,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
) -> None:
    """Trace a student's thoughts: each test problem in every disturbance, early decode and without thoughts.

    A trace that was stopped goes on where it was: give the same command again.

    Example: stillroom trace student/3f2a --task abacus -n 200 -o traces
    """
    from stillroom.devices import use
    from stillroom.evaluation import spaced
    from stillroom.oracle.traces import TraceConfig, collect
    from stillroom.pipeline.questions import test_problems
    from stillroom.students import load
    from stillroom.tasks import TEST

    config = TraceConfig(new_tokens=new_tokens)
    student = load(student_folder(model), str(use(device, config.threads))).plain()
    problems = spaced(test_problems(task), limit)
    collect(student, problems, config, output, TEST, output / "partial")
    emit(str(output / f"{TEST}.parquet"))


@app.command()
def ask(
    model: Annotated[str, typer.Argument(help="A latent student's folder, or its name in the store.")],
    problem: Annotated[str, typer.Argument(help="The problem that it is to think about.")],
    query: Annotated[str, typer.Argument(help="The question about its thoughts.")],
    reader: Annotated[Path | None, typer.Option(help="A reader's folder; else the newest of the store.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
    as_json: Json = False,
) -> None:
    """Ask a reader about a student's thoughts, and see beside it what the trace itself shows.

    Example: stillroom ask student/3f2a "Ann has 5 eggs. Ben gives 2 more. How many?" "Which step matters most?"
    """
    import dataclasses
    import json

    from stillroom.conversation.visible import visible
    from stillroom.devices import use
    from stillroom.oracle import asking, readers
    from stillroom.students import load

    where = str(use(device, 2))
    student = load(student_folder(model), where).plain()
    read = readers.load(reader, where) if reader else asking.find_reader(store_root(), student, where)
    reply = asking.ask(student, read, problem, query)
    if as_json:
        emit(json.dumps(dataclasses.asdict(reply)))
        return
    emit(f"the student   {visible(reply.answer)}")
    emit(f"the reader    {visible(reply.said) or '(nothing: it ended its answer at once)'}")
    emit(f"the trace     {visible(reply.told)}")
