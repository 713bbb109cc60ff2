"""Traces: what is kept of a student's thoughts, in parts that survive a stop, and what is refused."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from stillroom.cli import app
from stillroom.errors import DataError, StillroomError, UsageError
from stillroom.evaluation.thinking import strangers
from stillroom.oracle import (
    QuestionsConfig,
    ReaderConfig,
    asking,
    evaluating,
    prompts,
    questions,
    readers,
    tables,
    traces,
)
from stillroom.oracle.traces import TraceConfig, collect, fingerprint
from stillroom.records import Problem
from stillroom.students import Manner, Student, save
from stillroom.students.folders import BEGIN, END, Thoughts
from stillroom.students.scratch import ScratchConfig
from stillroom.students.thinking import mlp
from stillroom.students.thoughts import answer_variants, statistics, trace_variants
from stillroom.students.tokens import add_tokens
from stillroom.training import FitConfig
from toys import llama, student, sums, tokenizer, workplace

COUNT = 3
CONFIG = TraceConfig(new_tokens=4, part=4, threads=1)
PROBLEMS = sums(10)


def thinker(seed: int = 0) -> Student:
    words = tokenizer()
    model = llama(len(words), seed, spread=0.2)
    add_tokens(model, words, [BEGIN, END])
    torch.manual_seed(seed)
    return Student(model, words, Manner(thoughts=Thoughts(count=COUNT)), mlp(16, 16).eval())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("traces")
    collect(thinker(), PROBLEMS, CONFIG, at, "test", at / "parts")
    return at


def test_a_trace_holds_what_the_engine_says(folder: Path) -> None:
    """Ten problems in three parts (of 3, 3 and 4); each part is one call of the engine."""
    who, found = thinker(), tables.read(folder, "test")
    assert not (folder / "parts").exists()
    assert [trace.problem for trace in found.rows] == [p.id for p in PROBLEMS]
    part = PROBLEMS[3:6]
    partners = strangers(part)
    variants = trace_variants(COUNT, partners)
    answered = answer_variants(who.thinker(), who.prompts([p.question for p in part]), list(variants.values()), 4)
    for row, problem in enumerate(part):
        trace = found.rows[3 + row]
        said = [who.tokenizer.decode(a.completion.ids, skip_special_tokens=True) for a in answered[row]]
        assert trace.outputs == dict(zip(variants, said, strict=True))
        assert trace.answer == trace.outputs["early 3"]
        assert trace.partner == part[partners[row]].id
        assert trace.steps == tuple(step.value for step in problem.steps)
        alone = answered[row][list(variants).index("early 3")]
        assert torch.equal(found.thoughts_NKd[3 + row], alone.thoughts_Kd)
        told = statistics(alone.hiddens_Kd, who.thinker().head)
        assert [t.norm for t in trace.thoughts] == pytest.approx([t.norm for t in told], rel=1e-5)
        assert trace.thoughts[0].cosine_to_previous is None
        assert trace.thoughts[2].cosine_to_previous == pytest.approx(told[2].cosine_to_previous, abs=1e-5)
        assert trace.thoughts[1].top[0][0] == who.tokenizer.decode([told[1].top[0][0]])


def test_a_loss_is_what_the_answer_costs_up_to_where_it_departs(folder: Path) -> None:
    who, found = thinker(), tables.read(folder, "test")
    ids = who.prompts([PROBLEMS[0].question])[0]
    variants = trace_variants(COUNT, strangers(PROBLEMS[:3]))
    whole = list(variants).index("early 3")
    prompts_3 = who.prompts([p.question for p in PROBLEMS[:3]])
    (first, *_) = answer_variants(who.thinker(), prompts_3, list(variants.values()), 4, reference=whole, vectors=True)
    wanted = first[whole].completion
    target = [*wanted.ids, *([who.stops[0]] if wanted.stopped else [])]
    for answer, (name, _) in zip(first, variants.items(), strict=True):
        likely = _alone(who, ids, answer.thoughts_Kd if name != "off" else None, target)
        said = [*answer.completion.ids, *([who.stops[0]] if answer.completion.stopped else [])]
        agree = next((i for i, (a, b) in enumerate(zip(said, target, strict=False)) if a != b), len(target) - 1)
        assert answer.reference == pytest.approx(sum(likely[: agree + 1]), abs=1e-4), name
        lost = first[whole].reference - answer.reference  # type: ignore[operator]
        assert found.rows[0].losses[name] == pytest.approx(lost, abs=1e-5)
    assert found.rows[0].losses["early 3"] == 0


@torch.inference_mode()
def _alone(who: Student, ids: list[int], thoughts_Kd: torch.Tensor | None, target: list[int]) -> list[float]:
    """Log-probabilities of the target's tokens after these thoughts, in one plain pass."""
    begin, end = who.ends_of_thoughts()
    embed = who.model.get_input_embeddings()
    parts = [embed(torch.tensor(ids))]
    if thoughts_Kd is not None:
        parts += [embed(torch.tensor(begin)), thoughts_Kd, embed(torch.tensor(end))]
    before = torch.cat(parts)
    whole = torch.cat([before, embed(torch.tensor(target))])[None]
    logp = who.model(inputs_embeds=whole).logits[0].log_softmax(-1)
    return [float(logp[len(before) - 1 + i, token]) for i, token in enumerate(target)]


