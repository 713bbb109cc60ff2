"""What continuous thoughts carry, in sentences: whether answers rest on them, which values lenses rank first in them,
and what readers know of them."""

from collections.abc import Iterator, Sequence
from typing import Any

from stillroom.records import Finding, Null
from stillroom.report.evidence import SIGNIFICANT, Evidence, percent, place, share, spread, strongest

IN_THOUGHTS = " AUROC in thoughts, chosen on validation"
ELSE = "another answer's reasoning"
SAME = "same answer's reasoning"
WAYS = {
    ("early answering", "after 0% of the chain"): "without any thought",
    (ELSE, ""): "with another question's thoughts",
    ("mean thoughts", ""): "with the mean thought in place of each",
    ("noise thoughts", ""): "with noise in place of each",
}
UNTHOUGHT = (
    "Not established: no student of this run thinks in vectors. `stillroom run abacus` teaches one (`latent`) and "
    "looks into its thoughts; `stillroom run abacus-oracle` asks them in words."
)
UNASKED = "What readers know of them was not measured; a recipe with `oracle`, such as `abacus-oracle`, does."
UNDISTURBED = "Whether its answers rest on them was not measured; a recipe with `faithfulness`, such as `abacus`, does."


def carries(evidence: Evidence) -> list[str]:
    """For each student that thinks in vectors. A claim stands where its interval lies above its strongest null's."""
    told = []
    for name in _thinkers(evidence):
        mine = [f for f in evidence.findings if f.subject == name]
        parts = [*(list(_used(mine)) or [UNDISTURBED]), *_held(mine)]
        parts.append(_known(evidence.oracles[name]) if name in evidence.oracles else UNASKED)
        told.append(f"{name}: {' '.join(parts)}")
    return told


def _thinkers(evidence: Evidence) -> list[str]:
    """Students of whom anything is known that only those have who think."""
    disturbed = ("mean thoughts", "noise thoughts")
    found = [f.subject for f in evidence.findings if f.module in disturbed or f.metric.endswith(IN_THOUGHTS)]
    return list(dict.fromkeys([*found, *evidence.oracles]))


def _used(findings: Sequence[Finding]) -> Iterator[str]:
    """What other thoughts do to the answer, beside what other words of the question do."""
    rows = {(f.module, f.position): f for f in findings if (f.lens, f.metric) == ("faithfulness", "answers changed")}
    found = {way: rows[way] for way in WAYS if way in rows and _plain(rows[way])}
    if found:
        null = _plain(next(iter(found.values())))[0]
        ways = [f"{share(f)} {WAYS[way]}{'' if _stands(f) else ' (not established)'}" for way, f in found.items()]
        yield (f"Its answer changes in {', in '.join(ways)}; null ({null.name}) {spread(null)}: {_rests(found)}.")
    became = next((f for f in findings if f.module == ELSE and f.metric == "answers that became the other's"), None)
    if became is not None:
        null = strongest(became)
        verdict = "they carry the answer" if became.low > null.high else "that they carry the answer is not established"
        yield (
            f"With another question's thoughts its answer becomes that question's in {share(became)}, null "
            f"({null.name}) {spread(null)}: {verdict}."
        )


def _plain(f: Finding) -> list[Null]:
    """Its nulls in which thoughts are left alone, the strongest first."""
    return sorted((null for null in f.nulls if null.name != SAME), key=lambda null: -null.high)


def _stands(f: Finding) -> bool:
    return f.low > _plain(f)[0].high


def _rests(found: dict[tuple[str, str], Finding]) -> str:
    if (ELSE, "") in found and _stands(found[ELSE, ""]):
        return "what stands in them is used"
    if any(_stands(f) for f in found.values()):
        return "they are used, but that their content is used is not established"
    return "that they are used is not established"


def _held(findings: Sequence[Finding]) -> Iterator[str]:
    """For each value that is known, the lens that ranks it furthest above its null in any thought."""
    rows = [f for f in findings if f.metric.endswith(IN_THOUGHTS) and f.nulls]
    if not rows:
        return
    parts, places = [], []
    for metric in sorted({f.metric for f in rows}):
        lenses = [f for f in rows if f.metric == metric]
        best = max(lenses, key=lambda f: f.low - strongest(f).high)
        null = strongest(best)
        found = sum(f.low > strongest(f).high for f in lenses)
        verdict = f"held (lenses: {found} of {len(lenses)})" if found else "not established"
        parts.append(
            f"{metric.removesuffix(IN_THOUGHTS)} {verdict}, {best.lens} at {place(best)} {_number(best)} "
            f"(n = {best.n}), strongest null ({null.name}) {_number(null)}"
        )
        places += [(best.layer, best.position)] if found else []
    yield f"The true value of a step among all candidates (AUROC): {'; '.join(parts)}."
    yield from _moves([f for f in findings if (f.layer, f.position) in places])


def _moves(findings: Sequence[Finding]) -> Iterator[str]:
    """What another problem's state at the places where values are held does to the answer. The place is the best of
    them on test problems, so that it has to stand in the whole grid too."""
    told = ("patching", "answer moved", "residual")
    moved = [f for f in findings if (f.lens, f.metric, f.module) == told and f.nulls]
    if moved:
        best = max(moved, key=lambda f: f.low - strongest(f).high)
        null = strongest(best)
        stands = best.low > null.high and (best.adjusted is None or best.adjusted < SIGNIFICANT)
        verdict = "it is used there" if stands else "that any of them is used there is not established"
        yield (
            f"Another value put there moves the answer most at {place(best)}, in {share(best)}, strongest null "
            f"({null.name}) {spread(null)}: {verdict}."
        )


def _known(told: Any) -> str:
    """The claims of readers that are established, and how many are not."""
    stands, count = [], 0
    for strategy, by in told["claims"].items():
        for reader, claim in by.items():
            count += 1
            if claim["established"]:
                own, null = (told["scores"][strategy][who] for who in (reader, claim["best control"]))
                stands.append(
                    f"`{strategy}` ({reader}) {_balanced(own)} (n = {own['n']}), best control "
                    f"({claim['best control']}) {_balanced(null)}"
                )
    if not stands:
        return f"That readers know anything of them is not established for any of {count} claims."
    return (
        f"Readers know, by balanced accuracy above every control: {'; '.join(stands)}; for the other "
        f"{count - len(stands)} of {count} claims it is not established."
    )


def _balanced(score: Any) -> str:
    value, low, high = (percent(score["balanced"][part]) for part in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _number(measured: Finding | Null) -> str:
    return f"{measured.value:.3f} [{measured.low:.3f}, {measured.high:.3f}]"
