"""The oracle on planted traces: a reader that gets thoughts must find what was put into them, and lose without."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stillroom.errors import DataError, UsageError
from stillroom.oracle import QuestionsConfig, ReaderConfig, evaluating, founding, probes, prompts, readers, scoring
from stillroom.oracle.planted import planted
from stillroom.oracle.tables import Traces
from stillroom.students.scratch import ScratchConfig
from stillroom.training import FitConfig
from toys import problem, workplace

VALUES = 6
SMALL = ScratchConfig(width=32, layers=2, heads=2, feed_forward=64, positions=96)
CONFIG = ReaderConfig(
    scratch=SMALL,
    fit=FitConfig(
        updates=180, batch_size=32, warmup=10, learning_rate=5e-3, precision="float32", threads=1, log_every=1
    ),
)  # fmt: skip
QUESTIONS = QuestionsConfig(strategies=("value",), each=600)


def story(name: str, at: int) -> Traces:
    """Problems of three steps whose values no text tells: they stand in the thoughts alone."""
    draw = torch.Generator().manual_seed(at)
    asked = []
    for row in range(at):
        a, b, c = (int(n) for n in torch.randint(0, VALUES, (3,), generator=draw))
        asked.append(problem(f"{name}-{row}", ("x", a), ("x", b), ("x", c), question=f"{name} {row}?"))
    return planted(asked, 3, 16, 0.2, at)


@pytest.fixture(scope="module")
def lectures() -> evaluating.Lectures:
    return evaluating.prepare(story("train", 260), story("test", 90), QUESTIONS)


@pytest.fixture(scope="module")
def taught(lectures: evaluating.Lectures, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of readers taught on planted traces, each made as its stage makes it."""
    found = {}
    for name in (prompts.INJECTION, prompts.QUESTION):
        at = workplace(tmp_path_factory.mktemp(name.replace(" ", "-")))
        reader = readers.begin(CONFIG, name, lectures.train, lectures.taught, "cpu")
        reader = replace(reader, told=reader.told.model_copy(update={"held": lectures.held}))
        told = evaluating.teach(reader, lectures, CONFIG, at)
        readers.save(reader, at.out)
        (at.out / "taught.json").write_text(json.dumps(told))
        found[name] = at.out
    return found


def test_probes_find_which_step_each_planted_thought_holds(lectures: evaluating.Lectures) -> None:
    """Steps 0 and 1 are intermediate; the third is the answer, which thought 2 holds and no question asks for."""
    assert tuple(None if step is None else step % 3 for step in lectures.held) == (0, 1, None)


def test_a_reader_wins_on_planted_thoughts_and_loses_with_anothers(
    lectures: evaluating.Lectures, taught: dict[str, Path]
) -> None:
    injection, question = (readers.load(taught[name]) for name in (prompts.INJECTION, prompts.QUESTION))
    raw = readers.begin(CONFIG, prompts.INJECTION, lectures.train, lectures.taught, "cpu")
    heard = evaluating.hear({prompts.INJECTION: injection, prompts.QUESTION: question}, raw, lectures)
    scores = scoring.table(lectures.asked, heard)["value"]
    assert scores[prompts.INJECTION]["accuracy"]["value"] > 0.9
    for control in (prompts.QUESTION, scoring.SHUFFLED, scoring.UNTRAINED, scoring.MAJORITY):
        assert scores[control]["balanced"]["high"] + 0.1 < scores[prompts.INJECTION]["balanced"]["low"], control
    claim = scoring.claims({"value": scores}, (prompts.INJECTION,))["value"][prompts.INJECTION]
    assert claim["established"]
    assert claim["best lens"] == scoring.PROBE
    assert scores[scoring.PROBE]["accuracy"]["value"] > 0.9