def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = tables.write_part, []

    def stop(*given: object) -> None:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(given)
        real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(tables, "write_part", stop)
    with pytest.raises(KeyboardInterrupt):
        collect(thinker(), PROBLEMS, CONFIG, tmp_path, "test", tmp_path / "parts")
    assert not (tmp_path / "test.parquet").exists()
    with pytest.raises(UsageError, match="the beginning of other traces"):
        collect(thinker(1), PROBLEMS, CONFIG, tmp_path, "test", tmp_path / "parts")
    made: list[object] = []
    monkeypatch.setattr(tables, "write_part", lambda *given: (made.append(given), real(*given)))
    collect(thinker(), PROBLEMS, CONFIG, tmp_path, "test", tmp_path / "parts")
    assert len(made) == 1
    for name in ("test.parquet", "test.safetensors"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_undisturbed_problems_stand_behind_the_others_and_think_the_same(folder: Path, tmp_path: Path) -> None:
    """Of ten problems six are left alone; what they think and say does not depend on it."""
    collect(thinker(), PROBLEMS, CONFIG, tmp_path, "test", tmp_path / "parts", left=6)
    whole, some = tables.read(folder, "test"), tables.read(tmp_path, "test")
    order = [0, 2, 5, 7, 1, 3, 4, 6, 8, 9]
    assert [trace.problem for trace in some.rows] == [PROBLEMS[row].id for row in order]
    assert [questions.disturbed(trace) for trace in some.rows] == [True] * 4 + [False] * 6
    assert torch.allclose(some.thoughts_NKd, whole.thoughts_NKd[order], atol=1e-5)
    for trace, row in zip(some.rows, order, strict=True):
        assert trace.answer == whole.rows[row].answer
        assert trace.outputs["early 0"] == whole.rows[row].outputs["early 0"]
    seen = questions.seen(some.rows, (0, None, None))
    asked = list(questions.ask(seen, list(questions.STRATEGIES), 0))
    rows = {name: {one.row for one in asked if one.strategy == name} for name in questions.STRATEGIES}
    every = {name for name, found in rows.items() if found == set(range(10))}
    assert every == {
        "thinking changes", "thinking helps", "top tokens", "entropy", "token class", "question", "value",
        "founding contrastive",
    }  # fmt: skip
    assert all(rows[name] == set(range(4)) for name in questions.STRATEGIES.keys() - every)


def test_a_table_is_read_in_parts_and_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tables.read(folder, "test").rows
    monkeypatch.setattr(tables, "PART", 3)
    assert tables.read(folder, "test").rows == whole
    assert [trace.problem for trace in whole] == [problem.id for problem in PROBLEMS]


def test_the_stage_leaves_as_many_alone_as_it_is_told(tmp_path: Path) -> None:
    at = workplace(tmp_path / "out", parents={"problems": tmp_path, "student": tmp_path / "student"})
    save(thinker(), tmp_path / "student")
    for name, problems in (("train", PROBLEMS[:6]), ("test", PROBLEMS[6:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(problem.model_dump_json() + "\n" for problem in problems))
    traces.make_traces(TraceConfig(train=5, disturbed=2, test=4, new_tokens=4, threads=1), at)
    assert [questions.disturbed(trace) for trace in tables.read(at.out, "train").rows] == [True] * 2 + [False] * 3
    assert all(questions.disturbed(trace) for trace in tables.read(at.out, "test").rows)


def test_the_fingerprint_is_of_the_weights_that_think() -> None:
    assert fingerprint(thinker()) == fingerprint(thinker())
    other = thinker()
    assert other.projection is not None
    with torch.no_grad():
        other.projection[0].bias[0] += 1
    assert len({fingerprint(thinker()), fingerprint(thinker(1)), fingerprint(other)}) == 3


def test_what_cannot_be_traced_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="reasons in words"):
        collect(student(), PROBLEMS, CONFIG, tmp_path, "test", tmp_path / "parts")
    long = PROBLEMS[0].model_copy(update={"id": "long", "question": "Ann has 1 eggs. " * 20})
    with pytest.raises(UsageError, match="problem long: its question takes"):
        collect(thinker(), [*PROBLEMS, long], CONFIG, tmp_path, "test", tmp_path / "parts")
    with pytest.raises(DataError, match="at least two"):
        collect(thinker(), PROBLEMS[:1], CONFIG, tmp_path, "test", tmp_path / "parts")


def test_files_that_lack_a_thought_are_refused(folder: Path, tmp_path: Path) -> None:
    vectors = load_file(folder / "test.safetensors")
    (tmp_path / "test.parquet").write_bytes((folder / "test.parquet").read_bytes())
    with pytest.raises(DataError, match="not traces"):
        tables.read(tmp_path, "test")
    save_file({name: v[:, :2].contiguous() for name, v in vectors.items()}, tmp_path / "test.safetensors")
    with pytest.raises(DataError, match=r"a thought is missing: its statistics are of 3 thoughts and its vectors of 2"):
        tables.read(tmp_path, "test")
    save_file({name: v[:4].contiguous() for name, v in vectors.items()}, tmp_path / "test.safetensors")
    with pytest.raises(DataError, match="do not belong together"):
        tables.read(tmp_path, "test")
    hiddens_NKd = vectors["hiddens_NKd"]
    save_file({**vectors, "hiddens_NKd": hiddens_NKd[:4].contiguous()}, tmp_path / "test.safetensors")
    with pytest.raises(DataError, match="do not belong together"):
        tables.read(tmp_path, "test")
    save_file({"thoughts_NKd": vectors["thoughts_NKd"]}, tmp_path / "test.safetensors")
    with pytest.raises(DataError, match=r"not traces .*hiddens_NKd"):
        tables.read(tmp_path, "test")
    vectors["thoughts_NKd"][2, 1, 0] = torch.nan
    save_file(vectors, tmp_path / "test.safetensors")
    with pytest.raises(DataError, match="sum-2: a thought is not finite"):
        tables.read(tmp_path, "test")
    save_file(load_file(folder / "test.safetensors"), tmp_path / "test.safetensors")
    table = pq.read_table(folder / "test.parquet")
    names = ["a", *["b"] * 9]
    pq.write_table(table.set_column(1, "student", [names]), tmp_path / "test.parquet")
    with pytest.raises(DataError, match="traces of 2 students"):
        tables.read(tmp_path, "test")


def test_a_shared_problem_is_refused() -> None:
    again = Problem(task="other", id="x", question=PROBLEMS[3].question.upper(), answer="0")
    with pytest.raises(DataError, match="share their question"):
        traces.refuse_shared(PROBLEMS[:5], [PROBLEMS[7], again])
    traces.refuse_shared(PROBLEMS[:5], PROBLEMS[5:])


def test_one_problem_is_asked_about(folder: Path, tmp_path: Path) -> None:
    """Through the doors: the student's folder, its trace, a reader's folder, and words for an answer."""
    who, found = thinker(), tables.read(folder, "test")
    save(who, tmp_path / "student")
    lectures = evaluating.prepare(
        found, tables.Traces(*_renamed(found)), QuestionsConfig(strategies=("settled",)), held=(None,) * COUNT
    )
    scratch = ScratchConfig(width=16, layers=2, heads=2, feed_forward=32, positions=64)
    config = ReaderConfig(
        scratch=scratch,
        fit=FitConfig(updates=60, batch_size=8, learning_rate=1e-2, warmup=5, precision="float32", threads=1),
    )
    reader = readers.begin(config, prompts.INJECTION, found, lectures.taught, "cpu")
    evaluating.teach(reader, lectures, config, workplace(tmp_path / "reader"))
    readers.save(reader, tmp_path / "reader")
    doors = ["ask", str(tmp_path / "student"), PROBLEMS[1].question]
    settled = questions.STRATEGIES["settled"].phrasings[0]
    options = ["--reader", str(tmp_path / "reader"), "--device", "cpu", "--json"]
    said = CliRunner().invoke(app, [*doors, settled, *options])
    assert said.exit_code == 0, said.output + str(said.exception)
    reply = json.loads(said.output)
    assert reply["answer"] == asking.ask(who, readers.load(tmp_path / "reader"), PROBLEMS[1].question, settled).answer
    assert reply["shown"] in {"0", "1", "2", "3"}
    assert reply["said"] in {"0", "1", "2", "3"}
    with pytest.raises(UsageError, match="has the steps 0, 1, 2"):
        asking.ask(who, reader, PROBLEMS[1].question, "What happens when step 7 is removed?")
    with pytest.raises(UsageError, match="ask a shorter one"):
        asking.ask(who, reader, PROBLEMS[1].question, "Which step matters most? " * 20)
    with pytest.raises(UsageError, match="another model"):
        asking.ask(thinker(1), reader, PROBLEMS[1].question, settled)
    with pytest.raises(UsageError, match="holds no reader of this student"):
        asking.find_reader(tmp_path / "store", who)
    entrance = tmp_path / "reader" / readers.ENTRANCE
    save_file({"other": torch.zeros(2)}, entrance)
    with pytest.raises(DataError, match="the way of thoughts into this reader cannot be opened"):
        readers.load(tmp_path / "reader")
    for written, said in (("{", "not readable as JSON"), ("{}", "arm: Field required")):
        (tmp_path / "reader" / readers.READER).write_text(written)
        with pytest.raises(ValueError, match=said) as told:
            readers.load(tmp_path / "reader")
        assert isinstance(told.value, StillroomError)


def test_words_of_ones_own_are_answered_with_the_questions_that_a_trace_decides(folder: Path) -> None:
    one = tables.read(folder, "test")
    assert all(asking.shown(one, query) is not None for query in asking.decided())
    assert asking.shown(one, "How do you feel?") is None
    assert asking.Reply("", "", None).told.endswith(" ".join(asking.decided()))
    assert asking.Reply("", "", "step 2").told == "step 2"


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_what_a_model_says_steers_no_terminal(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = "\x1b]0;x\x07\x9b2J é"
    save(thinker(), tmp_path / "student")
    monkeypatch.setattr(readers, "load", lambda *_: None)
    monkeypatch.setattr(asking, "ask", lambda *_: asking.Reply(evil, evil, evil))
    said = CliRunner().invoke(
        app, ["ask", str(tmp_path / "student"), "p", "q", "--reader", "r", "--device", "cpu", *options]
    )
    assert said.exit_code == 0, said.output + str(said.exception)
    assert not {"\x1b", "\x07", "\x9b"} & set(said.output)
    assert len(said.output.split("2J")) == 4


def _renamed(found: tables.Traces) -> tuple[tuple[tables.Trace, ...], torch.Tensor]:
    rows = tuple(trace.model_copy(update={"question": f"{trace.question} And then?"}) for trace in found.rows)
    return rows, found.thoughts_NKd


def test_the_door_writes_traces(tmp_path: Path) -> None:
    save(thinker(), tmp_path / "student")
    rows = [{"id": p.id, "question": p.question, "answer": p.answer} for p in PROBLEMS]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = [str(tmp_path / "student"), "--task", str(tmp_path / "own.jsonl"), "-n", "4", "--new-tokens", "4"]
    said = CliRunner().invoke(app, ["trace", *arguments, "--device", "cpu", "-o", str(tmp_path / "out")])
    assert said.exit_code == 0, said.output + str(said.exception)
    assert [trace.problem for trace in tables.read(tmp_path / "out", "test").rows] == [
        "sum-0",
        "sum-2",
        "sum-5",
        "sum-7",
    ]
