"""The door to evaluation: any models on any tasks, and students that think after several numbers of thoughts."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stillroom.cli.app import Json, app, emit, refuse_output, store_root, student_folder
from stillroom.errors import UsageError

if TYPE_CHECKING:
    from stillroom.evaluation import AnswerConfig, Given
    from stillroom.store import Stage, Store
    from stillroom.teachers.limits import Limits

COLUMNS = ("strict", "flexible", "unparseable", "truncated", "did not stop")


@app.command()
def evaluate(
    model: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="Folders, names in the store or on the hub; or BASE+ADAPTER."),
    ] = None,
    *,
    task: Annotated[list[str], typer.Option(help="Names of tasks, with commas, or a file of questions (.jsonl).")],
    model_dir: Annotated[Path | None, typer.Option(help="Every model below this folder.")] = None,
    base_url: Annotated[str | None, typer.Option(help="A server that speaks OpenAI's language has the models.")] = None,
    shots: Annotated[int, typer.Option(min=0, help="Worked training problems before each question.")] = 0,
    style: Annotated[
        str | None, typer.Option(help="plain, bare, chat, alpaca, llama3, gemma; else the model's own.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, float16; else the model's own.")] = None,
    max_length: Annotated[int | None, typer.Option(min=1, help="Question and answer together, in tokens.")] = None,
    new_tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 96,
    limit: Annotated[
        int | None, typer.Option("-n", "--limit", min=1, help="The first N problems of every test split.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Answers to each question.")] = 1,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples and of the choice of shots.")] = 0,
    thoughts: Annotated[str | None, typer.Option(help="Numbers of thoughts, `off`, `swapped`: 6,0.")] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests to a server in flight at once.")] = 8,
    gpus: Annotated[int, typer.Option(min=0, help="Share the models out over so many, a process each.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="Run the model's own code.")] = False,
    as_json: Json = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the result here (JSON).")] = None,
) -> None:
    """Ask models the test problems of tasks: scores with intervals, and paired tests between the models.

    What was answered is never asked again: the same command goes on after a stop, and grades alone where that changed.

    With `--thoughts` one student that thinks in vectors is asked after several numbers of them: `swapped` gives each
    question the thoughts of another with another answer, `off` leaves thoughts out altogether.

    Example: stillroom evaluate student/3f2a ./Llama-3.2-1B --task gsm8k,svamp -n 100 -o results.json
    """
    names = [*(model or []), *_below(model_dir)]
    tasks = [name for told in task for name in ([told] if Path(told).is_file() else told.split(","))]
    if not names or not all(names):
        raise UsageError("no model is named: give folders, or --model-dir DIR")
    for name in tasks:
        refuse_output(output, Path(name))
    if thoughts is not None:
        others = samples > 1 or shots or base_url or temperature or style or dtype or max_length or gpus
        if len(names) > 1 or len(tasks) > 1 or others:
            raise UsageError("--thoughts asks one student one task, greedily, in its own style and without shots")
        _think(names[0], tasks[0], thoughts, limit, new_tokens, device, output, as_json)
        return
    from stillroom.evaluation import AnswerConfig, Given
    from stillroom.pipeline.sharing import share_out
    from stillroom.teachers.limits import Limits

    asked = {
        "shots": shots, "samples": samples, "temperature": temperature, "seed": seed, "new_tokens": new_tokens,
        "batch_size": batch_size, "max_length": max_length, "limit": limit,
    }  # fmt: skip
    held = {"base_url": base_url, "style": style, "dtype": dtype, "trust_remote_code": trust_remote_code}
    given = [Given.parse({**_parts(name, base_url), **held}, "evaluate") for name in names]
    config, limits = AnswerConfig.parse(asked, "evaluate"), Limits(concurrency=concurrency)
    if gpus:
        told = {**asked, **held, "device": device, "concurrency": concurrency}
        share_out([["evaluate", name, "--task", ",".join(tasks), *_arguments(told)] for name in names], gpus)
    _evaluate(given, tasks, config, limits, device, output, as_json)


def _below(folder: Path | None) -> list[str]:
    from stillroom.pipeline.evaluating import models_below

    return models_below(folder) if folder is not None else []


def _parts(name: str, base_url: str | None) -> dict[str, str]:
    """A name as it was given: a model, or a base and an adapter."""
    if base_url is not None:
        return {"source": name}
    base, plus, adapter = name.rpartition("+")
    if plus and not Path(name).is_dir():
        return {"source": str(student_folder(base)), "adapter": str(student_folder(adapter))}
    return {"source": str(student_folder(name))}


def _arguments(options: dict[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            yield flag
        elif value is not None and value is not False:
            yield from (flag, str(value))


def _evaluate(
    given: Sequence["Given"], tasks: Sequence[str], config: "AnswerConfig", limits: "Limits", device: str,
    output: Path | None, as_json: bool,
) -> None:  # fmt: skip
    from stillroom.files import write_json
    from stillroom.pipeline import running
    from stillroom.pipeline.evaluating import evaluation_plan
    from stillroom.recipes import Settings
    from stillroom.store import Store

    plan, _ = evaluation_plan(given, tasks, config, limits)
    store = Store(store_root())
    folder = running.run(plan, store, Settings(device=device))
    result = {name: _rows(folder / f"{name}.jsonl") for name in ("scores", "comparisons", "seeds")}
    if output is not None:
        write_json(output, result)
    if as_json:
        emit(json.dumps(result))
        return
    for line in _table(result["scores"], _speeds(store, plan)):
        emit(line)
    for pair in result["comparisons"]:
        emit(_compared(pair))
    for row in result["seeds"]:
        if row["metric"] == "accuracy":
            emit(f"{row['student']} on {row['split']}: {100 * row['mean']:.1f} ± {100 * row['sd']:.1f} % over seeds")
    emit(str(folder))


def _compared(pair: dict[str, Any]) -> str:
    from stillroom.stats import p_value

    return (
        f"{pair['a']} - {pair['b']} on {pair['split']}: {100 * pair['difference']:+.1f} "
        f"[{100 * pair['low']:+.1f}, {100 * pair['high']:+.1f}]  "
        f"p {p_value(pair['p'])}, by Holm {p_value(pair['holm'])}"
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _speeds(store: "Store", plan: Sequence["Stage"]) -> dict[str, float]:
    """Answers a second by the name of the predictions' stage, as their manifests tell."""
    found = {}
    for stage in plan:
        manifest = store.manifest(store.folder(stage.stage, stage.key))
        if manifest is not None and manifest.measured.get("seconds"):
            found[stage.name] = manifest.measured["answers"] / manifest.measured["seconds"]
    return found


