"""The ledger has a row a claim, its strongest null beside every score, and what an intervention does at its place."""

import pytest

from report_toys import FINDINGS, finding
from stillroom.records import Finding, Null
from stillroom.report.ledger import COLUMNS, EMPTY, ledger

CHOSEN = ", chosen on validation"
LAST = Null(name="frequency of the value", value=0.3, low=0.25, high=0.35)


def claim(metric: str, low: float = 0.5, lens: str = "probes", **address: object) -> Finding:
    one = finding(metric, 0.625, low, 0.75, 0.125, **{"lens": lens, "position": "number 2", **address})
    return one.model_copy(update={"nulls": (*one.nulls, LAST)})


def table(*findings: Finding) -> list[dict[str, str]]:
    return [dict(zip(COLUMNS, row, strict=True)) for row in ledger(findings)]


@pytest.mark.parametrize(("low", "verdict"), [(0.36, "found"), (0.35, "not established"), (0.2, "not established")])
def test_a_claim_has_to_beat_its_strongest_null(low: float, verdict: str) -> None:
    (row,) = table(claim(f"value 1 AUROC{CHOSEN}", low), claim(f"value 1 top-1{CHOSEN}"))
    assert (row["lens"], row["student"], row["what"], row["where"]) == (
        "probes", "distilled", "value 1", "layer 1, number 2",
    )  # fmt: skip
    assert row["AUROC"] == f"62.5 % [{100 * low:.1f} %, 75.0 %]"
    assert row["AUROC: strongest null"] == "frequency of the value 30.0 % [25.0 %, 35.0 %]"
    assert (row["n"], row["verdict"], row["accuracy"]) == ("50", verdict, EMPTY)


def test_lenses_stand_side_by_side_and_thoughts_have_rows_of_their_own() -> None:
    rows = table(
        claim(f"value 2 AUROC{CHOSEN}"),
        claim(f"value 1 AUROC{CHOSEN}"),
        claim(f"value 1 AUROC{CHOSEN}", lens="logit_lens"),
        claim(f"value 1 AUROC in thoughts{CHOSEN}", lens="logit_lens", position="thought 2"),
        claim(f"value 1 accuracy{CHOSEN}"),
    )
    assert [(row["lens"], row["what"]) for row in rows] == [
        ("probes", "value 1"), ("logit_lens", "value 1"), ("logit_lens in thoughts", "value 1"), ("probes", "value 2"),
    ]  # fmt: skip
    assert rows[0]["accuracy"] != EMPTY


def test_a_claim_is_told_with_what_patching_does_at_its_place_and_only_there() -> None:
    patched = claim("answer moved", lens="patching", module="residual")
    elsewhere = patched.model_copy(update={"layer": 2, "value": 0.9})
    other_site = patched.model_copy(update={"module": "mlp", "value": 0.9})
    (row,) = table(claim(f"value 1 AUROC{CHOSEN}"), elsewhere, other_site, patched)
    assert row["another value there moves the answer"] == "62.5 % [50.0 %, 75.0 %]"
    assert row["the same value there"] == "12.5 % [7.5 %, 17.5 %]"
    (row,) = table(claim(f"value 1 AUROC{CHOSEN}"), elsewhere, other_site)
    assert row["another value there moves the answer"] == EMPTY


def test_patching_claims_the_answer_and_what_is_no_claim_is_no_row() -> None:
    (row,) = table(claim(f"answer moved{CHOSEN}", lens="patching"))
    assert (row["lens"], row["accuracy"]) == ("patching", "62.5 % [50.0 %, 75.0 %]")
    others = [claim("value 1 AUROC"), claim(f"value 1 in top 5{CHOSEN}"), claim(f"divergence (nats){CHOSEN}")]
    invalid = claim(f"value 1 AUROC{CHOSEN}").model_copy(update={"invalid": "one class"})
    assert table(*others, invalid, *FINDINGS) == []
