"""Every variant, in any batch, equals the same run done alone by a loop over one growing list of embeddings."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTJConfig,
    GPTJForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    StableLmConfig,
    StableLmForCausalLM,
)  # fmt: skip

from stillroom.errors import DataError, UsageError
from stillroom.students.thoughts import (
    Answer,
    Intervention,
    Mean,
    Noise,
    Patch,
    Skip,
    Swap,
    Thinker,
    Variant,
    Zero,
    answer_variants,
    attention,
    statistics,
    think_and_answer,
    trace,
    trace_variants,
)  # fmt: skip
from stillroom.students.thoughts.interventions import Undisturbed, replaced
from toys import MODELS, PAD, WORDS, llama

Alone = tuple[list[int], list[Tensor], list[Tensor]]
BOT, EOT, WIDTH, STEPS, TOKENS = 2, 3, 16, 3, 4
SPREAD = 0.2  # weights large enough for different answers, small enough for rounding to stay small
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14], [15, 4], [20, 21, 22, 23], [30, 31]]
PARTNERS = (3, 0, 1, 5, 2, 4)


def grouped(spread: float) -> PreTrainedModel:
    """Four query heads that share two key heads."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=WORDS, hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=spread,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


KINDS = {**MODELS, "grouped": grouped}


def thinker(kind: str = "llama", **changes: object) -> Thinker:
    model = KINDS[kind](spread=SPREAD)
    torch.manual_seed(1)
    projection = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)).eval()
    plain = Thinker(model, projection, begin=(BOT,), end_of_thoughts=(EOT,), pad=PAD, stops=())
    return replace(plain, **changes)  # type: ignore[arg-type]


@torch.inference_mode()
def run_alone(who: Thinker, prompts: Sequence[Sequence[int]], row: int, variant: Variant, tokens: int) -> Alone:
    """Tokens, consumed thoughts and hidden states of one run: no batch, no padding, no mask, no cache."""
    embed = who.model.get_input_embeddings()
    sequence = [embed(torch.tensor(token)) for token in prompts[row]]

    def last() -> Tensor:
        return who.model.base_model(inputs_embeds=torch.stack(sequence)[None])[0][0, -1]

    thoughts: list[Tensor] = []
    hiddens: list[Tensor] = []
    if variant.thoughts is not None:
        sequence += [embed(torch.tensor(token)) for token in who.begin]
        for step in range(variant.thoughts):
            hidden = last()
            thought = who.projection(hidden) if who.projection else hidden
            here = [i for i in variant.interventions if i.step == step]
            for intervention in here:
                thought = changed(who, prompts, row, intervention, thought)
            if not any(isinstance(i, Skip) for i in here):
                sequence.append(thought)
                thoughts.append(thought)
                hiddens.append(hidden)
        sequence += [embed(torch.tensor(token)) for token in who.end_of_thoughts]
    ids: list[int] = []
    while len(ids) < tokens and not (ids and ids[-1] in who.stops):
        ids.append(int(who.model.get_output_embeddings()(last()).argmax()))
        sequence.append(embed(torch.tensor(ids[-1])))
    return ids, thoughts, hiddens


def changed(who: Thinker, prompts: Sequence[Sequence[int]], row: int, how: Intervention, thought: Tensor) -> Tensor:
    """What is consumed instead, from runs that are themselves done alone."""

    def undisturbed(other: int) -> Tensor:
        return run_alone(who, prompts, other, Variant(how.step + 1), 1)[1][how.step]

    if isinstance(how, Zero):
        return torch.zeros_like(thought)
    if isinstance(how, Swap):
        return undisturbed(how.partners[row])
    if isinstance(how, Mean):
        return sum(undisturbed(other) for other in range(len(prompts))) / len(prompts)  # type: ignore[return-value]
    if isinstance(how, Noise):
        return replaced(how, thought[None], [row], Undisturbed(prompts, torch.empty(0)))[0]
    if isinstance(how, Patch):
        return (how.vector if how.vector.dim() == 1 else how.vector[row]).to(thought)
    return thought


def all_alone(who: Thinker, variants: Sequence[Variant], tokens: int = TOKENS) -> list[list[Alone]]:
    return [[run_alone(who, PROMPTS, row, variant, tokens) for variant in variants] for row in range(len(PROMPTS))]


