"""CODI: the loss of a plain loop, in any company of rows; what is trained is what the engine computes when asked."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import architectures
from stillroom.errors import DataError, UsageError
from stillroom.students import adapters
from stillroom.students.chains import Chain
from stillroom.students.codi import CodiConfig, CodiObjective, codi_batches, distillation, longest, projection
from stillroom.students.step_decoder import StepDecoder
from stillroom.students.thinking import Thinking, load_projection, save_projection
from stillroom.students.thoughts import Thinker, think_and_answer
from stillroom.training import Batch, Batches, FitConfig, fit
from toys import MODELS, PAD, workplace

BOT, EOT, PAUSE = 30, 31, 32
CHAINS = [
    Chain(
        problem=f"p{i}",
        prompt=[4 + (5 * i + j) % 16 for j in range(3 + (3 * i) % 5)],
        opening=[24, 25],
        steps=[[20 + (i + j) % 4, 5 + (i + j) % 12] for j in range(1 + i % 3)],
        closing=[26],
        answer=[[27, 28, 4 + i % 9, 29, 1], [27, 4 + i % 9, 1]][i % 2],
        value_at=2 - i % 2,
    )
    for i in range(8)
]
NAMED = {chain.problem: chain for chain in CHAINS}
LENGTHS = [len(chain.prompt) for chain in CHAINS]
KINDS = {
    "llama": lambda: MODELS["llama"](40, spread=0.2),
    "gpt2": lambda: MODELS["gpt2"](40, spread=0.2),
    "grouped keys": lambda: architectures.tiny("qwen2", attention="sdpa"),
    "gpt2, sdpa": lambda: architectures.tiny("gpt2", attention="sdpa"),
    "llama, sdpa": lambda: architectures.tiny("llama", attention="sdpa"),
}
WAYS: dict[str, dict[str, object]] = {
    "as published": {},
    "otherwise": {
        "projection": "none", "drop_last_step": False, "alpha": 0.5, "beta": 20.0, "gamma": 2.0, "distance": "l1",
        "thoughts": 1,
    },
    "l2, a wide projection": {"distance": "l2", "projection_width": 24},
    "without KD": {"beta": 0.0},
    "no thoughts": {"thoughts": 0},
    "a decoder of steps": {"explain": 2.0},
    "a decoder of all steps without KD": {"explain": 1.0, "drop_last_step": False, "beta": 0.0, "projection": "none"},
    "filler": {"filler": True},
    "filler without KD": {"filler": True, "beta": 0.0},
}  # fmt: skip


def made(kind: str = "llama", **changes: object) -> CodiObjective:
    model = KINDS[kind]()
    config = CodiConfig(**{"thoughts": 3, **changes})
    width = model.get_input_embeddings().embedding_dim
    decoder = StepDecoder(model) if config.explain else None
    return CodiObjective(model, projection(config, width, 3), config, (BOT, EOT), decoder).eval()


def batches(
    config: CodiConfig, size: int, chains: list[Chain] = CHAINS, pad: int = PAD, end: tuple = (EOT,)
) -> Batches:
    pauses = [PAUSE] * config.thoughts * config.filler
    lengths = [len(chain.prompt) for chain in chains]
    return codi_batches(chains, lengths, config, (BOT,), end, pad, size, 0, pauses)


def numbers(terms: dict[str, Tensor]) -> dict[str, float]:
    return {name: term.item() for name, term in terms.items()}


def said(objective: CodiObjective, batch: Batch) -> dict[str, float]:
    return numbers(objective(**batch.tensors))


def gradients(objective: CodiObjective, loss: Tensor) -> dict[str, Tensor]:
    """Those that are not zero everywhere."""
    objective.zero_grad()
    loss.backward()
    found = {name: p.grad.clone() for name, p in objective.named_parameters() if p.grad is not None}
    return {name: grad for name, grad in found.items() if grad.abs().max() > 0}


def run(model: nn.Module, inputs: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """One text without cache, mask or padding: logits and every layer's states."""
    out = model(inputs_embeds=torch.stack(inputs)[None], output_hidden_states=True, use_cache=False)
    return out.logits[0], [states[0] for states in out.hidden_states]


