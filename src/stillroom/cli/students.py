"""Doors to students: train, import, export."""

import os
from pathlib import Path
from typing import Annotated

import typer

from stillroom.cli.app import app, copy_student, emit, refuse_damaged, refuse_existing, store_root, student_folder
from stillroom.errors import UsageError, unknown


@app.command()
def train(
    base: Annotated[str, typer.Argument(help="A model's folder, or a model of the hub.")],
    lessons: Annotated[Path, typer.Argument(help="JSON lines with `prompt` and `completion`.")],
    settings: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    adapter: Annotated[str, typer.Option(help="full, lora or qlora.")] = "full",
    teacher: Annotated[str | None, typer.Option(help="Learn from this model's distribution (GKD).")] = None,
    style: Annotated[
        str | None, typer.Option(help="plain, bare, chat, alpaca, llama3, gemma; else the base's own.")
    ] = None,
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="Run the model's own code.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would run and its memory; write nothing.")
    ] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Copy the student's folder here.")] = None,
) -> None:
    """Teach one student. Settings are those of a student: fit.epochs=1, adapter.r=16, gkd.beta=1, checkpointing=true.

    A run that was stopped goes on where it was: run the same command again.

    Example: stillroom train ./Llama-3.2-1B lessons.jsonl --adapter lora fit.epochs=1 -o student
    """
    from stillroom.pipeline import needs, running
    from stillroom.pipeline.single import one_student
    from stillroom.recipes import Settings
    from stillroom.store import Store

    refuse_existing(output)
    plan = one_student(base, lessons, settings or [], adapter, teacher, style, trust_remote_code)
    store = Store(store_root())
    if dry_run:
        for line in needs.plan_lines(plan, store):
            emit(line)
        return
    folder = running.run(plan, store, Settings(device=device))
    if os.environ.get("RANK", "0") != "0":
        return
    emit(str(copy_student(folder, output) if output else folder))


@app.command("import")
def import_(
    folder: Annotated[
        Path, typer.Argument(help="A Hugging Face folder with pickled weights (.bin), or a CODI checkpoint.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write.")],
    codi: Annotated[
        str | None, typer.Option(help="A published CODI checkpoint of this model: gpt2, llama3.2-1b.")
    ] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Its tokenizer's folder, where it brings none.")] = None,
    keep_adapter: Annotated[bool, typer.Option("--keep-adapter", help="Keep its LoRA apart from the weights.")] = False,
) -> None:
    """Turn a folder of pickled weights into one of safetensors, or a published CODI checkpoint into a student.

    Nothing that a file holds is executed.

    Example: stillroom import ./bloom-560m -o bloom-560m-safe
    """
    if codi is not None:
        from stillroom.students.published import import_codi

        import_codi(folder, output, codi, tokenizer, not keep_adapter)
    elif tokenizer is not None or keep_adapter:
        raise UsageError("--tokenizer and --keep-adapter belong to a CODI checkpoint: name its model with --codi")
    else:
        from stillroom.students.importing import import_folder

        import_folder(folder, output)
    emit(str(output))


@app.command()
def export(
    lessons: Annotated[
        list[str],
        typer.Argument(metavar="WHAT...", help="NAME=FOLDER of `lessons` for each cell; or a student."),
    ],
    *,
    to: Annotated[str | None, typer.Option(help="Lessons for trl or llama-factory.")] = None,
    merged: Annotated[bool, typer.Option("--merged", help="A student as a plain model with its card.")] = False,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write into.")],
    model: Annotated[str, typer.Option(help="The model that LLaMA-Factory is to train.")] = "meta-llama/Llama-3.2-1B",
    template: Annotated[str, typer.Option(help="Its chat template there: llama3, gemma, alpaca, qwen.")] = "llama3",
) -> None:
    """Write lessons as other trainers take them, or a student as a model that any program loads.

    `stillroom list` names the folders of the stages `lessons` and `student`.

    Example: stillroom export student/3f2a --merged -o model
    """
    from stillroom.curriculum.exports import export as write
    from stillroom.curriculum.exports import read_cells

    if merged == (to is not None) or (merged and len(lessons) != 1):
        raise UsageError("say what is wanted: lessons with --to trl or llama-factory, or one student with --merged")
    if merged:
        from stillroom.pipeline.cards import export_student

        export_student(student_folder(lessons[0]), output)
        emit(str(output))
        return
    if to not in ("trl", "llama-factory"):
        raise UsageError(unknown("trainer", str(to), ("trl", "llama-factory")))
    for named in lessons:
        refuse_damaged(Path(named.partition("=")[2]))
    for path in write(read_cells(lessons), to, output, model, template):  # type: ignore[arg-type]
        emit(str(path))