def assert_equal(who: Thinker, found: list[list[Answer]], alone: list[list[Alone]], tolerance: float = 1e-5) -> None:
    assert [len(row) for row in found] == [len(row) for row in alone]
    for answer, (ids, thoughts, hiddens) in zip(itertools.chain(*found), itertools.chain(*alone), strict=True):
        stopped = bool(ids) and ids[-1] in who.stops
        assert (answer.completion.ids, answer.completion.stopped) == (ids[:-1] if stopped else ids, stopped)
        assert len(answer.thoughts_Kd) == len(thoughts) == len(answer.hiddens_Kd)
        for given, expected in zip([*answer.thoughts_Kd, *answer.hiddens_Kd], [*thoughts, *hiddens], strict=True):
            torch.testing.assert_close(given, expected, atol=tolerance, rtol=0)


VECTOR = torch.linspace(-1, 1, WIDTH)
EVERY = [
    *trace_variants(STEPS, PARTNERS, scale=0.7).values(),
    *(Variant(STEPS, (Skip(i),)) for i in range(STEPS)),
    Variant(STEPS, (Patch(1, VECTOR),)),
    Variant(STEPS, (Patch(2, torch.outer(torch.arange(6.0), VECTOR)),)),
    Variant(STEPS, (Zero(0), Skip(1), Swap(2, PARTNERS))),
    Variant(STEPS, tuple(Zero(i) for i in range(STEPS))),
    Variant(STEPS, (Noise(1, 1.0), Noise(1, 2.0, seed=5))),
    Variant(2, (Swap(0, PARTNERS),)),
    Variant(1, (Mean(0),)),
    Variant(STEPS + 2, (Noise(3, 1.0),)),
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_variant_equals_the_same_run_done_alone(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    who = thinker(kind)
    alone = all_alone(who, EVERY)
    assert len({tuple(ids) for row in alone for ids, _, _ in row}) > 20  # else any mixing would pass
    for memory, tokens in ((1, 1024), (400_000, 1024), (1 << 30, 10)):
        monkeypatch.setattr(attention, "FIRST_PASS", tokens)
        assert_equal(who, answer_variants(who, PROMPTS, EVERY, TOKENS, vectors=True, memory=memory), alone)


def test_it_differs_from_the_run_done_alone_by_rounding_and_nothing_else() -> None:
    who = thinker("gpt2")  # the other kinds round to float32 inside
    who.model.double()
    who.projection.double()  # type: ignore[union-attr]
    found = answer_variants(who, PROMPTS, EVERY, 1, vectors=True)
    assert_equal(who, found, all_alone(who, EVERY, 1), tolerance=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_done_on_an_accelerator_is_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_on_cpu", lambda _: False)
    who, variants = thinker(kind), [Variant(2), Variant(2, (Swap(0, PARTNERS),)), Variant(None)]
    assert_equal(who, answer_variants(who, PROMPTS, variants, 3, vectors=True), all_alone(who, variants, 3))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("around", [((), ()), ((BOT, 4), ()), ((), (EOT, 4)), ((BOT, 4), (EOT, 5, 6))])
def test_any_tokens_around_the_thoughts_and_none(kind: str, around: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    who = thinker(kind, begin=around[0], end_of_thoughts=around[1], projection=None)
    variants = [Variant(None), Variant(0), Variant(2), Variant(2, (Zero(1),)), Variant(2, (Skip(0),))]
    assert_equal(who, answer_variants(who, PROMPTS, variants, 3, vectors=True), all_alone(who, variants, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_order_and_company_change_nothing(kind: str) -> None:
    who = thinker(kind)
    long = [*PROMPTS, [7] * 50]
    for prompts, rows in (
        (PROMPTS, range(6)),
        (PROMPTS[::-1], range(5, -1, -1)),
        (long, range(6)),
        ([PROMPTS[2]], [2]),
    ):
        found = answer_variants(who, prompts, [Variant(3), Variant(3, (Noise(0),))], TOKENS, vectors=True)
        for row, (plain, noisy) in zip(rows, found, strict=False):
            for answer, variant in ((plain, Variant(3)), (noisy, Variant(3, (Noise(0),)))):
                ids, thoughts, _ = run_alone(who, PROMPTS, row, variant, TOKENS)
                assert answer.completion.ids == ids
                torch.testing.assert_close(answer.thoughts_Kd, torch.stack(thoughts), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_end_at_any_stop_token_and_only_there(kind: str) -> None:
    free = [a.completion.ids for a in think_and_answer(thinker(kind), PROMPTS, 2, 8)]
    stops = (free[0][2], free[1][4])
    who = thinker(kind, stops=stops)
    found = answer_variants(who, PROMPTS, [Variant(2)], 8)
    assert_equal(who, found, all_alone(who, [Variant(2)], 8))
    assert found[0][0].completion.stopped
    assert not any(set(row[0].completion.ids) & set(stops) for row in found)


def logits_after(who: Thinker, *interventions: Intervention) -> Tensor:
    """What the head reads at the first position of the answer, after two thoughts."""
    seen: list[Tensor] = []
    hook = who.model.get_output_embeddings().register_forward_hook(lambda *call: seen.append(call[2]))
    answer_variants(who, PROMPTS, [Variant(2, interventions)], 1)
    hook.remove()
    return seen[-1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [0, 1])
def test_each_intervention_changes_the_thought_that_is_consumed_even_the_last(kind: str, step: int) -> None:
    who = thinker(kind)
    before = logits_after(who)
    for how in (Zero(step), Mean(step), Noise(step), Swap(step, PARTNERS), Skip(step), Patch(step, VECTOR)):
        assert (logits_after(who, how) - before).abs().amax(-1).min() > 1e-3, how


def test_a_variant_alone_in_its_call_borrows_late_thoughts_too() -> None:
    who = thinker()
    for late in (Swap(2, PARTNERS), Mean(2)):
        variants = [Variant(STEPS, (Zero(0), late))]
        assert_equal(who, answer_variants(who, PROMPTS, variants, 3, vectors=True), all_alone(who, variants, 3))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [0, 1])
def test_what_replaces_a_thought_by_itself_changes_nothing(kind: str, step: int) -> None:
    who = thinker(kind)
    before = logits_after(who)
    own = torch.stack([a.thoughts_Kd[step] for a in think_and_answer(who, PROMPTS, 2, 1)])
    for how in (Noise(step, 0.0), Swap(step, tuple(range(6))), Patch(step, own)):
        torch.testing.assert_close(logits_after(who, how), before, atol=1e-5, rtol=0)


def test_a_skipped_step_leaves_a_run_that_is_one_thought_shorter() -> None:
    who = thinker()
    for step in range(STEPS):
        skipped, shorter = zip(
            *answer_variants(who, PROMPTS, [Variant(STEPS, (Skip(step),)), Variant(STEPS - 1)], TOKENS, vectors=True),
            strict=True,
        )
        for a, b in zip(skipped, shorter, strict=True):
            assert a.completion == b.completion
            torch.testing.assert_close(a.thoughts_Kd, b.thoughts_Kd, atol=1e-5, rtol=0)


def test_noise_has_the_given_length_and_is_drawn_anew_for_each_seed_step_and_question() -> None:
    thoughts_Bd = torch.outer(torch.tensor([3.0, 3.0]), torch.eye(WIDTH)[0])
    alone = Undisturbed([[5, 6], [7]], torch.empty(0))
    draws = [
        replaced(Noise(step, 0.5, seed), thoughts_Bd, [0, 1], alone) - thoughts_Bd for step in (0, 1) for seed in (0, 1)
    ]
    noise_Dd = torch.cat(draws)
    torch.testing.assert_close(noise_Dd.norm(dim=1), torch.full((8,), 1.5))
    cosines_DD = nn.functional.normalize(noise_Dd) @ nn.functional.normalize(noise_Dd).T
    assert (cosines_DD - torch.eye(8)).abs().max() < 0.9


def test_statistics_of_vectors_worked_by_hand() -> None:
    head = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    first, second = statistics(torch.tensor([[3.0, 4.0], [0.0, 0.009]]), lambda x: x @ head.T, top=2)
    assert (first.norm, first.cosine_to_previous, first.sparsity) == (5.0, None, 0.0)
    assert second.cosine_to_previous == pytest.approx(0.8)
    assert second.sparsity == 1.0
    p, q = math.e**4 / (math.e**4 + 2 * math.e**3), math.e**3 / (math.e**4 + 2 * math.e**3)
    assert first.entropy == pytest.approx(-p * math.log(p) - 2 * q * math.log(q))
    assert [token for token, _ in first.top] == [1, 0]
    assert [share for _, share in first.top] == pytest.approx([p, q])


def test_a_trace_names_every_variant_once() -> None:
    who = thinker()
    found = trace(who, PROMPTS, 2, 3, PARTNERS)
    names = [f"{kind} {i}" for kind in ("zero", "mean", "noise", "swap") for i in range(2)]
    assert list(found[0]) == [*names, "early 0", "early 1", "early 2", "off"]
    assert len(trace_variants(6, PARTNERS)) == 6 * 4 + 7 + 1
    for row, answer in zip(found, think_and_answer(who, PROMPTS, 2, 3), strict=True):
        assert row["early 2"].completion == answer.completion
    assert trace(who, [], 2, 3, []) == []


class Passes:
    """Counts the positions that go through a model's first layer."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.shapes: list[tuple[int, int]] = []
        layer = model.base_model.layers[0]
        layer.register_forward_hook(lambda _, given, __: self.shapes.append(tuple(given[0].shape[:2])))


def test_a_trace_reads_each_question_once_and_forks_as_late_as_it_can() -> None:
    who = thinker()
    passes = Passes(who.model)
    trace(who, PROMPTS, 2, 3, PARTNERS)
    read, *later = passes.shapes
    assert read == (6, 7)  # six questions, the longest of six tokens and the one that begins the thoughts
    alone, branching, ending = [(6, 1)] * 2, [(6, 4), (6, 8)], [(6, 11), (6, 12), (6, 12)]
    assert later == [*alone, *branching, *ending]


def test_the_model_is_given_back_as_it_was() -> None:
    who = thinker()
    before = who.model.config._attn_implementation
    with pytest.raises(IndexError):
        think_and_answer(who, [[WORDS + 1]], 1, 1)
    assert who.model.config._attn_implementation == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_precision_gives_half_precision_thoughts(dtype: torch.dtype) -> None:
    who = thinker()
    who.model.to(dtype)
    who.projection.to(dtype)  # type: ignore[union-attr]
    (answer,) = think_and_answer(who, [[5, 6]], 2, 2)
    assert answer.thoughts_Kd.dtype == dtype


SMALL = {
    "vocab_size": WORDS, "hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.2,
    "pad_token_id": PAD, "eos_token_id": None, "bos_token_id": None,
}  # fmt: skip


def mistral() -> PreTrainedModel:
    torch.manual_seed(0)
    return MistralForCausalLM(MistralConfig(**SMALL, sliding_window=20)).eval()


def gemma2() -> PreTrainedModel:
    return Gemma2ForCausalLM(Gemma2Config(**SMALL, head_dim=8)).eval()


def gptj() -> PreTrainedModel:
    return GPTJForCausalLM(GPTJConfig(vocab_size=WORDS, n_embd=16, n_layer=1, n_head=2, rotary_dim=8)).eval()


def stablelm() -> PreTrainedModel:
    return StableLmForCausalLM(StableLmConfig(**SMALL)).eval()


def test_a_sliding_window_is_no_hindrance_to_texts_within_it() -> None:
    who, variants = thinker(model=mistral()), [Variant(2), Variant(2, (Zero(0),))]
    assert_equal(who, answer_variants(who, PROMPTS, variants, 3, vectors=True), all_alone(who, variants, 3))


@pytest.mark.parametrize(
    ("who", "prompts", "variant", "said"),
    [
        (thinker(), [[5], []], Variant(2), "question 1 has no token"),
        (thinker(), [[5]], Variant(2, (Zero(2),)), "Zero at step 2"),
        (thinker(), [[5]], Variant(None, (Zero(0),)), "consumes 0 thoughts"),
        (thinker(), [[5]], Variant(-1), "-1 thoughts"),
        (thinker(), [[5]], Variant(1, (Swap(0, (1,)),)), "one partner for each"),
        (thinker(), [[5]], Variant(1, (Patch(0, torch.zeros(2, WIDTH)),)), "2 vectors for 1 questions"),
        (thinker(), [[5] * 60], Variant(2), "attends to 64"),
        (thinker(model=llama().train()), [[5]], Variant(2), "training mode"),
        (thinker(model=mistral()), [[5] * 14], Variant(2), "21 positions .* attends to 20"),
        (thinker(model=gemma2()), [[5]], Variant(2), "Gemma2Attention attends in a way of its own"),
        (thinker(model=gptj()), [[5]], Variant(2), "GPTJForCausalLM attends in a way of its own"),
        (thinker(model=stablelm()), [[5]], Variant(2), "StableLmAttention attends in a way of its own"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_said(who: Thinker, prompts: list[list[int]], variant: Variant, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        answer_variants(who, prompts, [variant], 3)


@pytest.mark.parametrize("kind", MODELS)
def test_thoughts_off_alone_is_what_it_is_in_company(kind: str) -> None:
    who = thinker(kind)
    (alone,) = zip(*answer_variants(who, PROMPTS, [Variant(None)], 4), strict=True)
    company = [both[0] for both in answer_variants(who, PROMPTS, [Variant(None), Variant(2)], 4)]
    assert [answer.completion for answer in alone] == [answer.completion for answer in company]


def test_what_overflows_is_no_answer() -> None:
    """A student whose thoughts become infinite has no likeliest token."""
    with pytest.raises(DataError, match="its logits hold NaN or infinity"):
        answer_variants(thinker(), PROMPTS, [Variant(2, (Patch(0, torch.full((len(PROMPTS), WIDTH), torch.inf)),))], 3)