def plain_loop(objective: CodiObjective, chains: list[Chain], end: tuple[int, ...] = (EOT,)) -> dict[str, Tensor]:
    """The paper's loss row by row; every thought reads its whole prefix anew."""
    model, config = objective.model, objective.config
    embed = model.get_input_embeddings().weight
    nats: dict[str, list[Tensor]] = {"student": [], "teacher": []}
    pairs, told_by_thoughts = [], []
    for chain in chains:
        steps = chain.steps[: len(chain.steps) - config.drop_last_step]
        text = [
            *chain.prompt,
            *chain.opening,
            *(token for step in steps for token in step),
            *chain.closing,
            *chain.answer,
        ]
        logits, told = run(model, [embed[token] for token in text])
        for i in range(len(chain.prompt), len(text)):
            nats["teacher"].append(functional.cross_entropy(logits[i - 1], torch.tensor(text[i])))
        mind = [embed[token] for token in [*chain.prompt, BOT]]
        for _ in range(config.thoughts):
            last = run(model, mind)[1][-1][-1]
            thought = objective.projection(last) if objective.projection is not None else last
            mind.append(embed[PAUSE] if config.filler else thought)
        if objective.decoder is not None:
            assert len(steps) <= config.thoughts, "more would be told by the last thought"
            for thought, step in zip(mind[len(chain.prompt) + 1 :], steps, strict=False):
                logits, _ = run(objective.decoder.model, [thought, *(embed[token] for token in step)])
                told_by_thoughts.append(functional.cross_entropy(logits, torch.tensor([*step, chain.answer[-1]])))
        mind += [embed[token] for token in end]
        start = len(mind)
        mind += [embed[token] for token in chain.answer]
        logits, own = run(model, mind)
        for i, token in enumerate(chain.answer):
            nats["student"].append(functional.cross_entropy(logits[start + i - 1], torch.tensor(token)))
        before_value = -len(chain.answer) + chain.value_at - 1
        pairs.append(([states[before_value] for states in told], [states[before_value] for states in own]))
    terms = {
        "student": config.alpha * torch.stack(nats["student"]).mean(),
        "teacher": config.gamma * torch.stack(nats["teacher"]).mean(),
    }
    if config.beta:
        layers = []
        for layer in range(len(pairs[0][0])):
            targets = torch.stack([told[layer] for told, _ in pairs]).detach()
            own = torch.stack([mine[layer] for _, mine in pairs])
            off = (own - targets).abs()
            each = {"l1": off, "l2": off**2, "smooth_l1": torch.where(off < 1, off**2 / 2, off - 0.5)}[config.distance]
            layers.append(each.mean() / targets.std() / (targets.std() if config.distance == "l2" else 1))
        terms["distil"] = config.beta * torch.stack(layers).mean()
    if objective.decoder is not None:
        terms["explain"] = config.explain * torch.stack(told_by_thoughts or [torch.zeros(())]).mean()
    return terms


