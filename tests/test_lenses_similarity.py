"""Similarity: CKA of a set with itself is 1 whatever is turned or scaled; sums that grow give what one pass gives."""

import numpy as np
import pytest
import torch

from stillroom.errors import DataError
from stillroom.lenses.reading import spoken
from stillroom.lenses.representations import RepresentationsConfig, compare_thoughts, look, removed, steer, told
from stillroom.lenses.similarity import Pairing, Spread, cka, hsic, hsics, isotropic_share, relative
from stillroom.lenses.subjects import Subjects
from stillroom.students import Manner, Student
from stillroom.students.folders import Thoughts
from stillroom.students.tokens import add_tokens
from toys import student, sums

DRAW = torch.Generator().manual_seed(0)
X, Y = (torch.randn(64, 6, generator=DRAW, dtype=torch.float64) for _ in range(2))


def of(*pairs: tuple[torch.Tensor, torch.Tensor]) -> float:
    return cka(np.array([hsics(*pair) for pair in pairs]))


def test_cka_knows_rotation_and_scale() -> None:
    turn = torch.linalg.qr(torch.randn(6, 6, generator=DRAW, dtype=torch.float64)).Q
    assert of((X, X)) == pytest.approx(1)
    assert of((X, 7 * X @ turn)) == pytest.approx(1)
    assert of((X, X[:, :3] @ torch.ones(3, 2, dtype=torch.float64))) < 1  # of unequal width
    assert abs(of((X, Y))) < 0.1
    assert of((X[:32], X[:32]), (X[32:], X[32:])) == pytest.approx(1)  # in batches too


def test_hsic_is_unbiased_by_hand() -> None:
    """Four rows, K of the pairs (0, 1) and (2, 3), L the same: tr = 4, 1ᵀK1 = 4, 1ᵀKL1 = 4."""
    gram = torch.zeros(4, 4, dtype=torch.float64)
    gram[0, 1] = gram[1, 0] = gram[2, 3] = gram[3, 2] = 1
    assert hsic(gram + torch.eye(4), gram) == pytest.approx(
        (4 + 4 * 4 / 6 - 2 / 2 * 4) / 4
    )  # the diagonal plays no part
    means = [hsics(*(torch.randn(8, 3, generator=DRAW) for _ in range(2)))[0] for _ in range(300)]
    assert abs(np.mean(means)) < 4 * np.std(means) / np.sqrt(300)


def test_constant_vectors_are_no_number() -> None:
    assert np.isnan(of((torch.ones(8, 3), X[:8])))


def test_a_spread_that_grows_gives_what_one_pass_gives() -> None:
    spread = Spread()
    skewed = X * torch.tensor([9.0, 1, 1, 1, 1, 1]) + 3
    for part in skewed.split(10):
        spread.add(part)
    variance, directions = spread.directions()
    np.testing.assert_allclose(variance.numpy(), np.sort(np.linalg.eigvalsh(np.cov(skewed.numpy().T)))[::-1], rtol=1e-8)
    assert abs(float(directions[0, 0])) > 0.99  # the planted direction
    few = Spread()
    few.add(X[:6])
    with pytest.raises(DataError, match="6 samples for 6 dimensions"):
        few.directions()
    assert isotropic_share(400, 4) == pytest.approx(1.1**2 / 4)


def test_rows_are_compared_one_by_one() -> None:
    a, b = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 2.0]])
    norm, angle = relative(a, b)
    assert norm.tolist() == pytest.approx([1, 0, 5**0.5])
    assert angle.tolist() == [0, 0, 0]
    pairing = Pairing()
    for rows in (slice(0, 2), slice(2, 3)):  # two batches; the first problem has a row in both
        pairing.add(a[rows], b[rows], torch.tensor([0, 1, 0])[rows], 8)
    assert pairing.means()[:, 0].tolist() == pytest.approx([(1 + 5**0.5) / 2, 0])


def test_a_student_is_apart_from_itself_by_nothing() -> None:
    one = student()
    splits = {"validation": sums(6), "test": sums(12)[6:]}
    found = look(RepresentationsConfig(batch_size=3), Subjects({"base": one, "s": one}, {}, splits))
    told = {f.metric: [g.value for g in found if g.metric == f.metric and not g.invalid] for f in found}
    assert max(told["relative norm of the difference"]) == 0
    assert min(told["cosine"]) == pytest.approx(1)
    assert min(told["CKA"]) == pytest.approx(1)
    gone = [f for f in found if f.metric.startswith("divergence removed")]
    assert gone
    assert all(f.invalid for f in gone)


def test_steering_along_a_planted_direction_removes_the_divergence() -> None:
    """A student that is the base with a vector added behind its last block is reached by adding that vector."""
    base, moved = student("gpt2"), student("gpt2")
    with torch.no_grad():
        moved.model.transformer.h[1].mlp.c_proj.bias += 3 * torch.randn(16, generator=torch.Generator().manual_seed(1))
    texts = {split: [spoken(base, p) for p in rows] for split, rows in (("validation", sums(5)), ("test", sums(9)[5:]))}
    found = {f.metric: f for f in steer("base", "s", base, moved, texts, RepresentationsConfig(batch_size=4))}
    mean = found["divergence removed by the mean difference, chosen on validation"]
    assert mean.layer == 2
    assert mean.value == pytest.approx(1, abs=1e-3)
    assert mean.nulls[0].high < mean.low


def test_what_is_removed_is_worked_by_hand() -> None:
    address = {"lens": "r", "subject": "s", "reference": "b", "layer": 1, "module": "", "position": "", "metric": "m"}
    (found,) = removed(np.array([[2.0, 2.0], [1.0, 1.0], [2.0, 2.0]]), address, 0)
    assert (found.value, found.low, found.high, found.nulls[0].value) == (0.5, 0.5, 0.5, 0)


def test_a_reference_s_zero_vector_has_no_relative_norm_and_leaves_the_rest_alone() -> None:
    first, pairing = X.clone(), Pairing()
    first[2] = 0
    for rows in torch.arange(64).chunk(2):
        pairing.add(first[rows], Y[rows], rows, 64)
    found = {f.metric: f for f in told("base", "s", 0, "all", pairing, RepresentationsConfig())}
    norm = found.pop("relative norm of the difference")
    assert "vector of the reference is zero" in norm.invalid
    assert np.isnan(norm.value)
    assert set(found) == {"cosine", "CKA"}
    assert not any(f.invalid for f in found.values())


@pytest.mark.parametrize(("batches", "valid"), [(1, False), (2, True)])
def test_one_batch_has_no_interval(batches: int, valid: bool) -> None:
    pairing = Pairing()
    for rows in torch.arange(64).chunk(batches):
        pairing.add(X[rows], X[rows] + Y[rows], rows, 64)
    (found,) = [f for f in told("base", "s", 1, "all", pairing, RepresentationsConfig()) if f.metric == "CKA"]
    assert found.n == batches
    assert (not found.invalid) == valid
    assert valid or "one batch alone" in found.invalid


def test_thoughts_are_compared_batch_by_batch() -> None:
    one = student()
    add_tokens(one.model, one.tokenizer, ["<bot>", "<eot>"])
    thinks = Student(one.model, one.tokenizer, Manner(thoughts=Thoughts(count=2)), torch.nn.Linear(16, 16).eval())
    kept = compare_thoughts(thinks, thinks, sums(6), RepresentationsConfig(batch_size=3))
    assert {len(pairing.sums) for pairing in kept.values()} == {2}
    assert {tuple(pairing.rows.items()) for pairing in kept.values()} == {tuple((i, 2) for i in range(6))}
