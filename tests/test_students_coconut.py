"""Coconut equals a plain loop without cache, batch or padding, at every stage and at many stages in one batch."""

import dataclasses
import json

import pytest
import torch
from torch import Tensor, nn

from stillroom.errors import ConfigError
from stillroom.students.adapters import AdapterConfig, attach, checkpoint_activations, merged
from stillroom.students.batches import IGNORED
from stillroom.students.chains import Chain
from stillroom.students.coconut import (
    CoconutConfig,
    CoconutObjective,
    coconut_batches,
    longest,
    resets,
    stage_of,
    staged,
    staged_tensors,
    starts,
)
from stillroom.students.step_decoder import StepDecoder
from stillroom.students.thoughts import Thinker, think_and_answer
from stillroom.training import FitConfig, fit
from toys import MODELS, PAD, workplace

BOT, EOT = (30,), (31,)
CHAINS = [
    Chain(
        problem=f"p{i}",
        prompt=[4 + (5 * i + j) % 20 for j in range(1 + i % 5)],
        opening=[24, 25],
        steps=[[5 + (i + j + k) % 18 for k in range(2 + j % 2)] for j in range(i % 5)],
        closing=[26],
        answer=[27, 28, 4 + i % 19, 29, 1],
        value_at=2,
    )
    for i in range(8)
]
LENGTHS = [len(chain.prompt) for chain in CHAINS]
MIXED = CoconutConfig(stage_updates=[1, 1, 1, 1], mix=1.0)
"""From update 4 on, each row is of any stage."""


def objective(kind: str, config: CoconutConfig) -> CoconutObjective:
    model = MODELS[kind](40, spread=0.2)
    return CoconutObjective(model, config, StepDecoder(model) if config.explain else None).eval()


def batches(config: CoconutConfig, size: int = 8, chains: list[Chain] = CHAINS):
    return coconut_batches(chains, [len(c.prompt) for c in chains], config, 40, BOT, EOT, PAD, size, 0)


def words_of(chain: Chain, first: int) -> list[int]:
    return [token for step in chain.steps[first:] for token in step]


def shown(chain: Chain, stage: int) -> tuple[list[int], int, list[int], list[int]]:
    """What is read, how many thoughts, what is read after them, what is learned."""
    if stage == 0:
        return chain.prompt, 0, [], [*chain.opening, *words_of(chain, 0), *chain.closing, *chain.answer]
    if stage > 3 or stage >= len(chain.steps):
        return [*chain.prompt, *BOT], 2 * min(stage, 3), [*EOT], chain.answer
    left = [*chain.opening, *words_of(chain, stage), *chain.closing, *chain.answer]
    return [*chain.prompt, *BOT], 2 * stage, [*EOT], left


def reference(model: nn.Module, chain: Chain, stage: int) -> tuple[list[Tensor], list[Tensor]]:
    """The losses of all labels and the thoughts; every pass reads its whole prefix anew, one row at a time."""
    embed = model.get_input_embeddings()
    before, thoughts, after, learned = shown(chain, stage)
    prefix, made = embed(torch.tensor(before)), []
    for _ in range(thoughts):
        out = model(inputs_embeds=prefix[None], output_hidden_states=True, use_cache=False)
        made.append(out.hidden_states[-1][0, -1])
        prefix = torch.cat([prefix, made[-1][None]])
    whole = torch.cat([prefix, embed(torch.tensor([*after, *learned]))])
    logits = model(inputs_embeds=whole[None], use_cache=False).logits[0]
    first = len(whole) - len(learned)
    return [-logits[first + i - 1].log_softmax(-1)[token] for i, token in enumerate(learned)], made


def stages_in(config: CoconutConfig, update: int, problems: tuple[str, ...]) -> list[int]:
    return [stage_of(config, starts(config, 40), update, int(name[1:]), 0) for name in problems]


