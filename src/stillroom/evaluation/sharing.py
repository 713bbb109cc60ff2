"""The answers of one student shared out over several processes, in the batches in which one process would give them.

Each part keeps what it answered beside the stage's folder; the process that makes the stage takes it up, as it takes up
what a killed run of its own left behind.
"""

from collections.abc import Sequence
from pathlib import Path

from stillroom.decoding import plan
from stillroom.files import AppendOnly, unsealed
from stillroom.records import Prediction
from stillroom.store import PARTIAL, Workplace


def others(lengths: Sequence[int], batch_size: int, share: tuple[int, int] | None) -> frozenset[int]:
    """The rows that fall to other parts: of so many parts, each has every so manyth batch."""
    if share is None:
        return frozenset()
    part, count = share
    batches = plan(lengths, batch_size)
    return frozenset(row for number, rows in enumerate(batches) if number % count != part for row in rows)


def gather(journal: Path, at: Workplace) -> None:
    """Bring into `journal` what any part has answered of its split and it does not hold yet."""
    with AppendOnly(journal) as file:
        known = {_row(line) for line in file.lines}
        for path in sorted(at.shares.glob(f"*/{PARTIAL}/{journal.name}")):
            found = {_row(line): line for line in unsealed(path.read_bytes())}
            if path != journal:
                file.append(line for row, line in found.items() if row not in known)
                known |= found.keys()


def _row(line: str) -> tuple[str, int]:
    prediction = Prediction.model_validate_json(line)
    return prediction.problem, prediction.sample