@pytest.mark.parametrize("size", [1, 8])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_loss_is_that_of_a_plain_loop(kind: str, way: str, size: int) -> None:
    """Pitfalls 5 and 6: masks and positions reach every pass, so that no row sees another's padding."""
    objective = made(kind, **WAYS[way])
    batch_of = batches(objective.config, size)
    for update in range(8 // size if kind in MODELS else 1):
        batch = batch_of(update, 0, 1)
        expected = numbers(plain_loop(objective, [NAMED[name] for name in batch.problems]))
        assert said(objective, batch) == pytest.approx(expected, rel=1e-5, abs=1e-5)
        assert set(batch.counts) == set(expected)


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"thoughts": 0}])
@pytest.mark.parametrize("end", [(), (EOT, 33)])
def test_thoughts_may_end_without_a_token_or_with_many(end: tuple[int, ...], changes: dict[str, object]) -> None:
    objective = made("gpt2", **changes)
    first_is_the_value = [dataclasses.replace(chain, value_at=0) for chain in CHAINS]
    batch = batches(objective.config, 8, first_is_the_value, end=end)(0, 0, 1)
    rows = [dataclasses.replace(NAMED[name], value_at=0) for name in batch.problems]
    assert said(objective, batch) == pytest.approx(numbers(plain_loop(objective, rows, end)), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("way", ["as published", "filler", "a decoder of steps"])
@pytest.mark.parametrize("kind", MODELS)
def test_gradients_are_those_of_a_plain_loop(kind: str, way: str) -> None:
    """Through the cache, and through every thought into the ones before it."""
    objective = made(kind, **WAYS[way])
    batch = batches(objective.config, 8)(0, 0, 1)
    rows = [NAMED[name] for name in batch.problems]
    ours = gradients(objective, sum(objective(**batch.tensors).values()))
    theirs = gradients(objective, sum(plain_loop(objective, rows).values()))
    assert ours.keys() == theirs.keys()
    for name, grad in theirs.items():
        torch.testing.assert_close(ours[name], grad, rtol=1e-3, atol=2e-6 * float(grad.abs().max()) + 1e-6)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_neither_padding_nor_the_order_of_rows_matters(kind: str) -> None:
    objective = made(kind)
    tensors = batches(objective.config, 8)(0, 0, 1).tensors
    alone = numbers(objective(**tensors))
    shuffled = {name: tensor.flip(0) for name, tensor in tensors.items()}
    assert numbers(objective(**shuffled)) == pytest.approx(alone, rel=1e-5)
    wider = {name: tensor.clone() for name, tensor in tensors.items()}
    for name in ("question_BQ", "answer_BA", "words_BW"):
        wider[name] = functional.pad(tensors[name], (0, 4), value=17)
    for name in ("labels_BK", "words_labels_BK"):
        wider[name] = functional.pad(tensors[name], (0, 4), value=-100)
    assert numbers(objective(**wider)) == pytest.approx(alone, rel=1e-5)
    other_pad = batches(objective.config, 8, pad=19)(0, 0, 1)
    assert said(objective, other_pad) == pytest.approx(alone, rel=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("parts", [2, 3, 8])
@pytest.mark.parametrize("way", ["as published", "l2, a wide projection", "without KD"])
def test_an_update_in_parts_is_the_update_whole(way: str, parts: int) -> None:
    objective = made("gpt2", **WAYS[way])
    batch_of = batches(objective.config, 8)
    whole = batch_of(0, 0, 1)
    each = [batch_of(0, part, parts) for part in range(parts)]
    assert sum([batch.problems for batch in each], ()) == whole.problems
    summed = {
        name: sum(said(objective, batch)[name] * batch.counts[name] for batch in each) / count
        for name, count in whole.counts.items()
    }
    assert summed == pytest.approx(said(objective, whole), rel=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", MODELS)
def test_words_fill_the_context_where_another_row_is_long(kind: str) -> None:
    """Both rows fit into 64 places; the padding behind the words of the one with the longer question would not."""
    long = dataclasses.replace(CHAINS[0], problem="long", prompt=[4 + i % 16 for i in range(40)], steps=[[20] * 4] * 2)
    wordy = dataclasses.replace(
        CHAINS[1], problem="wordy", prompt=[4 + i % 16 for i in range(20)], steps=[[20] * 17] * 3
    )
    objective = made(kind, drop_last_step=True)
    assert objective.model.config.max_position_embeddings == 64
    batch = batches(objective.config, 2, [long, wordy])(0, 0, 1)
    rows = [{"long": long, "wordy": wordy}[name] for name in batch.problems]
    assert said(objective, batch) == pytest.approx(numbers(plain_loop(objective, rows)), rel=1e-5, abs=1e-5)


@torch.no_grad()
def test_words_aside_leave_what_is_thought_as_it_was() -> None:
    objective = made("llama")
    tensors = batches(objective.config, 8)(0, 0, 1).tensors
    question = tensors["question_BQ"], tensors["length_B"]
    minds = [Thinking(objective.model, *question, torch.full_like(question[1], 3)) for _ in range(2)]
    minds[0].in_words(question[0], tensors["asked_B"], tensors["words_BW"], 1, hidden_states=False)
    for name in ("next_B", "seen_BT", "bridge_Bd", "hidden_Bd"):
        assert torch.equal(getattr(minds[0], name), getattr(minds[1], name))
    for one in minds:
        one.think(objective.projection)
    assert torch.equal(torch.stack(minds[0].thoughts), torch.stack(minds[1].thoughts))


def test_a_window_shorter_than_the_text_is_refused() -> None:
    """Such a model counts its window over padding, so that a short row would lose its question."""
    objective = made("llama")
    objective.model.config.sliding_window = 16
    with pytest.raises(UsageError, match=r"sees 16 tokens back .*sliding_window"):
        objective(**batches(objective.config, 8)(0, 0, 1).tensors)


def test_each_term_moves_what_it_should_and_the_target_is_left_alone() -> None:
    """Pitfall 9: the pull is on the student alone, so words that the teacher alone reads feel nothing of it."""
    objective = made()
    batch = batches(objective.config, 8)(0, 0, 1)
    felt = {name: gradients(objective, objective(**batch.tensors)[name]) for name in ("student", "teacher", "distil")}
    for name, found in felt.items():
        assert any(key.startswith("model.model.layers.0") for key in found)
        assert any(key.startswith("projection.") for key in found) == (name != "teacher")
    told = sorted({token for chain in CHAINS for token in [*chain.opening, *chain.closing]})
    assert felt["distil"]["model.model.embed_tokens.weight"][told].abs().max() == 0
    assert felt["distil"]["model.model.embed_tokens.weight"][[BOT, EOT, 27]].abs().min(1).values.max() > 0
    assert felt["teacher"]["model.model.embed_tokens.weight"][told].abs().max() > 0


@torch.no_grad()
@pytest.mark.parametrize("drop", [True, False])
def test_the_last_step_is_dropped_from_the_teachers_text(drop: bool) -> None:
    """Pitfall 9: a last step that stays gives the value away."""
    objective = made(drop_last_step=drop)
    other = [dataclasses.replace(chain, steps=[*chain.steps[:-1], [6, 7, 8]]) for chain in CHAINS]
    same, changed = (batches(objective.config, 8, chains)(0, 0, 1) for chains in (CHAINS, other))
    assert (said(objective, same) == said(objective, changed)) == drop
    assert (same.counts == changed.counts) == drop


def test_the_distance_by_hand() -> None:
    """A spread of √8 in the first layer and of √2 in the second, distances of 2 and 1/2."""
    targets = [torch.tensor([[0.0, 4.0]]), torch.tensor([[1.0, 3.0]])]
    own = [torch.tensor([[2.0, 2.0]]), torch.tensor([[1.5, 2.5]])]
    by_hand = {
        "l1": (2 / 8**0.5 + 0.5 / 2**0.5) / 2,
        "l2": (4 / 8 + 0.25 / 2) / 2,
        "smooth_l1": (1.5 / 8**0.5 + 0.125 / 2**0.5) / 2,
    }
    for distance, expected in by_hand.items():
        assert distillation(own, targets, targets, distance).item() == pytest.approx(expected)


@pytest.mark.parametrize("taught", [True, False])
@pytest.mark.parametrize("kind", MODELS)
def test_the_tokens_around_thoughts_are_taught_or_stay_and_are_saved(kind: str, taught: bool, tmp_path: Path) -> None:
    """With weight decay, which moves what has no gradient too."""
    objective = made(kind, teach_ends=taught)
    weight = objective.model.get_input_embeddings().weight
    before = weight.detach()[[BOT, EOT, 27]].clone()
    sum(objective(**batches(objective.config, 8)(0, 0, 1).tensors).values()).backward()
    assert weight.grad[[BOT, EOT, 27]].any(1).tolist() == [taught, taught, True]
    config = FitConfig(updates=3, batch_size=8, learning_rate=0.01, warmup=0, weight_decay=0.1, precision="float32")
    fit(objective, batches(objective.config, 8), config, workplace(tmp_path / "fit"))
    objective.hold_ends()
    same = (weight[[BOT, EOT, 27]] == before).all(1).tolist()
    assert same == [not taught, not taught, False]
    objective.model.save_pretrained(tmp_path)
    again = type(objective.model).from_pretrained(tmp_path)
    assert torch.equal(again.get_input_embeddings().weight, weight)


def test_recomputed_activations_change_nothing() -> None:
    """A layer that recomputes drops the cache: thoughts would be thought without their question."""
    objective = made("llama").train()
    batch = batches(objective.config, 8)(0, 0, 1)
    loss, kept = objective(**batch.tensors), gradients(objective, sum(objective(**batch.tensors).values()))
    adapters.checkpoint_activations(objective.model)
    again = objective(**batch.tensors)
    assert numbers(again) == numbers(loss)
    recomputed = gradients(objective, sum(again.values()))
    assert all(torch.allclose(recomputed[name], grad, rtol=1e-4, atol=1e-6) for name, grad in kept.items())
    assert all(layer.gradient_checkpointing for layer in objective.model.model.layers)  # and stays as it was set


@pytest.mark.parametrize("kind", MODELS)
def test_an_adapter_learns_to_think(kind: str) -> None:
    pytest.importorskip("peft")
    objective = made(kind)
    batch = batches(objective.config, 8)(0, 0, 1)
    alone = said(objective, batch)
    adapted = adapters.attach(objective.model, adapters.AdapterConfig(name="lora", dropout=0.0), grown=False)
    learner = CodiObjective(adapted, objective.projection, objective.config, (BOT, EOT))
    assert said(learner, batch) == pytest.approx(alone)
    moved = gradients(learner, sum(learner(**batch.tensors).values()))
    assert {name.split(".")[-3] if "lora" in name else "projection" for name in moved} == {"lora_B", "projection"}


def mind(objective: CodiObjective, batch: Batch) -> tuple[Tensor, Tensor]:
    """The thoughts in training, BKd, and what the answer's tokens would be, BA, each from the true ones before it."""
    tensors = batch.tensors
    steps_B = torch.full_like(tensors["length_B"], objective.config.steps)
    thinking = Thinking(objective.model, tensors["question_BQ"], tensors["length_B"], steps_B)
    thinking.think(objective.projection)
    logits = thinking.answer(tensors["answer_BA"], tensors["labels_BK"].shape[1], hidden_states=False).logits
    return torch.stack(thinking.thoughts, 1), logits.argmax(-1)


@pytest.mark.parametrize("updates", [2, 36])
@pytest.mark.parametrize("kind", MODELS)
def test_the_engine_thinks_and_answers_as_was_trained(kind: str, updates: int, tmp_path: Path) -> None:
    """After a few updates answers are wrong somewhere, after more they are learned: both as the logits foretell."""
    objective = made(kind)
    config = FitConfig(updates=updates, batch_size=8, learning_rate=0.02, warmup=0, precision="float32")
    fit(objective, batches(objective.config, 8), config, workplace(tmp_path))
    objective.eval()
    batch = batches(objective.config, 8)(0, 0, 1)
    with torch.no_grad():
        thoughts_BKd, foretold_BA = mind(objective, batch)
    rows = [NAMED[name] for name in batch.problems]
    thinker = Thinker(objective.model, objective.projection, (BOT,), (EOT,), PAD, (1,))
    answers = think_and_answer(thinker, [row.prompt for row in rows], objective.config.thoughts, 6)
    torch.testing.assert_close(torch.stack([answer.thoughts_Kd for answer in answers]), thoughts_BKd, rtol=0, atol=1e-5)
    right = 0
    for row, answer, foretold in zip(rows, answers, foretold_BA.tolist(), strict=True):
        true = next((i for i, token in enumerate(row.answer) if foretold[i] != token), len(row.answer) - 1) + 1
        found = [*answer.completion.ids, *[1] * answer.completion.stopped]
        assert found[:true] == foretold[:true]
        right += found == row.answer
    assert right == 8 if updates == 36 else right < 8


def test_a_run_in_bfloat16_brings_every_term_down(tmp_path: Path) -> None:
    objective = made("llama")
    config = FitConfig(updates=12, batch_size=8, micro_batch=4, learning_rate=0.02, warmup=0, log_every=1)
    fit(objective, batches(objective.config, 8), config, workplace(tmp_path))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for name in ("student", "teacher", "distil"):
        assert rows[-1][name] < 0.8 * rows[0][name]


def test_a_projection_is_found_beside_its_student(tmp_path: Path) -> None:
    for changes, inner in (({}, 16), ({"projection_width": 24}, 24)):
        network = projection(CodiConfig(**changes), 16, 0)
        save_projection(network, tmp_path)
        again = load_projection(tmp_path)
        hidden = torch.randn(3, 16)
        assert torch.equal(again(hidden), network(hidden))
        assert again[0].out_features == inner
        assert not again.training
    assert projection(CodiConfig(projection="none"), 16, 0) is None
    assert projection(CodiConfig(filler=True), 16, 0) is None
    with pytest.raises(DataError, match=r"no projection\.safetensors, without which"):
        load_projection(tmp_path / "elsewhere")


def test_the_projection_has_as_many_weights_as_the_published_one() -> None:
    """GPT-2: 20,057,088 trained numbers, of them 18,874,368 in the adapter."""
    network = projection(CodiConfig(), 768, 0)
    assert sum(p.numel() for p in network.parameters()) == 20_057_088 - 18_874_368


@pytest.mark.parametrize(("thoughts", "problem", "length"), [(0, "p2", 16), (9, "p6", 22)], ids=["words", "thoughts"])
def test_the_longest_text_of_a_lesson_is_in_words_or_with_thoughts(thoughts: int, problem: str, length: int) -> None:
    """p2 is the longest in words, 4 + 2 + 2 · 2 + 1 + 5 tokens; with 9 thoughts p6 is, 6 + 1 + 9 + 1 + 5."""
    lengths = {chain.problem: longest(chain, CodiConfig(thoughts=thoughts), 2) for chain in CHAINS}
    assert max(lengths.items(), key=lambda item: item[1]) == (problem, length)
