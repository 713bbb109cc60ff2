"""The stages of the oracle: readers taught on training traces, and all of them asked about test traces."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from stillroom.config import Config
from stillroom.devices import use
from stillroom.files import read_json, write_atomic, write_json
from stillroom.oracle import founding, probes, questions, scoring, tables
from stillroom.oracle.prompts import ARMS, INJECTION, TEXT
from stillroom.oracle.questions import STRATEGIES, Asked, Seen
from stillroom.oracle.readers import (
    Reader,
    ReaderConfig,
    ReaderObjective,
    answers,
    batches,
    begin,
    load,
    loss,
    save,
    with_thoughts_of,
)
from stillroom.oracle.tables import Traces
from stillroom.oracle.traces import HELD, refuse_shared
from stillroom.progress import say
from stillroom.store import Workplace
from stillroom.tasks import TEST, TRAIN
from stillroom.training import fit

READER_VERSION = 3
VERSION = 3
READERS = (INJECTION, TEXT)
"""The arms that read thoughts; what they claim is held against all others."""
VALIDATION = 10
"""One of so many training problems is kept from the readers, to tell their loss on problems that they do not know."""


class QuestionsConfig(Config):
    """What readers are taught and asked."""

    strategies: tuple[str, ...] = tuple(STRATEGIES)
    each: int = Field(1000, ge=1)
    """Training questions of every strategy, their answers balanced."""
    more: dict[str, int] = {}
    """Another number for some of them."""
    seed: int = 0


@dataclass(frozen=True)
class Lectures:
    """All that is asked about the traces of training and of test problems."""

    train: Traces
    test: Traces
    known: tuple[Seen, ...]
    held: tuple[int | None, ...]
    natural: list[Asked]
    """Every training question, as often as its answers occur."""
    taught: list[Asked]
    validation: list[Asked]
    asked: list[Asked]


def prepare(
    train: Traces, test: Traces, config: QuestionsConfig, held: tuple[int | None, ...] | None = None
) -> Lectures:
    """Questions about both splits; `held` is read off the training traces where it is not known.

    Raises `DataError` where a problem stands in both splits.
    """
    refuse_shared(train.rows, test.rows)
    if held is None:
        held = probes.held(train)
    known, unknown = questions.seen(train.rows, held), questions.seen(test.rows, held)
    natural = list(questions.ask(known, config.strategies, config.seed))
    taught = [one for one in natural if one.row % VALIDATION]
    return Lectures(
        train,
        test,
        tuple(unknown),
        held,
        natural,
        questions.balanced(taught, config.each, config.seed, config.more),
        questions.balanced(
            [one for one in natural if one.row % VALIDATION == 0], config.each, config.seed, config.more
        ),
        questions.one_each(list(questions.ask(unknown, config.strategies, config.seed)), config.seed),
    )


class ArmConfig(Config):
    arm: str
    reader: ReaderConfig = ReaderConfig()
    questions: QuestionsConfig = QuestionsConfig()


def make_reader(config: ArmConfig, at: Workplace) -> None:
    """Stage `reader`: one arm, taught on the questions about training traces; with its losses in `taught.json`."""
    device = str(use(at.device, config.reader.fit.threads))
    lectures = prepare(*read_both(at.parents["traces"]), config.questions, read_held(at.parents["traces"]))
    reader = begin(config.reader, config.arm, lectures.train, lectures.taught, device)
    reader = replace(reader, told=reader.told.model_copy(update={"held": lectures.held}))
    told = teach(reader, lectures, config.reader, at)
    if at.main:
        save(reader, at.out)
        write_json(at.out / "taught.json", told)


def read_held(folder: Path) -> tuple[int | None, ...]:
    return tuple(read_json(folder / HELD))


def read_both(folder: Path) -> tuple[Traces, Traces]:
    return tables.read(folder, TRAIN), tables.read(folder, TEST)


def teach(reader: Reader, lectures: Lectures, config: ReaderConfig, at: Workplace) -> dict[str, Any]:
    """Fit a reader in place; what was learned from, and the loss of each epoch. Where no thought holds what is asked
    for there is nothing to learn, and the reader stays as it began."""
    settled = config.fit.settled(max(1, len(lectures.taught)))
    if lectures.taught:
        fit(ReaderObjective(reader), batches(reader, lectures.train, lectures.taught, settled), settled, at)
    reader.student.model.eval()  # type: ignore[no-untyped-call]
    logged = at.out / "metrics.jsonl"
    rows = [json.loads(line) for line in logged.read_text().splitlines()] if at.main and logged.is_file() else []
    per_epoch = max(1, len(lectures.taught) // settled.batch_size)
    epochs: dict[int, list[float]] = {}
    for row in rows:
        epochs.setdefault((row["step"] - 1) // per_epoch, []).append(row["ce"])
    return {
        "questions": dict(questions.counts(lectures.taught)),
        "train": len(lectures.taught),
        "validation": len(lectures.validation),
        "train problems": len({one.problem for one in lectures.taught}),
        "validation problems": len({one.problem for one in lectures.validation}),
        "loss by epoch": [sum(losses) / len(losses) for losses in epochs.values()],
        "validation loss": loss(reader, lectures.train, lectures.validation) if lectures.validation else None,
    }


class OracleConfig(Config):
    arms: tuple[str, ...] = tuple(ARMS)
    reader: ReaderConfig = ReaderConfig()
    questions: QuestionsConfig = QuestionsConfig()


def make_oracle(config: OracleConfig, at: Workplace) -> None:
    """Stage `oracle`: every reader asked about test traces, and scored beside all controls and plain lenses.

    Writes `oracle.json` (scores, claims, the founding measures) and `answers.jsonl` (every question with all answers).
    """
    device = str(use(at.device, config.reader.fit.threads))
    train, test = read_both(at.parents["traces"])
    readers = {name: load(at.parents[f"reader {name}"], device) for name in config.arms}
    lectures = prepare(train, test, config.questions, read_held(at.parents["traces"]))
    raw = begin(config.reader, INJECTION, train, lectures.taught, device)
    said = hear(readers, raw, lectures)
    taught = {name: json.loads((at.parents[f"reader {name}"] / "taught.json").read_text()) for name in config.arms}
    result = judged(lectures, said) | {"taught": taught, "student": train.student}
    write_json(at.out / "oracle.json", result)
    lines = [
        json.dumps(
            {
                "problem": one.problem, "strategy": one.strategy, "step": one.step, "question": one.text,
                "answer": one.answer, "said": {who: texts[i] for who, texts in said.items()},
            },
            ensure_ascii=False,
        )
        for i, one in enumerate(lectures.asked)
    ]  # fmt: skip
    write_atomic(at.out / "answers.jsonl", "".join(line + "\n" for line in lines))
    for line in summary(result):
        say(line)


def hear(readers: Mapping[str, Reader], untrained: Reader, lectures: Lectures) -> dict[str, list[str | None]]:
    """What everybody answers to the test questions; None where a lens has no answer."""
    test, asked = lectures.test, lectures.asked
    count = len(test.rows)
    shuffled = with_thoughts_of(test, [(row + 1) % count for row in range(count)])
    heard: dict[str, list[str | None]] = {}
    for name, reader in readers.items():
        heard[name] = _said(name, reader, test, asked)
    heard[scoring.SHUFFLED] = _said(scoring.SHUFFLED, readers[INJECTION], shuffled, asked)
    heard[scoring.UNTRAINED] = _said(scoring.UNTRAINED, untrained, test, asked)
    heard[scoring.MAJORITY] = list(scoring.majority(lectures.natural, asked))
    heard[scoring.LENS] = probes.read_off(lectures.known, asked)
    heard[scoring.PROBE] = probes.probed(lectures.train, lectures.natural, test, asked)
    return heard


def _said(who: str, reader: Reader, traces: Traces, asked: Sequence[Asked]) -> list[str | None]:
    """Strategy by strategy, each with as many new tokens as its longest answer takes: short ones are soon done."""
    began = time.monotonic()
    heard: list[str | None] = [None] * len(asked)
    for strategy in dict.fromkeys(one.strategy for one in asked):
        rows = [row for row, one in enumerate(asked) if one.strategy == strategy]
        about = [asked[row] for row in rows]
        ids: Any = reader.student.tokenizer([one.answer for one in about], add_special_tokens=False)["input_ids"]
        for row, text in zip(rows, answers(reader, traces, about, max(map(len, ids)) + 2), strict=True):
            heard[row] = text
    say(f"  {who}: {len(asked)} answers in {time.monotonic() - began:.1f} s")
    return heard


def judged(lectures: Lectures, said: Mapping[str, Sequence[str | None]]) -> dict[str, Any]:
    """Scores and claims, and the founding measures as there and as here."""
    scores = scoring.table(lectures.asked, said)
    pairs = {
        "founding critical": "critical by change", "founding convergence": "settled",
        "founding contrastive": "thinking changes", "founding redundancy": "redundant",
    }  # fmt: skip
    trivial = founding.trivial(lectures.test.rows)
    return {
        "test problems": len(lectures.test.rows),
        "test questions": dict(questions.counts(lectures.asked)),
        "held": lectures.held,
        "scores": scores,
        "claims": scoring.claims(scores, [name for name in READERS if name in said]),
        "founding": {
            there: {"there": scores.get(there), "trivial": trivial[there], "here": scores.get(here)}
            for there, here in pairs.items()
        },
    }


def summary(result: Mapping[str, Any]) -> list[str]:
    """A few lines for a person: what was taught, and what each reader can claim."""
    taught = result["taught"]
    counted = ", ".join(f"{name} {n}" for name, n in taught[INJECTION]["questions"].items())
    lines = [f"  training questions: {counted or 'none, as no thought holds what is asked for'}"]
    for name, told in taught.items():
        losses = " ".join(f"{one:.3f}" for one in told["loss by epoch"])
        unknown = told["validation loss"]
        lines.append(
            f"  {name}: train {told['train']}, validation {told['validation']} questions; loss by epoch {losses}; "
            f"on validation {'-' if unknown is None else f'{unknown:.3f}'}"
        )
    for strategy, claims in result["claims"].items():
        scores = result["scores"][strategy]
        for reader, claim in claims.items():
            own, best = (scores[who]["balanced"] for who in (reader, claim["best control"]))
            lines.append(
                f"  {strategy}, {reader}: {_share(own)} against {_share(best)} ({claim['best control']}): "
                + ("established" if claim["established"] else "not established")
                + (f"; {100 * claim['over lens']:+.1f} points over the {lens}" if (lens := claim["best lens"]) else "")
            )
    return lines


def _share(score: Mapping[str, float]) -> str:
    return f"{100 * score['value']:.1f} % [{100 * score['low']:.1f}, {100 * score['high']:.1f}]"
