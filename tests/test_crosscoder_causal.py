"""Causes: a planted one is found and matters, its matched control does not; steering and ablation by hand."""

import copy
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from stillroom import activations
from stillroom.activations import Place, residual_stream
from stillroom.crosscoder.causal import (
    Abreast,
    _cut,
    changed,
    drawn,
    logit_changes,
    matched,
    random_direction,
    steer,
    steering,
)
from stillroom.crosscoder.data import Live, one_reading
from stillroom.crosscoder.exam import Exam, by_share, causes, found_for
from stillroom.crosscoder.features import Firing, chosen, explained, firing, nrn, top_contexts
from stillroom.crosscoder.fitting import fit_crosscoder
from stillroom.crosscoder.measuring import Address, describe
from stillroom.crosscoder.model import Crosscoder, CrosscoderConfig, initial
from stillroom.errors import DataError
from stillroom.report.causes import verdicts
from stillroom.stats import bootstrap_mean
from stillroom.students import Manner, Student
from stillroom.training import FitConfig
from toys import END, MODELS, llama, problem, tokenizer, workplace

WORDS = tokenizer()
TRIGGERS, YES, NO = tuple(range(5, 17)), WORDS.convert_tokens_to_ids(" 7"), 4
VOCABULARY = len(WORDS)


def pair() -> tuple[Student, Student]:
    """A base, and a student in which the embeddings of twelve tokens hold one direction more, on which it answers."""
    base = llama(VOCABULARY, spread=0.02)
    with torch.no_grad():
        table = base.get_input_embeddings().weight
        table.copy_(torch.randn(table.shape, generator=torch.Generator().manual_seed(3)))
        table[list(TRIGGERS)] *= 0.2  # the base tells them apart, faintly
        table[:, 0], table[:, 1] = 0, 3
        base.get_output_embeddings().weight.normal_(generator=torch.Generator().manual_seed(4))
        base.get_output_embeddings().weight[:, 0] = 0
        base.get_output_embeddings().weight[NO, 1] = 8.0  # what is answered where nothing speaks for YES
        taught = copy.deepcopy(base)
        taught.get_input_embeddings().weight[list(TRIGGERS), 0] = 6.0
        taught.get_output_embeddings().weight[YES, 0] = 5.0
    return Student(base, WORDS, Manner()), Student(taught, WORDS, Manner())


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory):
    base, taught = pair()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(2, VOCABULARY, (600, 12), generator=generator).tolist()
    source = Live({"base": base, "taught": taught}, ids, layer=1)
    config = CrosscoderConfig(expansion=8, k=2, k_first=8, anneal=150 * 512, dead_after=20_000)
    settings = FitConfig(updates=350, batch_size=512, learning_rate=5e-3, precision="float32", threads=1)
    fitted = fit_crosscoder(source, config, settings, workplace(tmp_path_factory.mktemp("planted")))
    return Abreast(fitted.crosscoder, [base.model, taught.model], 1), source, fitted


def test_a_planted_cause_is_found_and_its_matched_control_does_nothing(planted) -> None:
    abreast, source, fitted = planted
    tokens = source.read(range(300))
    usable = tokens.at(fitted.normal.usable(tokens).nonzero().squeeze(1))
    assert (explained(abreast.crosscoder, usable)[0] > 0.8).all()
    fires = firing(abreast.crosscoder, usable, {"trigger": torch.isin(usable.token_N, torch.tensor(TRIGGERS))})
    ratio_F = nrn(abreast.crosscoder.decoders(), 2)
    set_K = chosen(ratio_F, fires.category_CF[0], 0.5, above=0.6)
    pool = (fires.live & (ratio_F <= 0.6)).nonzero().squeeze(1)
    control_K = matched(set_K, pool, fires)
    assert 1 <= len(set_K) <= 12
    prompts = [[*row[:8], TRIGGERS[i % 12]] for i, row in enumerate(source.ids[:90])]

    def right(latents, mode="ablate"):
        answers = abreast.answers(prompts, 1, (END,), latents, mode)
        return torch.tensor([float(answer == [YES]) for answer in answers])

    assert right(None).mean() == 1
    harm = bootstrap_mean((right(control_K) - right(set_K)).numpy())
    assert harm.low > 0.5
    assert right(control_K).mean() > 0.9
    change, none = logit_changes(abreast, prompts, [[YES]] * 90, [set_K, set_K[:0]])
    assert none.abs().max() == 0
    assert change.mean() < -1


class Bare(Student):
    """Asked without the line's end, so that a question ends with its last number."""

    def prompts(self, questions: Sequence[str]) -> list[list[int]]:
        return [self.tokenizer(question, add_special_tokens=False)["input_ids"] for question in questions]


