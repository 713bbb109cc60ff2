"""Packed rows do not see each other, and a packed batch has the padded one's loss; what mixes rows is found out."""

import pytest
import torch

from architectures import NAMES, tiny
from stillroom.students.batches import IGNORED, Example, keeps_apart, lesson_batches, packed, padded
from stillroom.students.sft import SftObjective

ROWS = [
    Example(
        f"p{i}",
        prompt=[2 + (7 * i + j) % 60 for j in range(i % 5)],
        completion=[3 + (5 * i + j) % 60 for j in range(2 + i % 3)],
    )
    for i in range(8)
]
LENGTHS = [len(row.prompt) for row in ROWS]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "bloom"])
def test_packing_changes_no_loss_and_no_gradient(name: str) -> None:
    losses, gradients = [], []
    for packing in (False, True):
        objective = SftObjective(tiny(name))
        batch = lesson_batches(ROWS, LENGTHS, 0, 8, 0, packing)(0, 0, 1)
        loss = objective(**batch.tensors)["ce"]
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in objective.parameters() if p.grad is not None]))
        assert batch.counts == {"ce": sum(row.labels for row in ROWS)}
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_that_mixes_packed_rows_is_found_out(name: str, attention: str) -> None:
    if name == "bloom" and attention == "sdpa":
        pytest.skip("BLOOM has eager attention alone")
    model = tiny(name, attention=attention).train()
    assert keeps_apart(model) == (name != "bloom")  # its ALiBi counts distances over the whole row
    assert model.training


def test_padded_rows_by_hand() -> None:
    """Lengths are multiples of 8, of what is read and of what is predicted; no padding is a label."""
    rows = [Example("a", [5, 6, 7], [8, 9, 1]), Example("b", [5, 6], [7, 8, 9, 10, 11, 12, 1])]
    tensors = {name: tensor.tolist() for name, tensor in padded(rows, 0).items()}
    assert tensors == {
        "input_ids_BT": [[5, 6, 7, 8, 9, 1, *[0] * 10], [5, 6, 7, 8, 9, 10, 11, 12, 1, *[0] * 7]],
        "keep_K": list(range(15)),
        "labels_BK": [
            [*[IGNORED] * 2, 8, 9, 1, *[IGNORED] * 10], [IGNORED, 7, 8, 9, 10, 11, 12, 1, *[IGNORED] * 7],
        ],
    }  # fmt: skip
    long = padded([Example("c", [2] * 9, [3] * 4), Example("d", [2] * 12, [3])], 0)
    assert long["keep_K"].tolist() == list(range(7, 15))
    assert long["labels_BK"].tolist() == [
        [IGNORED, 3, 3, 3, 3, IGNORED, IGNORED, IGNORED], [*[IGNORED] * 4, 3, *[IGNORED] * 3],
    ]  # fmt: skip


def test_a_packed_row_by_hand() -> None:
    rows = [Example("a", [5, 6], [7, 8]), Example("b", [], [9, 10, 11])]
    tensors = {name: tensor.tolist() for name, tensor in packed(rows).items()}
    assert tensors == {
        "input_ids_BT": [[5, 6, 7, 8, 9, 10, 11]],
        "position_ids_BT": [[0, 1, 2, 3, 0, 1, 2]],
        "keep_K": [1, 2, 4, 5],
        "labels_BK": [[7, 8, 10, 11]],  # nothing stands before 9
    }


@pytest.mark.parametrize("packing", [False, True])
def test_the_parts_of_an_update_are_its_rows_and_their_shares_its_loss(packing: bool) -> None:
    """Pitfall 17: each part weighs by its labels."""
    objective = SftObjective(tiny("llama"))
    batches = lesson_batches(ROWS, LENGTHS, 0, 8, 0, packing)
    whole = batches(0, 0, 1)
    for parts in (2, 3, 8):
        each = [batches(0, part, parts) for part in range(parts)]
        assert tuple(p for batch in each for p in batch.problems) == whole.problems
        counts = [batch.counts["ce"] for batch in each]
        assert sum(counts) == whole.counts["ce"]
        loss = sum(objective(**b.tensors)["ce"].item() * n for b, n in zip(each, counts, strict=True)) / sum(counts)
        assert loss == pytest.approx(objective(**whole.tensors)["ce"].item(), rel=1e-5)


def test_two_tasks_are_two_terms_each_a_mean_over_its_own_labels() -> None:
    """Distilling step-by-step: L = L_label + λ L_rationale."""
    rows = [Example(r.problem, r.prompt, r.completion, ("answer", "rationale")[i % 2]) for i, r in enumerate(ROWS)]
    batch = lesson_batches(rows, LENGTHS, 0, 8, 0)(0, 0, 1)
    terms = SftObjective(tiny("llama"), {"answer": 1.0, "rationale": 0.25})(**batch.tensors)
    assert batch.counts == {name: sum(r.labels for r in rows if r.term == name) for name in ("answer", "rationale")}
    for name, weight in (("answer", 1.0), ("rationale", 0.25)):
        own = [Example(r.problem, r.prompt, r.completion) for r in rows if r.term == name]
        alone = lesson_batches(own, [len(r.prompt) for r in own], 0, 4, 0)(0, 0, 1)
        assert terms[name].item() == pytest.approx(
            weight * SftObjective(tiny("llama"))(**alone.tensors)["ce"].item(), rel=1e-5
        )
