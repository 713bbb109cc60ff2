"""The ledger: ranks worked by hand, what stands in the text is left out, chosen on validation and told on test."""

import numpy as np
import pytest
import torch

from stillroom.errors import DataError
from stillroom.lenses.ledger import Entry, Truth, beaten, candidates, enter, frequency, regions, truth
from stillroom.lenses.selection import CHOSEN, choose, corrected, invalid
from stillroom.records import Finding
from toys import problem, student

ALL3 = torch.tensor([[False, True, True, True]]).expand(3, 4)


def test_shares_that_are_beaten_are_worked_by_hand() -> None:
    scores = torch.tensor([[[3.0, 1.0, 3.0, 5.0], [9.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0]]])
    assert beaten(scores, torch.zeros(3, dtype=torch.long), ALL3).tolist() == [[0.5, 1.0, 0.0]]
    less = torch.tensor([[False, True, False, True]]).expand(3, 4)
    assert beaten(scores, torch.zeros(3, dtype=torch.long), less)[0].tolist() == [0.5, 1.0, 0.0]
    assert frequency(torch.tensor([2, 0, 2]), 4).tolist() == [1, 0, 2, 0]


def test_truth_leaves_out_what_can_be_copied() -> None:
    one = student()
    problems = [
        problem("a", ("2 + 3", 5), ("5 + 4", 9), question="Ann has 2 and 3 and 4"),
        problem("b", ("1 + 6", 7), ("7 + 1", 8), question="Ann has 1 and 6 and 7"),
    ]
    among = candidates(one, problems)
    assert among.values == ["5", "7", "8", "9"]
    first, last = (truth(one, problems, step, among) for step in (0, 1))
    assert first.rows == [0]  # 7 stands in the second question
    assert first.allowed_BK.tolist() == [[False, True, True, False]]  # neither itself nor the answer, 9
    assert last.rows == [0, 1]
    assert last.allowed_BK[1].tolist() == [True, False, False, True]  # 7 stands in the question


TRUE = torch.tensor([0, 0, 1])
RIGHT = torch.tensor([[9.0, 1, 2, 3], [9, 1, 2, 3], [1, 9, 2, 3]])
WRONG = torch.tensor([[0.0, 1, 2, 3], [0, 1, 2, 3], [1, 0, 2, 3]])


def entry(validation: torch.Tensor, test: torch.Tensor, true_B: torch.Tensor = TRUE) -> Entry:
    rows = Truth([0, 1, 2], true_B, torch.arange(4) != true_B[:, None])
    return Entry("toy", "s", 1, [(0, "a"), (1, "b")], validation, test, rows, rows, {"rival": torch.ones(1, 3, 4)})


def test_the_cell_is_chosen_on_validation_and_told_on_test() -> None:
    auroc, top = enter(entry(torch.stack([WRONG, RIGHT]), torch.stack([RIGHT, WRONG])))
    assert (auroc.layer, auroc.position, auroc.metric) == (1, "b", "value 2 AUROC, chosen on validation")
    assert (auroc.value, top.value, auroc.n) == (0, 0, 3)  # test's own best cell is not what is told
    assert {null.name: null.value for null in auroc.nulls} == pytest.approx(
        {
            "frequency of the value": (1 + 1 + 2 / 3) / 3,
            "another problem's reading": (1 / 3 + 0 + 1 / 3) / 3,
            "rival": 0.5,
        }
    )
    assert top.nulls[2].value == 0  # ties are no first places


def test_one_class_is_no_claim() -> None:
    (told,) = enter(entry(torch.stack([WRONG, RIGHT]), torch.stack([RIGHT, WRONG]), torch.zeros(3, dtype=torch.long)))
    assert "one class tells nothing" in told.invalid
    assert (told.metric, told.n, told.nulls) == ("value 2 AUROC", 3, ())
    assert np.isnan(told.value)


def test_thoughts_are_asked_for_alone_and_only_where_there_are_some() -> None:
    """The best cell of all is no thought; of the thoughts, the second is."""
    cells = [(1, "answer"), (0, "thought 1"), (1, "thought 1")]
    scores = torch.stack([RIGHT, WRONG, RIGHT])
    claim = entry(scores, scores)._replace(cells=cells, rivals={"own": scores, "one": WRONG[None]})
    everywhere, thoughts = (enter(claim.within(region))[0] for region in regions(cells))
    assert (everywhere.layer, everywhere.position, everywhere.metric) == (1, "answer", f"value 2 AUROC{CHOSEN}")
    assert (thoughts.layer, thoughts.position, thoughts.metric) == (
        1, "thought 1", f"value 2 AUROC in thoughts{CHOSEN}",
    )  # fmt: skip
    assert {null.name: null.value for null in thoughts.nulls if null.name in ("own", "one")} == {"own": 1, "one": 0}
    assert [region.name for region in regions(cells[:1])] == [""]


def test_a_cell_is_not_chosen_from_what_is_no_number() -> None:
    assert choose(np.array([0.2, 0.9, 0.9])) == 1
    for bad in (np.array([]), np.array([0.1, np.nan])):
        with pytest.raises(DataError, match="cannot be chosen"):
            choose(bad)


def test_grids_pay_for_their_size() -> None:
    address = {"lens": "l", "subject": "s", "reference": "", "layer": 0, "module": "", "position": "", "metric": "m"}
    ones = [Finding(**address, value=1.0, n=3, low=1.0, high=1.0, nulls=(), p=p) for p in (0.01, None, 0.04, 0.03)]
    assert [f.adjusted for f in corrected(ones)] == pytest.approx([0.03, None, 0.04, 0.04])
    assert [f.adjusted for f in corrected(ones, "holm")] == pytest.approx([0.03, None, 0.06, 0.06])
    bad = invalid("too few", **address, n=2)
    assert bad.invalid == "too few"
    assert np.isnan(bad.value)