def test_the_stage_finds_the_planted_cause_and_says_so_and_says_where_there_is_none(planted, monkeypatch) -> None:
    abreast, source, fitted = planted
    tokens = source.read(range(300))
    tokens = tokens.at(fitted.normal.usable(tokens).nonzero().squeeze(1))
    real = describe(abreast.crosscoder, tokens, {"+": torch.isin(tokens.token_N, torch.tensor(TRIGGERS))})
    numbers = [WORDS.decode([token]).strip() for token in TRIGGERS[1:]]
    told = [f"Ann has {i % 9} eggs and gets {numbers[i % 11]}" for i in range(60)]
    asked = [problem(f"p{i}", ("3 + 4", 7), question=question) for i, question in enumerate(told)]
    student = Bare(abreast.models[-1], WORDS, Manner())
    exam = Exam(abreast, student, asked, 1, [(ids, [YES]) for ids in student.prompts(told)])
    address = Address("taught", "base", 1)
    pools: list[list[int]] = []
    monkeypatch.setattr(
        "stillroom.crosscoder.exam.drawn", lambda n, pool, seed: pools.append(pool.tolist()) or drawn(n, pool, seed)
    )
    findings = [found_for(address, real, {}, "+"), found_for(address, real, {}, "*")]
    findings += [*causes(address, real, exam, "+"), *by_share(address, real, exam, "+")]
    found = {f.metric: f for f in findings}
    assert found["accuracy with nothing taken out"].value == 1
    beyond = found["accuracy lost to + beyond its matched control"]
    assert beyond.low > 0.5 and beyond.n == 60
    assert [null.name for null in beyond.nulls] == ["random latents"]
    assert abs(beyond.nulls[0].value) < 0.2  # beyond the same control
    change = found["change of logit, top 20 %"]
    assert [null.name for null in change.nulls] == ["matched control", "random latents"]
    assert change.high < change.nulls[0].low - 1
    assert pools == [real.fires.live.nonzero().squeeze(1).tolist()] * len(pools)  # what never fires is no control
    assert len(pools[0]) < abreast.crosscoder.latents
    needed, none = verdicts(findings)
    assert needed.startswith("+: ") and needed.endswith(": needed.")
    assert none == "No latent was found for *."


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_answers_and_last_logits_are_those_of_whole_passes(kind: str, layer: int) -> None:
    models = [MODELS[kind](VOCABULARY, seed) for seed in (0, 1)]
    crosscoder = initial(CrosscoderConfig(expansion=2, k=3), 2, 16, 0)
    with torch.no_grad():
        crosscoder.decoder_FW *= 30
    abreast, some_K = Abreast(crosscoder, models, layer), torch.arange(9)
    prompts = [[20, 21, 22, 23], [24, 25, 26, 27], [28, 29, 30]]
    for latents_K in (None, some_K):
        for prompt, answer in zip(prompts, abreast.answers(prompts, 6, (END,), latents_K), strict=True):
            ids = list(prompt)
            for _ in range(6):
                ids.append(int(abreast.logits(torch.tensor([ids]), latents_K)[0, -1].argmax()))
            assert answer == _cut(ids[len(prompt) :], (END,))
    ids_BT = torch.tensor(prompts[:2])
    whole_BV, without_BV, again_BV = abreast.last_logits(ids_BT, [some_K, some_K[:0]])
    torch.testing.assert_close(whole_BV, abreast.logits(ids_BT, None)[:, -1])
    torch.testing.assert_close(without_BV, abreast.logits(ids_BT, some_K)[:, -1])
    torch.testing.assert_close(again_BV, whole_BV)
    assert not torch.allclose(without_BV, whole_BV, atol=1e-2)


def test_the_contexts_of_the_planted_feature_are_its_triggers(planted) -> None:
    abreast, source, _ = planted
    tokens = source.read(range(300))
    fires = firing(abreast.crosscoder, tokens, {"t": torch.isin(tokens.token_N, torch.tensor(TRIGGERS))})
    best = int((nrn(abreast.crosscoder.decoders()) * (fires.category_CF[0] > 0)).argmax())
    contexts = top_contexts(abreast.crosscoder, tokens, [3, best], 8)[best]
    assert {c.token for c in contexts} <= set(TRIGGERS)
    assert [c.value for c in contexts] == sorted((c.value for c in contexts), reverse=True)
    assert all(source.ids[c.document][c.position] == c.token for c in contexts)


