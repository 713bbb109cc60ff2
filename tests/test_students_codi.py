"""CODI equals a plain loop without cache, batch or padding, and what is trained is what the engine computes."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from stillroom.students.chains import Chain
from stillroom.students.codi import CodiConfig, CodiObjective, codi_batches, projection, think
from stillroom.students.thoughts import Thinker, think_and_answer
from toys import MODELS, PAD

BOT, EOT = (30,), (31,)
CHAINS = [
    Chain(
        problem=f"p{i}",
        prompt=[4 + (5 * i + j) % 20 for j in range(3 + i % 4)],
        opening=[24, 25],
        steps=[[5 + (i + j + k) % 18 for k in range(3)] for j in range(i % 3 + 1)],
        closing=[26],
        answer=[27, 28, 4 + i % 19, 29, 1],
        value_at=2,
    )
    for i in range(8)
]
LENGTHS = [len(chain.prompt) for chain in CHAINS]


def objective(kind: str, **changes: object) -> CodiObjective:
    model = MODELS[kind](40, spread=0.2)
    torch.manual_seed(3)
    width = model.get_input_embeddings().embedding_dim
    config = CodiConfig(**{"thoughts": 3, **changes})
    return CodiObjective(model, projection(width) if config.projection else None, config)


def run(model: nn.Module, embedded_Td: Tensor) -> tuple[Tensor, list[Tensor]]:
    out = model(inputs_embeds=embedded_Td[None], output_hidden_states=True, use_cache=False)
    return out.logits[0], [hidden[0] for hidden in out.hidden_states]


def reference(
    made: CodiObjective, chains: list[Chain], begin: tuple[int, ...], end: tuple[int, ...]
) -> dict[str, float]:
    """Every pass reads its whole prefix anew, one row at a time."""
    model, config = made.model, made.config
    embed = model.get_input_embeddings()
    losses: dict[str, list[Tensor]] = {"teacher": [], "student": []}
    states: list[tuple[list[Tensor], list[Tensor]]] = []
    for chain in chains:
        steps = chain.steps[:-1] if config.drop_last_step else chain.steps
        words = [*chain.opening, *(token for step in steps for token in step), *chain.closing, *chain.answer]
        whole = torch.tensor([*chain.prompt, *words])
        logits, told = run(model, embed(whole))
        losses["teacher"] += [-logits[i - 1].log_softmax(-1)[whole[i]] for i in range(len(chain.prompt), len(whole))]
        at = len(whole) - len(chain.answer) + chain.value_at - 1
        prefix = embed(torch.tensor([*chain.prompt, *begin]))
        for _ in range(config.thoughts):
            thought = run(model, prefix)[1][-1][-1]
            prefix = torch.cat([prefix, (made.projection(thought) if made.projection else thought)[None]])
        tail = torch.tensor([*end, *chain.answer])
        logits, thought_of = run(model, torch.cat([prefix, embed(tail)]))
        first = len(prefix) + len(end)
        losses["student"] += [-logits[first + i - 1].log_softmax(-1)[t] for i, t in enumerate(chain.answer)]
        states.append(([h[at] for h in told], [h[first + chain.value_at - 1] for h in thought_of]))
    terms = {name: torch.stack(values).mean() for name, values in losses.items()}
    distances = []
    for layer in range(len(states[0][0])):
        target = torch.stack([told[layer] for told, _ in states]).detach()
        mine = torch.stack([thought[layer] for _, thought in states])
        distances.append(functional.smooth_l1_loss(mine, target) / target.std())
    weights = {"teacher": config.gamma, "student": config.alpha}
    found = {name: weights[name] * value.item() for name, value in terms.items()}
    return found | ({"distil": config.beta * torch.stack(distances).mean().item()} if config.beta else {})


@pytest.mark.parametrize("size", [1, 8])
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
    "changes",
    [{}, {"projection": False, "drop_last_step": False, "alpha": 0.5, "beta": 20.0, "gamma": 2.0}, {"beta": 0.0}],
    ids=["as published", "otherwise", "without KD"],
)
def test_forward_and_loss_are_those_of_a_plain_loop(changes, kind: str, size: int) -> None:
    """Pitfalls 5 and 6: masks and positions reach every pass, so that no row sees another's padding."""
    made = objective(kind, **changes).eval()
    batches = codi_batches(CHAINS, LENGTHS, made.config, BOT, EOT, PAD, size, 0)
    for update in range(8 // size):
        batch = batches(update, 0, 1)
        rows = [next(c for c in CHAINS if c.problem == name) for name in batch.problems]
        expected = reference(made, rows, BOT, EOT)
        terms = {name: term.item() for name, term in made(**batch.tensors).items()}
        assert terms == pytest.approx(expected, rel=1e-5, abs=1e-5)
        assert batch.counts["student"] == sum(len(row.answer) for row in rows)


@pytest.mark.parametrize("kind", MODELS)
def test_filler_of_the_same_supervision_has_no_thoughts_and_no_tokens_around_them(kind: str) -> None:
    made = objective(kind, thoughts=0, projection=False).eval()
    batch = codi_batches(CHAINS, LENGTHS, made.config, (), (), PAD, 8, 0)(0, 0, 1)
    rows = [next(c for c in CHAINS if c.problem == name) for name in batch.problems]
    terms = {name: term.item() for name, term in made(**batch.tensors).items()}
    assert terms == pytest.approx(reference(made, rows, (), ()), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_the_engine_thinks_what_was_trained(kind: str) -> None:
    made = objective(kind).eval()
    batch = codi_batches(CHAINS, LENGTHS, made.config, BOT, EOT, PAD, 8, 0)(0, 0, 1)
    with torch.no_grad():
        thinking = think(made.model, made.projection, batch.tensors["question_BQ"], batch.tensors["mask_BQ"], 3)
    rows = [next(c for c in CHAINS if c.problem == name) for name in batch.problems]
    thinker = Thinker(made.model, made.projection, BOT, EOT, PAD, (1,))
    answers = think_and_answer(thinker, [row.prompt for row in rows], 3, 2)
    last = torch.stack([answer.hiddens_Kd[-1] for answer in answers])
    with torch.no_grad():
        before = think(made.model, made.projection, batch.tensors["question_BQ"], batch.tensors["mask_BQ"], 2)
    torch.testing.assert_close(last, before.hidden_Bd, rtol=1e-5, atol=1e-5)
    assert thinking.mask_BT.shape[1] == batch.tensors["mask_BQ"].shape[1] + 3


def test_every_term_moves_what_it_should_and_the_target_is_left_alone() -> None:
    """Pitfall 9: the teacher is the same weights, and the pull is on the student alone."""
    batch = codi_batches(CHAINS, LENGTHS, CodiConfig(thoughts=3), BOT, EOT, PAD, 8, 0)(0, 0, 1)
    for name in ("teacher", "student", "distil"):
        made = objective("llama")
        made(**batch.tensors)[name].backward()
        moved = {n for n, p in made.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
        assert any(n.startswith("model.") for n in moved)
        assert any(n.startswith("projection.") for n in moved) == (name != "teacher")
    made = objective("llama", thoughts=0)  # the target's own gradient would move the words of the chain
    made(**batch.tensors)["distil"].backward()
    chain_words = sorted({t for c in CHAINS for t in [*c.opening, *c.closing]} - {t for c in CHAINS for t in c.prompt})
    assert made.model.get_input_embeddings().weight.grad[chain_words].abs().max() == 0


def test_accumulated_parts_weigh_by_what_each_term_is_a_mean_of() -> None:
    made = objective("llama", beta=0.0).eval()
    batches = codi_batches(CHAINS, LENGTHS, made.config, BOT, EOT, PAD, 8, 0)
    whole = batches(0, 0, 1)
    for name, term in made(**whole.tensors).items():
        each = [batches(0, part, 3) for part in range(3)]
        mean = sum(made(**b.tensors)[name].item() * b.counts[name] for b in each) / whole.counts[name]
        assert mean == pytest.approx(term.item(), rel=1e-5)