def _table(scores: Sequence[dict[str, Any]], speeds: dict[str, float]) -> Iterator[str]:
    """One row a model and split: accuracy with its interval, the other rules, what went wrong, length and speed."""
    cells: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for score in scores:
        if score["group"] == "all":
            label = score["student"] if not score["seed"] else f"{score['student']}@{score['seed']}"
            cells.setdefault((score["split"], label), {})[score["metric"]] = score
    width = max(len(f"{label} on {split}") for split, label in cells) + 1
    heads = "".join(f"{name:>13}" for name in (*COLUMNS, "tokens", "thoughts", "answers/s"))
    yield f"{'%':{width}}{'accuracy':>9}{'95 % interval':>16}{heads}      n"
    for (split, label), row in cells.items():
        main = row["accuracy"]
        shares = "".join(f"{100 * row[name]['value']:13.1f}" for name in COLUMNS)
        means = "".join(f"{row[name]['value']:13.1f}" for name in ("tokens", "thoughts"))
        interval = f"[{100 * main['low']:.1f}, {100 * main['high']:.1f}]"
        name = f"{label} on {split}"
        speed = speeds.get(name) or speeds.get(f"{label}@0 on {split}")
        told = f"{speed:13.1f}" if speed else f"{'':13}"
        yield f"{name:{width}}{100 * main['value']:9.1f}{interval:>16}{shares}{means}{told}{main['n']:7}"
        if extra := [m for m in row if m.startswith(("pass@", "maj@"))]:
            yield f"{'':{width}}" + "  ".join(f"{m} {100 * row[m]['value']:.1f}" for m in extra)


def _think(
    model: str, task: str, thoughts: str, limit: int | None, new_tokens: int, device: str, output: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    from stillroom.devices import use
    from stillroom.evaluation import EvaluateConfig, thinking
    from stillroom.files import write_json
    from stillroom.pipeline.questions import test_problems
    from stillroom.stats import p_value
    from stillroom.students import load

    problems = test_problems(task)[:limit]
    student = load(student_folder(model), str(use(device, 2))).plain()
    names = [name.strip() for name in thoughts.split(",")]
    asked = thinking.ask(student, problems, names, EvaluateConfig(new_tokens=new_tokens), model)
    result = thinking.compared(problems, asked)
    if output is not None:
        write_json(output, result)
    if as_json:
        emit(json.dumps(result))
        return
    for name, way in result["thoughts"].items():
        emit(
            f"{name:10}{100 * way['accuracy']:6.1f} %  [{100 * way['low']:.1f}, {100 * way['high']:.1f}]  n {way['n']}"
            f"  {way['questions_per_second']:.1f} questions/s"
        )
    for pair in result["comparisons"]:
        emit(f"{pair['a']} over {pair['b']}: helped {pair['helped']}, hurt {pair['hurt']}, p {p_value(pair['p'])}")