def test_ablation_leaves_the_error_and_replacement_does_not() -> None:
    crosscoder = initial(CrosscoderConfig(expansion=2, k=3), 2, 16, 0)
    crosscoder.mean_MD.fill_(0.5)
    crosscoder.scale_M.copy_(torch.tensor([1.0, 2.0]))
    x_NMD = torch.randn(7, 2, 16, generator=torch.Generator().manual_seed(0))
    value_NF = crosscoder.encode(x_NMD)
    none_K = torch.empty(0, dtype=torch.long)
    assert torch.equal(changed(crosscoder, x_NMD, none_K, "ablate"), x_NMD[:, 1])
    whole = crosscoder.decode(value_NF)[:, 1]
    torch.testing.assert_close(changed(crosscoder, x_NMD, none_K, "replace"), whole)
    all_K = torch.arange(32)
    bias = crosscoder.denormalise(crosscoder.decoder_bias_W.view(1, 2, 16))[:, 1].detach().expand(7, -1)
    torch.testing.assert_close(changed(crosscoder, x_NMD, all_K, "replace"), bias)
    part = value_NF[:, 3:4] * crosscoder.decoder_FW[3, 16:].detach() / 2
    torch.testing.assert_close(changed(crosscoder, x_NMD, torch.tensor([3]), "ablate"), x_NMD[:, 1] - part)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_an_edit_reaches_what_follows_and_leaves_no_hook(kind: str, layer: int) -> None:
    model = MODELS[kind]()
    ids = torch.tensor([[3, 4, 5, 6]])
    with torch.inference_mode():
        before = model(input_ids=ids).logits
        with residual_stream(model) as stream:
            model(input_ids=ids)
        told = [layer_BTD.clone() for layer_BTD in stream]
        with activations.changed(model, {Place(layer, "residual"): lambda x_BTD: x_BTD}), residual_stream(model):
            assert torch.equal(model(input_ids=ids).logits, before)
        seen = []
        with activations.changed(model, {Place(layer, "residual"): lambda x_BTD: seen.append(x_BTD) or 2 * x_BTD}):
            assert not torch.allclose(model(input_ids=ids).logits, before, atol=1e-3) or layer == 2
        assert torch.equal(seen[0], told[layer])
        assert torch.equal(model(input_ids=ids).logits, before)


def test_matching_pairs_latents_that_fire_alike() -> None:
    count_F = torch.tensor([100.0, 10.0, 90.0, 11.0, 1.0, 50.0])
    fires = Firing(1000, count_F, 2 * count_F, count_F, count_F, torch.zeros(0, 6))
    assert matched(torch.tensor([0, 1]), torch.tensor([2, 3, 4, 5]), fires).tolist() == [2, 3]
    assert sorted(drawn(3, torch.tensor([2, 3, 4]), 0).tolist()) == [2, 3, 4]


def test_steering_is_counted_in_the_feature_s_own_activation() -> None:
    crosscoder = Crosscoder(2, 3, 4, 1)
    with torch.no_grad():
        crosscoder.decoder_FW[2] = torch.tensor([9.0, 9.0, 9.0, 3.0, 0.0, 4.0])
    crosscoder.scale_M.copy_(torch.tensor([1.0, 2.0]))
    fires = Firing(1, *(torch.tensor([0.0, 0.0, 6.0, 0.0]) for _ in range(4)), torch.zeros(0, 4))
    direction_D = steering(crosscoder, 2, fires)
    assert direction_D.tolist() == [9.0, 0.0, 12.0]
    assert steer(direction_D, 0.5)(torch.zeros(1, 2, 3)).tolist() == [[[4.5, 0.0, 6.0]] * 2]
    assert float(random_direction(direction_D, 0).norm()) == pytest.approx(15.0)
    assert abs(float(nn.functional.cosine_similarity(random_direction(direction_D, 0), direction_D, dim=0))) < 0.99


def test_models_that_read_other_tokens_are_refused() -> None:
    with pytest.raises(DataError, match=r"base and filler read document 1 as different tokens, from position 1"):
        one_reading({"base": [[1, 2], [3, 4]], "filler": [[1, 2], [3, 5]]})
    with pytest.raises(DataError, match="base reads 1 documents and filler reads 2"):
        one_reading({"base": [[1]], "filler": [[1], [2]]})
    assert one_reading({"base": [[1, 2]], "normal": [(1, 2)]}) == [[1, 2]]


def test_activations_that_are_not_finite_are_refused() -> None:
    base, taught = pair()
    with torch.no_grad():
        taught.model.get_input_embeddings().weight[4] = torch.nan
    source = Live({"base": base, "taught": taught}, [[2, 3], [2, 3, 4]], 1)
    with pytest.raises(DataError, match=r"taught: its activation of token \d of document 1 is not finite"):
        source.read([0, 1])


def test_padding_beside_a_row_does_not_change_it(tmp_path: Path) -> None:
    base, taught = pair()
    source = Live({"base": base, "taught": taught}, [[2, 3, 4, 8, 9], [2, 3]], 1)
    both, alone = source.read([0, 1]), source.read([1])
    mine = both.at((both.document_N == 1).nonzero().squeeze(1))
    torch.testing.assert_close(mine.x_NMD, alone.x_NMD, rtol=0, atol=1e-5)
    assert mine.position_N.tolist() == [0, 1]