def test_what_is_printed_of_the_teaching(lectures: evaluating.Lectures, taught: dict[str, Path]) -> None:
    told = json.loads((taught[prompts.INJECTION] / "taught.json").read_text())
    assert told["questions"] == {"value": len(lectures.taught)}
    assert told["train"] + told["validation"] == len(lectures.natural)
    assert (told["train problems"], told["validation problems"]) == (234, 26)
    losses = told["loss by epoch"]
    assert len(losses) == -(-180 // (told["train"] // 32))
    assert losses[-1] < losses[0] / 2


def test_a_reader_is_opened_as_it_was_saved(lectures: evaluating.Lectures, taught: dict[str, Path]) -> None:
    one, two = (readers.load(taught[prompts.INJECTION]) for _ in range(2))
    assert one.entrance is not None
    assert one.entrance.map is not None  # width 16 to width 32
    asked = lectures.asked[:20]
    assert readers.answers(one, lectures.test, asked, 3) == readers.answers(two, lectures.test, asked, 3)
    single = [readers.answers(one, lectures.test, [question], 3)[0] for question in asked]
    assert readers.answers(one, lectures.test, asked, 3) == single


def test_a_folder_without_an_entrance_is_no_injecting_reader(taught: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(taught[prompts.INJECTION], tmp_path / "reader")
    (tmp_path / "reader" / readers.ENTRANCE).unlink()
    with pytest.raises(DataError, match="by which thoughts get into this reader"):
        readers.load(tmp_path / "reader")


def test_thoughts_are_read_at_their_places(lectures: evaluating.Lectures, taught: dict[str, Path]) -> None:
    """Thoughts at other places than those of the placeholders are not read."""
    reader = readers.load(taught[prompts.INJECTION])
    batch = readers.batches(reader, lectures.test, lectures.asked, CONFIG.fit)(0, 0, 1)
    assert readers.loss(reader, lectures.test, lectures.asked) < 0.4
    moved = {**batch.tensors, "places_BK": batch.tensors["places_BK"] + 1}
    objective = readers.ReaderObjective(reader)
    with torch.no_grad():
        assert float(objective(**moved)["ce"]) > 2 * float(objective(**batch.tensors)["ce"])


def test_traces_of_another_model_and_a_missing_thought_are_refused(
    lectures: evaluating.Lectures, taught: dict[str, Path]
) -> None:
    reader = readers.load(taught[prompts.INJECTION])
    others = tuple(trace.model_copy(update={"student": "other"}) for trace in lectures.test.rows)
    with pytest.raises(UsageError, match=r"another model \(other\)"):
        readers.answers(reader, replace(lectures.test, rows=others), lectures.asked[:1], 3)
    fewer = replace(lectures.test, thoughts_NKd=lectures.test.thoughts_NKd[:, :2])
    with pytest.raises(UsageError, match="a thought is missing"):
        readers.answers(reader, fewer, lectures.asked[:1], 3)


def test_cutting_never_drops_the_question(lectures: evaluating.Lectures, taught: dict[str, Path]) -> None:
    tokenizer = readers.load(taught[prompts.QUESTION]).student.tokenizer
    question = lectures.asked[0]
    whole = prompts.prompts(tokenizer, prompts.TEXT, lectures.test.rows, [question], 400)[0].ids
    query = tokenizer(prompts.query(question.text), add_special_tokens=False)["input_ids"]
    for room in (len(whole) - 1, len(query) + 3, len(query)):
        (cut,) = prompts.prompts(tokenizer, prompts.TEXT, lectures.test.rows, [question], room)
        assert len(cut.ids) == room
        assert cut.ids[-len(query) :] == query
        assert cut.ids[: room - len(query)] == whole[: room - len(query)]
    with pytest.raises(UsageError, match="ask a shorter one"):
        prompts.prompts(tokenizer, prompts.TEXT, lectures.test.rows, [question], len(query) - 1)


def test_a_planted_leak_is_refused(lectures: evaluating.Lectures) -> None:
    """The same question under another id and in other letters is the same problem."""
    train, test = lectures.train, lectures.test
    leak = test.rows[3].model_copy(update={"problem": "x", "question": f" {train.rows[7].question.upper()} "})
    leaked = replace(test, rows=(*test.rows[:3], leak, *test.rows[4:]))
    with pytest.raises(DataError, match="share their question with a training problem"):
        evaluating.prepare(train, leaked, QUESTIONS)
    renamed = [
        replace(side, rows=(side.rows[0].model_copy(update={"skeleton": "5 +7"}), *side.rows[1:]))
        for side in (train, test)
    ]
    with pytest.raises(DataError, match="share their skeleton"):
        evaluating.prepare(*renamed, QUESTIONS)


def test_no_problem_is_taught_and_kept_for_validation(lectures: evaluating.Lectures) -> None:
    assert not {one.problem for one in lectures.taught} & {one.problem for one in lectures.validation}
    assert not {one.problem for one in lectures.taught} & {one.problem for one in lectures.asked}


def test_a_probe_reads_what_is_linear_and_nothing_else() -> None:
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(200, 8, generator=draw)
    labels = ["big" if x[0] > 0 else "small" for x in features]
    groups = [str(row) for row in range(200)]
    right = probes.accuracy(features, labels, groups)
    chance = probes.accuracy(torch.randn(200, 8, generator=draw), labels, groups)
    assert right is not None
    assert chance is not None
    assert right > 0.9
    assert chance < 0.75
    said = probes.fit(features, labels, groups).read(features)
    assert sum(a == b for a, b in zip(said, labels, strict=True)) > 185


def test_a_probe_tells_a_class_between_two_others() -> None:
    """Three classes on one line: one-hot regression alone never puts the middle one highest."""
    x = torch.linspace(-1, 1, 99)
    labels = ["low" if at < -1 / 3 else "middle" if at < 1 / 3 else "top" for at in x.tolist()]
    probe = probes.fit(x[:, None], labels, [str(row) for row in range(99)])
    alone = probe.ridge.scores(x[:, None].double().numpy()).argmax(1)
    assert 1 not in alone
    assert sum(a == b for a, b in zip(probe.read(x[:, None]), labels, strict=True)) > 90


def test_a_probe_leaves_unanswered_what_it_cannot_learn() -> None:
    rows = [str(row) for row in range(80)]
    assert probes.accuracy(torch.zeros(80, 63), ["a", "b"] * 40, rows) is not None
    assert probes.accuracy(torch.zeros(80, 64), ["a", "b"] * 40, rows) is None  # 64 rows learn, 16 ask
    assert probes.accuracy(torch.zeros(38, 2), ["a", "b"] * 19, rows[:38]) is None
    assert probes.accuracy(torch.zeros(80, 2), rows, rows) is None


def test_thoughts_enter_about_the_mean_of_their_place(lectures: evaluating.Lectures) -> None:
    """What all problems think alike at a place tells a reader nothing, so it is not added."""
    train = lectures.train
    shifted = replace(train, thoughts_NKd=train.thoughts_NKd + 100 * torch.arange(1.0, 4)[:, None])
    one, two = (readers.begin(CONFIG, prompts.INJECTION, side, lectures.taught[:9], "cpu") for side in (train, shifted))
    assert one.entrance is not None
    assert two.entrance is not None
    entered = one.entrance(train.thoughts_NKd)
    assert torch.allclose(entered, two.entrance(shifted.thoughts_NKd), atol=1e-3)
    assert torch.allclose(entered.mean(0), torch.zeros(3, 32), atol=1e-5)


def test_where_no_thought_holds_a_value_nothing_is_taught_or_claimed(
    lectures: evaluating.Lectures, tmp_path: Path
) -> None:
    empty = evaluating.prepare(lectures.train, lectures.test, QUESTIONS, (None, None, None))
    raw = readers.begin(CONFIG, prompts.INJECTION, empty.train, empty.taught, "cpu")
    told = evaluating.teach(raw, empty, CONFIG, workplace(tmp_path))
    assert (told["train"], told["loss by epoch"], told["validation loss"]) == (0, [], None)
    result = evaluating.judged(empty, evaluating.hear({prompts.INJECTION: raw}, raw, empty))
    assert result["claims"] == {}
    lines = evaluating.summary(result | {"taught": {prompts.INJECTION: told}})
    assert lines[0] == "  training questions: none, as no thought holds what is asked for"
    assert lines[1].endswith("loss by epoch ; on validation -")


def test_the_summary_holds_counts_losses_and_claims(lectures: evaluating.Lectures) -> None:
    result = evaluating.judged(lectures, {
        name: ["1"] * len(lectures.asked)
        for name in (*prompts.ARMS, scoring.SHUFFLED, scoring.UNTRAINED, scoring.MAJORITY)
    })  # fmt: skip
    told = {"questions": {"value": 3}, "train": 3, "validation": 1, "loss by epoch": [1.0], "validation loss": 2.0}
    lines = evaluating.summary(result | {"taught": dict.fromkeys(prompts.ARMS, told)})
    assert lines[0] == "  training questions: value 3"
    assert "injection: train 3, validation 1 questions; loss by epoch 1.000; on validation 2.000" in lines[1]
    assert lines[-1].endswith("not established")
    assert set(result["founding"]) == set(founding.THERE)
