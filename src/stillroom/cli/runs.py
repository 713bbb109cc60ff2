"""Doors to experiments: run, list, show, report, schema."""

import json
import os
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stillroom.cli.app import Json, Output, app, emit, refuse_damaged, store_root
from stillroom.errors import UsageError, unknown
from stillroom.progress import say

if TYPE_CHECKING:
    from stillroom.store import Manifest, Stage

TABLES = (".csv", ".tex", ".xlsx")
"""What a sweep's table can be copied out as, by the name of the file."""
PAGES = {".html": "report.html", ".md": "report.md"}
"""What a report can be written out as, likewise."""


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or the path of a .yaml file.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    until: Annotated[str | None, typer.Option(help="Go as far as this kind of stage.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; run and write nothing.")] = False,
    on: Annotated[Literal["ray"] | None, typer.Option(help="Carry it out on a cluster: `ray`.")] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="The running cluster, HOST:PORT; else this machine is one.")
    ] = None,
    output: Output = None,
) -> None:
    """Run a whole experiment, reusing what the store holds.

    Example: stillroom run abacus students.filler.pauses=4
    """
    from stillroom.recipe_files import written

    _refuse_page(output, (*PAGES, *TABLES))
    written(recipe, overrides or [])  # a slip is told before seconds go into imports
    from stillroom import pipeline
    from stillroom.pipeline import cluster, needs
    from stillroom.recipes import load_recipe
    from stillroom.report.figures import accuracy_table
    from stillroom.report.grids import grid_text
    from stillroom.store import Store

    if ray_address is not None and on is None:
        raise UsageError("--ray-address goes with --on ray")
    cells = load_recipe(recipe, overrides or [])
    plan = pipeline.upto(pipeline.plan(recipe, cells), until)
    _refuse_unmade(output, plan[-1])
    store = Store(store_root())
    if dry_run:
        for line in needs.plan_lines(plan, store):
            emit(line)
        return
    settings = next(iter(cells.values())).settings  # the same in all cells: no sweep may vary them
    folder = cluster.run(plan, store, settings, ray_address) if on else pipeline.run(plan, store, settings)
    if os.environ.get("RANK", "0") != "0":
        return
    result = folder / (PAGES.get(output.suffix, "report.html") if output is not None else "report.html")
    table = folder / f"grid{output.suffix}" if output is not None and output.suffix in TABLES else None
    made = {stage.stage: store.folder(stage.stage, stage.key) for stage in reversed(plan)}
    if "comparison" in made:
        emit(grid_text(made["comparison"]))
    elif "scores" in made:
        emit(accuracy_table(made["scores"] / "scores.jsonl"))
    emit(f"{result if result.exists() else folder}")
    if output is not None:
        copy(table, output) if table else _hand_out(result, output, store.journal)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List what the store holds, oldest first.

    Example: stillroom list --json
    """
    from stillroom.store import Store

    manifests = list(Store(store_root()).manifests())
    width = max((len(manifest.name) for manifest in manifests), default=0) + 2
    for manifest in manifests:
        row = {
            "name": manifest.name,
            "path": f"{manifest.stage}/{manifest.key}",
            "started": manifest.started,
            "seconds": manifest.seconds,
        }
        emit(
            json.dumps(row)
            if as_json
            else f"{row['path']:32}{row['name']:{width}}{manifest.started[:19]}  {manifest.seconds:8.1f} s"
        )


@app.command()
def show(
    path: Annotated[
        str,
        typer.Argument(help="STAGE/KEY as `list` prints it, perhaps cut short; a path into the store; or `journal`."),
    ],
    as_json: Json = False,
) -> None:
    """Show how one folder of the store came to be, and whether it is still what was committed.

    Example: stillroom show student/3f2a
    """
    from stillroom.store import Store, code_version

    store = Store(store_root())
    if path == "journal":
        from stillroom.teachers.teaching import journal_report

        rows = journal_report(store.journal)
        for row in rows:
            emit(json.dumps(row, indent=None if as_json else 1))
        if not rows:
            say("the journal is empty: no teacher has answered yet")
        return
    known = {f"{m.stage}/{m.key}": m for m in store.manifests()}
    if Path(path).resolve().is_relative_to(root := store.root.resolve()):  # the path that a command printed
        path = "/".join(Path(path).resolve().relative_to(root).parts[:2]) or path
    found = [name for name in known if name.startswith(path)]
    if len(found) != 1:
        raise UsageError(_none_such(path, known) if not found else f"{path!r} could be any of {', '.join(found)}")
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


def _none_such(path: str, known: Mapping[str, "Manifest"]) -> str:
    """The sentence for a folder that is not there: those of its stage, with what the recipe calls them."""
    stage = path.partition("/")[0]
    stages = {manifest.stage for manifest in known.values()}
    if stage not in stages:
        return f"{unknown('folder', path, [f'{one}/' for one in stages])}; `stillroom list` prints every folder"
    return unknown("folder", path, [f"{name} ({m.name})" for name, m in known.items() if m.stage == stage])


@app.command()
def report(
    recipe: Annotated[str | None, typer.Argument(help="The recipe whose newest report is meant.")] = None,
    output: Output = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="The report in Markdown.")] = False,
    browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Find the newest report of the store; -o writes it out with machine, time and cost of every stage.

    Example: stillroom report abacus -o abacus.html
    """
    from stillroom.store import Store

    _refuse_page(output, (".md",) if markdown else tuple(PAGES))
    store = Store(store_root())
    reports = [m for m in store.manifests() if m.stage == "report"]
    found = [m for m in reports if recipe in (None, m.config["recipe"])]
    if not found:
        raise UsageError(_unreported(store.root, recipe, [m.config["recipe"] for m in reports]))
    page = "report.md" if markdown else PAGES.get(output.suffix if output is not None else "", "report.html")
    path = refuse_damaged(store.folder("report", found[-1].key)) / page
    if output is not None:
        _hand_out(path, output, store.journal)
    emit(str(output or path))
    if browser and not webbrowser.open(address := (output or path).resolve().as_uri()):
        say(f"no browser was found to open it; open {address} in yours")