@pytest.mark.parametrize("size", [1, 8])
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
    ("config", "updates"),
    [(CoconutConfig(stage_updates=[1, 1, 1, 1]), range(5)), (MIXED, range(4, 12))],
    ids=["stage by stage", "mixed"],
)
def test_loss_and_gradients_are_those_of_a_plain_loop(config, updates, kind: str, size: int) -> None:
    """Pitfalls 5 and 6: masks and positions reach every pass, so that no row sees another, padding, or a thought that
    it does not have."""
    made, seen = objective(kind, config), set()
    for update in updates:
        batch = batches(config, size)(update, 0, 1)
        stages = stages_in(config, update, batch.problems)
        rows = [CHAINS[int(name[1:])] for name in batch.problems]
        losses = [
            loss for row, stage in zip(rows, stages, strict=True) for loss in reference(made.model, row, stage)[0]
        ]
        expected = torch.stack(losses).mean()
        expected.backward()
        gradients = {name: p.grad for name, p in made.model.named_parameters()}
        made.zero_grad()
        terms = made(**batch.tensors)
        assert list(terms) == list(batch.counts) == ["ce"]
        assert batch.counts["ce"] == len(losses)
        torch.testing.assert_close(terms["ce"], expected, rtol=1e-5, atol=1e-5)
        terms["ce"].backward()
        for name, p in made.model.named_parameters():
            torch.testing.assert_close(p.grad, gradients[name], rtol=1e-4, atol=1e-5)
        made.zero_grad()
        seen |= {len(set(stages))}
    assert max(seen) > 1 or size == 1 or config.mix == 0


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", MODELS)
def test_more_padding_changes_nothing(kind: str, attention: str) -> None:
    made = objective(kind, MIXED)
    made.model.set_attn_implementation(attention)
    tensors = batches(MIXED)(5, 0, 1).tensors
    wide = {
        **tensors,
        "question_BQ": nn.functional.pad(tensors["question_BQ"], (0, 3), value=9),
        "tail_BA": nn.functional.pad(tensors["tail_BA"], (0, 4), value=9),
        "labels_BK": nn.functional.pad(tensors["labels_BK"], (0, 4), value=IGNORED),
    }
    torch.testing.assert_close(made(**wide)["ce"], made(**tensors)["ce"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_the_engine_thinks_and_answers_what_was_trained(kind: str) -> None:
    """The engine's thoughts are the trained ones, and with its answer as the label every label is the likeliest."""
    config = MIXED.model_copy(update={"mix": 0.0})
    made, names = objective(kind, config), ("question_BQ", "length_B", "thoughts_B", "tail_BA")
    thinker = Thinker(made.model, None, BOT, EOT, PAD, ())
    answers = think_and_answer(thinker, [c.prompt for c in CHAINS], config.thoughts, 5)
    said = [dataclasses.replace(c, answer=list(a.completion.ids)) for c, a in zip(CHAINS, answers, strict=True)]
    batch = batches(config, chains=said)(4, 0, 1)
    with torch.no_grad():
        logits, thoughts = made.read(*(batch.tensors[name] for name in names))
    expected = torch.stack([answers[int(name[1:])].thoughts_Kd for name in batch.problems])
    torch.testing.assert_close(torch.stack(thoughts, 1), expected, rtol=1e-5, atol=1e-5)
    labels = batch.tensors["labels_BK"]
    assert int((labels != IGNORED).sum()) == 8 * 5
    assert torch.equal(logits.argmax(-1)[labels != IGNORED], labels[labels != IGNORED])


@pytest.mark.parametrize("kind", MODELS)
def test_rows_of_many_stages_think_each_its_own_thoughts(kind: str) -> None:
    made = objective(kind, MIXED)
    batch = batches(MIXED)(6, 0, 1)
    stages = stages_in(MIXED, 6, batch.problems)
    with torch.no_grad():
        _, thoughts = made.read(*(batch.tensors[name] for name in ("question_BQ", "length_B", "thoughts_B", "tail_BA")))
        for b, (name, stage) in enumerate(zip(batch.problems, stages, strict=True)):
            alone = reference(made.model, CHAINS[int(name[1:])], stage)[1]
            assert len(alone) == 2 * min(stage, 3) == int(batch.tensors["thoughts_B"][b])
            for k, thought in enumerate(alone):
                torch.testing.assert_close(thoughts[k][b], thought, rtol=1e-5, atol=1e-5)


def test_a_chain_gives_way_from_its_start() -> None:
    chain = Chain("p", [4, 5], [24], [[6, 7], [8], [9], [10, 11]], [26], [27, 1], 0)
    config = CoconutConfig()
    rows = [staged(chain, stage, config, BOT, EOT) for stage in range(5)]
    assert [(row.head, row.thoughts, row.tail, row.labels) for row in rows] == [
        ([4, 5], 0, [24, 6, 7, 8, 9, 10, 11, 26, 27, 1], 10),
        ([4, 5, 30], 2, [31, 24, 8, 9, 10, 11, 26, 27, 1], 8),
        ([4, 5, 30], 4, [31, 24, 9, 10, 11, 26, 27, 1], 7),
        ([4, 5, 30], 6, [31, 24, 10, 11, 26, 27, 1], 6),
        ([4, 5, 30], 6, [31, 27, 1], 2),
    ]
    assert [row.steps for row in rows] == [[], [[6, 7]], [[6, 7], [8]], [[6, 7], [8], [9]], chain.steps]
    tensors = staged_tensors(rows, PAD)
    assert tensors["question_BQ"].tolist() == [[4, 5, *[PAD] * 6], *[[4, 5, 30, *[PAD] * 5]] * 4]
    assert tensors["length_B"].tolist() == [2, 3, 3, 3, 3]
    assert tensors["thoughts_B"].tolist() == [0, 2, 4, 6, 6]
    assert tensors["tail_BA"][0].tolist() == [24, 6, 7, 8, 9, 10, 11, 26, 27, 1, *[PAD] * 5]
    assert tensors["tail_BA"][4].tolist() == [31, 27, 1, *[PAD] * 12]
    assert tensors["labels_BK"][0].tolist() == [24, 6, 7, 8, 9, 10, 11, 26, 27, 1, *[IGNORED] * 6]
    assert tensors["labels_BK"][4].tolist() == [IGNORED, 27, 1, *[IGNORED] * 13]
    assert tensors["labels_BK"][1].tolist() == [IGNORED, 24, 8, 9, 10, 11, 26, 27, 1, *[IGNORED] * 7]
    assert [longest(chain, CoconutConfig(), 2), longest(chain, CoconutConfig(thoughts_per_step=3), 2)] == [16, 19]


@pytest.mark.parametrize(("steps", "padded", "thoughts"), [(2, True, 6), (2, False, 4), (5, False, 6), (0, False, 0)])
def test_a_short_chain_has_all_thoughts_or_its_own(steps: int, padded: bool, thoughts: int) -> None:
    chain = Chain("p", [4, 5], [24], [[6, 7]] * steps, [26], [27, 1], 0)
    row = staged(chain, 4, CoconutConfig(pad_latents_to_max=padded), BOT, EOT)
    assert (row.thoughts, row.tail) == (thoughts, [31, 27, 1])
    assert staged(chain, 3, CoconutConfig(pad_latents_to_max=padded), BOT, EOT).thoughts == 6


def test_stages_begin_as_published_and_the_optimizer_with_them() -> None:
    assert starts(CoconutConfig(), 37) == [0, 25, 28, 31, 34]  # 25 epochs of words, then 3 a stage
    assert resets(CoconutConfig(), 37) == {25, 28, 31, 34}
    given = CoconutConfig(stage_updates=[25, 3, 3, 3])
    assert starts(given, 47) == [0, 25, 28, 31, 34]
    assert resets(given, 47) == {25, 28, 31, 34}
    assert starts(CoconutConfig(max_latent_stage=1, drop_all=False, words_first=3.0), 8) == [0, 6]
    config = CoconutConfig(stage_updates=[2, 1, 1, 3])
    assert [stage_of(config, starts(config, 40), u, 0, 0) for u in range(9)] == [0, 0, 1, 2, 3, 3, 3, 4, 4]
    thoughts = [int(batches(config)(u, 0, 1).tensors["thoughts_B"].max()) for u in range(9)]
    assert thoughts == [0, 0, 2, 4, 6, 6, 6, 6, 6]
    assert config.thoughts == 6


def test_a_schedule_that_leaves_the_last_stage_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="last stage would begin after 34 updates, the run has 34"):
        starts(CoconutConfig(stage_updates=[25, 3, 3, 3]), 34)
    with pytest.raises(ConfigError, match="stage_updates: expected 4 numbers above 0"):
        CoconutConfig.parse({"stage_updates": [25, 3, 3]}, "r.yaml")
    with pytest.raises(ConfigError, match="stage_updates: expected 4 numbers above 0"):
        CoconutConfig.parse({"stage_updates": [25, 3, 0, 3]}, "r.yaml")


@pytest.mark.parametrize("kind", MODELS)
def test_an_adapter_learns_what_the_merged_model_would_compute(kind: str) -> None:
    wrapped = attach(MODELS[kind](40, spread=0.2), AdapterConfig(name="lora", r=4), False)
    for name, p in wrapped.named_parameters():
        if "lora_B" in name:
            p.data.normal_(std=0.1, generator=torch.Generator().manual_seed(2))
    tensors = batches(MIXED)(4, 0, 1).tensors
    term = CoconutObjective(wrapped, MIXED).eval()(**tensors)["ce"]
    term.backward()
    assert all(p.grad is not None for p in wrapped.parameters() if p.requires_grad)
    expected = CoconutObjective(merged(wrapped), MIXED).eval()(**tensors)["ce"]
    torch.testing.assert_close(term, expected, rtol=1e-4, atol=1e-4)


def test_mixing_draws_earlier_stages_evenly_for_each_row() -> None:
    config, begins = CoconutConfig(mix=0.5), [0, 10, 20, 30, 40]
    drawn = [stage_of(config, begins, 35, row, 7) for row in range(8000)]
    shares = [drawn.count(stage) / 8000 for stage in range(5)]
    assert shares == pytest.approx([1 / 8] * 3 + [5 / 8, 0], abs=0.02)  # 0.5 stay at stage 3, 0.5 are spread over four
    assert drawn == [stage_of(config, begins, 35, row, 7) for row in range(8000)]
    assert drawn != [stage_of(config, begins, 36, row, 7) for row in range(8000)]
    assert {stage_of(CoconutConfig(), begins, 35, row, 7) for row in range(100)} == {3}


def test_parts_weigh_by_what_each_term_is_a_mean_of() -> None:
    config = MIXED.model_copy(update={"explain": 0.5})
    made, make = objective("llama", config), batches(config)
    whole = make(4, 0, 1)
    each = [make(4, part, 3) for part in range(3)]
    assert sum((part.problems for part in each), ()) == whole.problems
    terms = made(**whole.tensors)
    assert set(terms) == set(whole.counts) == {"ce", "explain"}
    for name, term in terms.items():
        mean = sum(made(**b.tensors)[name].item() * b.counts[name] for b in each) / whole.counts[name]
        assert mean == pytest.approx(term.item(), rel=1e-5)
        assert sum(b.counts[name] for b in each) == whole.counts[name]


def gradients(made: CoconutObjective, term: Tensor) -> set[str]:
    made.zero_grad()
    term.backward()
    return {name for name, p in made.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}


@pytest.mark.parametrize("kind", MODELS)
def test_every_term_moves_what_it_should(kind: str) -> None:
    config = CoconutConfig(stage_updates=[1, 1, 1, 1], explain=1.0)
    made = objective(kind, config)
    batch = batches(config)(4, 0, 1)
    by_ce = gradients(made, made(**batch.tensors)["ce"])
    assert by_ce == {name for name, _ in made.named_parameters() if name.startswith("model.")}
    by_explain = gradients(made, made(**batch.tensors)["explain"])
    assert {n for n in by_explain if n.startswith("decoder.")} == {
        n for n, p in made.named_parameters() if n.startswith("decoder.") and p.requires_grad
    }
    head = "model.lm_head.weight"  # thoughts do not pass through it
    assert {n for n in by_explain if n.startswith("model.")} == by_ce - {head}


def test_thoughts_explain_the_steps_that_they_stand_for() -> None:
    """With two thoughts a step, the second of them tells it; after the last stage the third goes on to the end."""
    config = CoconutConfig(stage_updates=[1, 1, 1, 1], explain=2.0)
    told = {}
    for stage in (0, 1, 4):
        batch = batches(config)(stage, 0, 1)
        row = batch.tensors["steps_BNS"][batch.problems.index("p4")]
        told[stage] = [[t for t in step if t != IGNORED] for step in row.tolist()]
    steps = CHAINS[4].steps
    assert told == {0: [], 1: [[*steps[0], 1]], 4: [[*steps[0], 1], [*steps[1], 1], [*steps[2], *steps[3], 1]]}
    made = objective("gpt2", config)
    batch = coconut_batches([CHAINS[4]], LENGTHS[4:5], config, 40, BOT, EOT, PAD, 1, 0)(4, 0, 1)
    with torch.no_grad():
        thoughts = reference(made.model, CHAINS[4], 4)[1]
        embed, means = made.model.get_input_embeddings(), []
        for thought, step in zip(thoughts[1::2], told[4], strict=True):
            logits = made.decoder(torch.cat([thought[None], embed(torch.tensor(step[:-1]))])[None])[0]
            means.append(-logits.log_softmax(-1)[range(len(step)), step].mean())
        term = made(**batch.tensors)["explain"]
    assert batch.counts["explain"] == 3
    torch.testing.assert_close(term, 2.0 * torch.stack(means).mean(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_checkpointed_activations_change_nothing_and_stay_on(kind: str) -> None:
    made, tensors = objective(kind, MIXED), batches(MIXED)(4, 0, 1).tensors
    expected = made(**tensors)["ce"]
    checkpoint_activations(made.model)
    made.train()
    torch.testing.assert_close(made(**tensors)["ce"], expected)
    assert any(getattr(module, "gradient_checkpointing", False) for module in made.model.modules())


def test_the_loop_trains_through_all_stages(tmp_path) -> None:
    config = CoconutConfig(stage_updates=[2, 2, 2, 2], explain=1.0, mix=0.3)
    made = objective("llama", config)
    make = coconut_batches(CHAINS, LENGTHS, config, 12, BOT, EOT, PAD, 8, 0)
    settings = FitConfig(updates=12, batch_size=8, micro_batch=3, warmup=0, log_every=1, precision="float32")
    fit(made, make, settings, workplace(tmp_path))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["explain"] > 0 for row in rows] == [False] * 2 + [True] * 10  # at stage 0 there is no thought yet
    assert rows[-1]["ce"] < rows[0]["ce"]


def test_bfloat16_stays_near_and_a_few_updates_learn() -> None:
    config = CoconutConfig(stage_updates=[1, 1, 1, 1], explain=1.0)
    made = objective("gpt2", config)
    tensors = batches(config)(4, 0, 1).tensors
    exact = made(**tensors)
    with torch.autocast("cpu", torch.bfloat16):
        near = made(**tensors)
    for name, term in near.items():
        assert term.dtype == torch.float32
        assert term.item() == pytest.approx(exact[name].item(), rel=0.03)
    optimizer = torch.optim.AdamW(made.parameters(), lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = torch.stack(list(made(**tensors).values())).sum()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2 * sum(term.item() for term in exact.values())
