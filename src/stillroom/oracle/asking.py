"""One question about one problem's thoughts: what a reader says, and what the trace itself shows where it can."""

from dataclasses import dataclass
from pathlib import Path

from stillroom.errors import StoreError, UsageError
from stillroom.oracle import questions
from stillroom.oracle.evaluating import READER_VERSION
from stillroom.oracle.prompts import INJECTION
from stillroom.oracle.questions import STRATEGIES, Asked, Seen
from stillroom.oracle.readers import Reader, answers, load
from stillroom.oracle.tables import Traces
from stillroom.oracle.traces import TraceConfig, fingerprint, fitting, traced
from stillroom.records import Problem
from stillroom.store import Store
from stillroom.students import Student

NOT_ALONE = ("replaced", "critical by change", "thinking helps", "value")
"""What a single problem of unknown answer cannot show: other problems to swap with, a verdict, the steps' values."""


@dataclass(frozen=True)
class Reply:
    """`shown` is None where the question is none that the trace decides."""

    answer: str
    said: str
    shown: str | None

    @property
    def told(self) -> str:
        """What the trace shows, for a reader."""
        if self.shown is None:
            return "does not decide this question in these words; those that it does: " + " ".join(decided())
        return self.shown


def find_reader(root: Path, student: Student, device: str = "cpu") -> Reader:
    """The newest injecting reader of the store that was taught on this student. Raises `UsageError` where none was."""
    who = fingerprint(student)
    store = Store(root)
    made = [
        m for m in store.manifests()
        if m.stage == "reader" and m.version == READER_VERSION and m.config.get("arm") == INJECTION
    ]  # fmt: skip
    for manifest in reversed(made):
        folder = store.folder(manifest.stage, manifest.key)
        if damage := store.damage(folder):
            raise StoreError(f"{folder}: {damage}; run its recipe again, which sets it aside and makes it anew")
        reader = load(folder, device)
        if reader.told.student == who:
            return reader
    raise UsageError(
        f"the store {root} holds no reader of this student's thoughts ({len(made)} of others): run one with "
        "`oracle: {}`, such as abacus-oracle, or name a reader's folder with --reader"
    )


def ask(student: Student, reader: Reader, problem: str, query: str, new_tokens: int = 32) -> Reply:
    """Trace one problem and ask about its thoughts.

    Raises `UsageError` for a reader of another student, a problem or a question that is too long.
    """
    one = Problem(task="asked", id="asked", question=problem, answer="")
    config = TraceConfig(new_tokens=new_tokens)
    prompts = fitting(student, [one], new_tokens)
    rows, vectors = traced(student, fingerprint(student), [one], prompts, config)
    traces = Traces(tuple(rows), vectors["thoughts_NKd"])
    strategy, step = questions.find(query) or ("settled", None)  # any that is shown whole, for words of one's own
    asked = Asked(0, one.id, strategy, step, query, "")
    (said,) = answers(reader, traces, [asked], new_tokens)
    return Reply(rows[0].answer, said.strip(), shown(traces, query))


def decided() -> list[str]:
    """A phrasing of each question that one trace decides, about step 0 where a step is asked about."""
    known = [strategy for name, strategy in STRATEGIES.items() if name not in NOT_ALONE]
    return [strategy.phrasings[0].replace("{i}", "0") for strategy in known]


def shown(traces: Traces, query: str) -> str | None:
    """What the one trace decides about a question in one of the known phrasings."""
    found = questions.find(query)
    if found is None or found[0] in NOT_ALONE:
        return None
    labels = dict(STRATEGIES[found[0]].labels(Seen(traces.rows[0], "")))
    if found[1] not in labels:
        raise UsageError(f"{query!r}: this student has the steps {', '.join(map(str, labels))}")
    return labels[found[1]]