def _unreported(root: Path, recipe: str | None, reported: list[str]) -> str:
    """Why there is no report, and how there will be one: a name that no recipe has cannot be run."""
    if recipe is None:
        return f"{root} holds no report: make one with `stillroom run abacus`"
    from stillroom.recipe_files import recipe_names

    if recipe not in recipe_names() and Path(recipe).suffix not in (".yaml", ".yml"):
        known = sorted({*recipe_names(), *reported})
        return f"{root} holds no report of {recipe}: {unknown('recipe', recipe, known)}"
    return f"{root} holds no report of {recipe}: make one with `stillroom run {recipe}`"


def _refuse_page(output: Path | None, endings: tuple[str, ...]) -> None:
    """Before anything is done: where a report cannot be written, or would not be what its name says. A device such as
    `/dev/stdout` says nothing by its name."""
    if output is None:
        return
    if output.is_dir():
        raise UsageError(f"-o {output} is a folder; name a file in it, such as {output / 'report.html'}")
    if output.suffix not in endings and (output.is_file() or not output.exists()):
        known = " or ".join(endings)
        raise UsageError(f"-o {output}: name a file that ends in {known}; a browser prints .html to a PDF")


def _refuse_unmade(output: Path | None, last: "Stage") -> None:
    """Before anything is done, too: where the run will not come to what is to be written out."""
    if output is not None and last.stage != "report":
        raise UsageError(f"-o {output}: this run does not go as far as the report: leave out -o, or --until")
    if output is not None and output.suffix in TABLES and "comparison" not in last.parents:
        known = " or ".join(PAGES)
        raise UsageError(f"-o {output}: a table is made of a whole sweep, and this is none: name a {known} file")


def copy(table: Path, output: Path) -> None:
    """A sweep's table, as the store has it."""
    from stillroom.files import write_atomic

    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(output, table.read_bytes())


def _hand_out(report: Path, output: Path, journal: Path) -> None:
    """A stored report with what is known of machine, time and cost, which the store keeps apart from results."""
    from stillroom.files import write_atomic
    from stillroom.report.provenance import with_times
    from stillroom.teachers.teaching import journal_report

    if not report.exists():
        raise UsageError(f"there is no {report.name} to write to {output}: run the recipe to its end, without --until")
    costs = journal_report(journal) if journal.exists() else []
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(output, with_times(report.read_text(encoding="utf-8"), report.parent, costs))


@app.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for editors.

    Example: stillroom schema > recipe.schema.json
    """
    from stillroom import pipeline

    emit(json.dumps(pipeline.schema(), indent=1))
