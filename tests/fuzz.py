"""Malformed and hostile input, in numbers: recipes, JSON lines, folders of models, prompts and HTTP replies.

    python tests/fuzz.py [COUNT] [SUBJECT...]

Whatever comes in, what comes out is a result or one of our own errors; nothing outside of a scratch folder is written,
no process is started, no connection made, and no code from the input runs: an audit hook of the interpreter watches.
"""

import contextlib
import io
import json
import os
import pickle
import random
import shutil
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import torch
from safetensors.torch import save_file
from transformers.utils import logging

from stillroom import pipeline
from stillroom.curriculum import make_given
from stillroom.errors import StillroomError
from stillroom.evaluation.models import Given, open_model, settled
from stillroom.files import read_lines
from stillroom.recipe_files import recipe_names
from stillroom.recipes import load_recipe
from stillroom.records import Lesson, Prediction, Problem, Rationale, Verdict
from stillroom.store import Workplace
from stillroom.students.importing import import_folder
from stillroom.students.pretrained import Pretrained, make_pretrained
from stillroom.students.prompts import FORMATS, completions_ids, prompts_ids
from stillroom.tasks import TASKS, answers, check
from stillroom.tasks.benchmarks.table import BENCHMARKS
from stillroom.teachers import RecordedConfig, recorded
from stillroom.teachers.batch_apis import AnthropicBatches, OpenAIBatches
from stillroom.teachers.clients import ApiClient, read_reply, retry_after
from stillroom.teachers.prompts import messages
from stillroom.teachers.requests import Refused, Reply, Transient
from toy_tokenizers import SHAPES
from toys import llama, tokenizer

KEY = "sk-fuzz-key"
"""The key that servers hand back, and that nothing may repeat."""
HOSTILE: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1e308,
    -0.0,
    10**30,
    2**31,
    2**63,
    1e-320,
    "",
    " ",
    "\n",
    "\x00",
    "é",
    "\ud800",
    "𓀀" * 9,
    "a" * 5000,
    "../../../etc/passwd",
    "/etc/passwd",
    "~/x",
    "C:\\x",
    "${HOME}",
    "{question}",
    "{{ 7 * 7 }}",
    "$(touch x)",
    "`touch x`",
    "%s%n",
    "<script>",
    "__import__('os').system('touch x')",
    "null",
    "NaN",
    [],
    {},
    [[]],
    {"": {}},
    {"__class__": "x"},
    ["../x"],
    "1e5",
    "9" * 5000,
    "-1/0",
    "\\frac{1}{0}",
    "١٢",
    "−3",
    "0x1F",
    "1_000",
    KEY,
)
SNIPPETS = (
    "\x00",
    "\t",
    "\r",
    "\ufeff",
    "'",
    '"',
    "{",
    "}",
    "[",
    "]",
    ": ",
    "- ",
    "&a ",
    "*a",
    "!!python/object/apply:os.system [x]",
    "!!binary aGk=",
    "2001-99-99",
    "<<: *a",
    "? ",
    "---\n",
    "...\n",
    "%YAML 9.9\n",
    "0o9",
    ".inf",
    ".nan",
    "9" * 5000,
    "\ud800",
    "[" * 400,
    "&x [*x]",
    "null",
    "~",
    "!",
    "|",
    ">",
    "#",
    "@",
    "`",
    "1e999",
    "\u2028",
    "\x85",
)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate")
RUNS = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.forkpty",
    "pty.spawn",
    "socket.connect",
)


class Watch:
    """What the interpreter did that no input may bring it to do."""

    def __init__(self) -> None:
        self.inside: Path | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if self.inside is None:
            return
        if event in RUNS or event == "pickle.find_class":
            self.seen.append(f"{event} {args!r}"[:200])
        elif event in CHANGES or (event == "open" and isinstance(args[2], int) and args[2] & WRITES):
            self._written(event, args[0])
        elif event == "exec" and str(getattr(args[0], "co_filename", "")).startswith(str(self.inside)):
            self.seen.append(f"ran {args[0].co_filename}")

    def _written(self, event: str, path: Any) -> None:
        named = isinstance(path, str | bytes | os.PathLike)
        place = os.path.abspath(os.fsdecode(path)) if named else ""  # noqa: PTH100 (resolving would open it)
        if place and not place.startswith((str(self.inside), "/dev/null")):
            self.seen.append(f"{event} {place}")


def value(rng: random.Random, depth: int = 0) -> Any:
    """Any JSON value, hostile ones often."""
    kind = rng.random()
    if depth > 3 or kind < 0.6:
        return rng.choice(HOSTILE)
    if kind < 0.8:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {word(rng): value(rng, depth + 1) for _ in range(rng.randrange(4))}


def word(rng: random.Random) -> str:
    return rng.choice(("name", "id", "text", "question", "answer", "", "\ud800", "x" * 300, "../x", "0"))


def changed(data: Any, rng: random.Random) -> Any:
    """The data with one of its values, anywhere, replaced, removed or doubled."""
    data = json.loads(json.dumps(data))
    node = data
    while isinstance(node, dict | list) and node:
        key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        child = node[key]
        if isinstance(child, dict | list) and child and rng.random() < 0.7:
            node = child
            continue
        if rng.random() < 0.15:
            del node[key]
        elif isinstance(node, dict) and rng.random() < 0.15:
            node[word(rng)] = value(rng)
        else:
            node[key] = value(rng)
        break
    return data


def garbled(content: bytes, rng: random.Random) -> bytes:
    """The content cut, doubled, flipped, or with something put in."""
    for _ in range(rng.randrange(1, 4)):
        at, to = sorted(rng.randrange(len(content) + 1) for _ in range(2))
        choice = rng.randrange(6)
        if choice == 0:
            content = content[:at]
        elif choice == 1:
            content = content[:at] + content[to:]
        elif choice == 2 and content:
            index = rng.randrange(len(content))
            content = content[:index] + bytes([content[index] ^ 1 << rng.randrange(8)]) + content[index + 1 :]
        elif choice == 3 and len(content) < 20000:
            content = content[:to] + content[at:]
        else:
            put = rng.choice(SNIPPETS).encode(errors="surrogatepass")
            content = content[:at] + put + content[at:]
    return content


def recipes(rng: random.Random, at: Path) -> None:
    name = rng.choice(RECIPES)
    text = RECIPE_TEXTS[name].encode()
    overrides = []
    if rng.random() < 0.5:
        text = garbled(text, rng)
    else:
        field = rng.choice(FIELDS)
        told = value(rng)
        written = json.dumps(told) if rng.random() < 0.7 else str(told)
        overrides = [rng.choice((f"{field}={written}", f"{field}.{word(rng)}={written}", written, f"{field}"))]
    path = at / "recipe.yaml"
    path.write_bytes(text)
    cells = load_recipe(str(path), [*overrides, f"data={at}"])
    pipeline.upto(pipeline.plan(str(path), dict(list(cells.items())[:3])), None)


def lines(rng: random.Random, at: Path) -> None:
    kind = rng.choice(sorted(ROWS))
    row, read = ROWS[kind]
    rows = [changed(row, rng) if rng.random() < 0.6 else row for _ in range(rng.randrange(1, 4))]
    text = "\n".join(json.dumps(one, ensure_ascii=rng.random() < 0.5) for one in rows)
    content = text.encode(errors="surrogatepass")
    path = at / f"{kind}.jsonl"
    path.write_bytes(garbled(content, rng) if rng.random() < 0.5 else content)
    read(path)


def own_questions(path: Path) -> None:
    task = TASKS["questions"]
    found = task.splits(task.config.parse({"name": "questions", "file": path.name}, "fuzz"), path.parent)
    check(found, trains=False)


def benchmark(name: str) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        for file in BENCHMARKS[name].study.values():
            if path.name != file:
                shutil.copyfile(path, path.with_name(file))
        task = TASKS[name]
        check(task.splits(task.config.parse({"name": name}, "fuzz"), path.parent), trains=task.trains(task.config()))

    return read


def records(record: Any) -> Callable[[Path], Any]:
    return lambda path: read_lines(path, record)


def recorded_teacher(path: Path) -> None:
    asked = [Problem(task="t", id=name, question="Q?", answer="3") for name in ("a", "b")]
    recorded(RecordedConfig(dataset="t", file=path.name), asked, path.parent)


def lessons(path: Path) -> None:
    out = path.with_name("out")
    out.mkdir()
    make_given(path, Workplace(out=out))


def model_folders(rng: random.Random, at: Path) -> None:
    folder = at / "model"
    shutil.copytree(MODELS["whole"], folder)
    kind = rng.randrange(9)
    if kind < 3:
        name = rng.choice(
            ("config.json", "config.json", "tokenizer_config.json", "generation_config.json", "student.json")
        )
        said = json.loads((folder / name).read_text())
        for _ in range(rng.randrange(1, 4)):
            said = changed(said, rng)
        if rng.random() < 0.3:
            said[rng.choice(TRICKS)] = rng.choice(TRICKY)
        (folder / name).write_text(json.dumps(said))
    elif kind == 3:
        name = rng.choice(
            ("config.json", "tokenizer.json", "tokenizer_config.json", "student.json", "model.safetensors")
        )
        (folder / name).write_bytes(garbled((folder / name).read_bytes(), rng))
    elif kind == 4:
        (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
        shard = rng.choice(
            (
                "../../../../etc/passwd",
                "../../whole/model.safetensors",
                str(MODELS["whole"] / "model.safetensors"),
                "/etc/passwd",
                "..",
                "model-00001-of-00002.safetensors",
                "",
                "a\\b",
            )
        )
        index = {"metadata": {}, "weight_map": dict.fromkeys(WEIGHTS, shard)}
        index = changed(index, rng) if rng.random() < 0.5 else index
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    elif kind == 5:
        huge_header(folder / "model.safetensors", rng)
    elif kind < 8:
        pickled(folder, rng)
        with contextlib.suppress(FileNotFoundError):
            (folder / "student.json").unlink()
        import_folder(folder, at / "imported")
        return
    else:
        (folder / "evil.py").write_text("open('ran', 'w')\n")
        said = json.loads((folder / "config.json").read_text())
        said["auto_map"] = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
        said["model_type"] = rng.choice(("llama", "evil"))
        (folder / "config.json").write_text(json.dumps(said))
        told = json.loads((folder / "tokenizer_config.json").read_text())
        told["auto_map"] = {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
        (folder / "tokenizer_config.json").write_text(json.dumps(told))
    if rng.random() < 0.5:
        (folder / "student.json").unlink()
        if rng.random() < 0.5:
            out = at / "out"
            out.mkdir()
            make_pretrained(Pretrained(source=str(folder)), Workplace(out=out))
            return
    open_model(settled(Given(source=str(folder))), "cpu")
    if kind == 4:
        shards = json.loads((folder / "model.safetensors.index.json").read_bytes())["weight_map"].values()
        assert all(Path(shard).name == shard for shard in shards), "weights were read from outside of their folder"


def huge_header(path: Path, rng: random.Random) -> None:
    """A safetensors file that promises more than it holds."""
    shape = [rng.choice((2**20, 2**40, -1, 0, 2**63)) for _ in range(2)]
    header = {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, rng.choice((8, 2**40))]} for name in WEIGHTS}
    text = json.dumps(header).encode()
    size = rng.choice((len(text), 2**60, 8, 0))
    path.write_bytes(size.to_bytes(8, "little") + text + b"\0" * 8)


class Bomb:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


def pickled(folder: Path, rng: random.Random) -> None:
    """Pickled weights that call something, climb out of their archive, or are broken."""
    (folder / "model.safetensors").unlink()
    path, choice = folder / "pytorch_model.bin", rng.randrange(5)
    if choice == 0:
        path.write_bytes(pickle.dumps({"w": Bomb()}))
    elif choice == 1:
        torch.save({"w": Bomb()}, path)
    elif choice == 2:
        torch.save({name: torch.zeros(2, 2) for name in WEIGHTS}, path)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("../../../slipped", "x")
            archive.writestr("/tmp/slipped", "x")
    elif choice == 3:
        torch.save(changed({"w": [1, {"a": 2}]}, rng), path)
    else:
        buffer = io.BytesIO()
        torch.save({name: torch.zeros(2, 2) for name in WEIGHTS}, buffer)
        path.write_bytes(garbled(buffer.getvalue(), rng))
    if rng.random() < 0.3:
        shard = rng.choice(("../x", "/etc/passwd", "pytorch_model.bin"))
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(WEIGHTS, shard)}))


def prompts(rng: random.Random, at: Path) -> None:
    text = "".join(
        rng.choice(
            (*SNIPPETS, *(t for t in HOSTILE if isinstance(t, str)), chr(rng.randrange(1, 0xD7FF)), "How many? ")
        )
        for _ in range(rng.randrange(1, 12))
    )
    words = TOKENIZERS[rng.choice(sorted(TOKENIZERS))]
    style: Any = rng.choice((*FORMATS, "chat"))
    if rng.random() < 0.3:
        words.chat_template = rng.choice(TEMPLATES)
    prompts_ids([text], style, words)
    completions_ids([text], style, words)
    problem = Problem(task="t", id="a", question=text, answer=rng.choice(("3", text or "3")))
    messages(problem, rng.randrange(1, 7), rng.choice(("plain", "symbolic")))
    kind: Any = rng.choice(("numeric", "choice", "boolean"))
    answers.grade(kind, rng.choice(("3", "B", "yes")), text, ("a", "b", "c") if kind == "choice" else ())


def replies(rng: random.Random, at: Path) -> None:
    """Servers that hand the key back wherever they can."""
    try:
        found = heard(rng)
    except ALLOWED as error:
        assert KEY not in str(error), "the key is in an error"
        raise
    assert KEY not in str(found), "the key is in what came back"


def heard(rng: random.Random) -> Any:
    teacher = rng.choice(("openai", "anthropic"))
    client: Any = ApiClient.__new__(ApiClient)
    client.teacher, client.endpoint, client._secret = teacher, "http://127.0.0.1:1", KEY
    body = changed(REPLY[teacher], rng) if rng.random() < 0.8 else value(rng)
    choice = rng.randrange(4)
    if choice == 0:
        found: Any = client.hidden(read_reply(teacher, body))
    elif choice == 1:
        text = json.dumps([KEY, value(rng)])
        found = client.judge(
            rng.choice((0, 200, 301, 400, 401, 402, 404, 408, 422, 429, 500, 999)), client.scrub(text), {}, "m"
        )
    elif choice == 2:
        found = retry_after({rng.choice(("retry-after", "retry-after-ms")): str(rng.choice(HOSTILE))})
        assert found is None or found >= 0
        return found
    else:
        kind: Any = OpenAIBatches if teacher == "openai" else AnthropicBatches
        batches = kind.__new__(kind)
        batches.client = client
        found = batches._result(changed(RESULT[teacher], rng))
    assert isinstance(found, Reply | Refused | Transient | StillroomError), found
    if isinstance(found, Reply):
        assert isinstance(found.text, str)
        assert isinstance(found.finish, str)
        assert isinstance(found.input_tokens + found.output_tokens, int)
    return found


RECIPES = [name for name in recipe_names() if name != "granularity"]
RECIPE_TEXTS = {name: (Path(pipeline.__file__).parents[1] / "recipes" / f"{name}.yaml").read_text() for name in RECIPES}
FIELDS = (
    "task",
    "task.name",
    "teacher",
    "teacher.name",
    "base",
    "base.fit.updates",
    "base.scratch.width",
    "base.pretrained",
    "base.pretrained.source",
    "students",
    "students.normal",
    "students.normal.variant",
    "students.x",
    "adapter",
    "fit",
    "fit.batch_size",
    "evaluate",
    "lenses",
    "lenses.weights",
    "oracle",
    "oracle.reader",
    "crosscoder",
    "seeds",
    "test_on",
    "sweep",
    "sweep.fit.updates",
    "sweep.teacher",
    "settings",
    "settings.device",
    "data",
    "gates",
    "cost",
    "faithfulness",
    "faithfulness.paraphrases",
    "allow_overlap",
    "task.file",
    "students.latent.codi.thoughts",
)
ROWS: dict[str, tuple[dict[str, Any], Callable[[Path], Any]]] = {
    "problem": (Problem(task="t", id="a", question="Q?", answer="3").model_dump(mode="json"), records(Problem)),
    "rationale": (
        Rationale(problem="a", teacher="t", granularity=1, format="plain", text="x").model_dump(mode="json"),
        records(Rationale),
    ),
    "prediction": (
        {"problem": "a", "text": "x", "tokens": 1, "stopped": True},
        records(Prediction),
    ),
    "verdict": ({"problem": "a", "correct": True, "extracted": "3", "rule": "x"}, records(Verdict)),
    "lesson": ({"problem": "a", "prompt": "Q?", "completion": "The answer is 3."}, records(Lesson)),
    "given lessons": ({"prompt": "Q?", "completion": "The answer is 3."}, lessons),
    "own questions": (
        {"id": "a", "question": "Q?", "answer": "3", "kind": "numeric", "choices": ["a", "b"], "solution": "s"},
        own_questions,
    ),
    "teacher_cot": (
        {
            "dataset": "t",
            "id": "a",
            "teacher": "gemini",
            "granularity": 1,
            "format": "plain",
            "cot": "x. The answer is 3",
        },
        recorded_teacher,
    ),
    "gsm8k_train": ({"question": "Q?", "answer": "So <<1+2=3>>3.\n#### 3"}, benchmark("gsm8k")),
    "svamp_train": (
        {"ID": "a", "Body": "A has 3.", "Question": "How many?", "Equation": "( 3.0 + 1.0 )", "Answer": 4.0},
        benchmark("svamp"),
    ),
    "csqa_train": (
        {"answerKey": "A", "id": "a", "question": {"stem": "Q?", "choices": [{"label": "A", "text": "x"}]}},
        benchmark("csqa"),
    ),
    "math_train": ({"problem": "Q?", "solution": "\\boxed{3}", "id": "a", "answer": "3"}, benchmark("math")),
    "strategyqa_train": ({"question": "Q?", "answer": True, "facts": ["f"]}, benchmark("strategyqa")),
}
REPLY: dict[str, dict[str, Any]] = {
    "openai": {
        "choices": [{"message": {"content": f"x {KEY}", "refusal": None}, "finish_reason": "stop"}],
        "model": "m",
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    },
    "anthropic": {
        "content": [{"type": "text", "text": f"x {KEY}"}],
        "stop_reason": "end_turn",
        "model": "m",
        "usage": {"input_tokens": 1, "output_tokens": 2},
    },
}
RESULT: dict[str, dict[str, Any]] = {
    "openai": {"custom_id": "k", "response": {"status_code": 200, "body": REPLY["openai"]}, "error": None},
    "anthropic": {"type": "succeeded", "message": REPLY["anthropic"]},
}
TRICKS = (
    "num_hidden_layers",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "head_dim",
    "model_type",
    "architectures",
    "torch_dtype",
    "dtype",
    "rope_parameters",
    "quantization_config",
    "attn_implementation",
    "auto_map",
    "tokenizer_class",
    "chat_template",
    "pad_token",
    "eos_token",
    "model_max_length",
    "origin",
    "thoughts",
    "style",
    "text_config",
    "tie_word_embeddings",
    "layer_types",
    "_attn_implementation",
    "transformers_weights",
)
TRICKY: tuple[Any, ...] = (
    10**9,
    2**40,
    -1,
    0,
    1.5,
    "evil.Evil",
    ["Evil"],
    "kernels-community/flash-attn",
    {"quant_method": "bitsandbytes"},
    {"quant_method": "gptq", "bits": 4},
    {"rope_type": "dynamic", "factor": 0},
    "{% for i in range(10**9) %}x{% endfor %}",
    {"source": "../../../etc"},
    {"source": "/etc", "trust_remote_code": True},
    {"count": 10**9},
    "bloom",
    "t5",
    "mamba",
    "",
    "../../model",
    "float4",
    None,
    [],
    {},
)
TEMPLATES = (
    "{% for m in messages %}{{ m.content }}{% endfor %}",
    "{{ messages }}",
    "{% for i in range(10**9) %}x{% endfor %}",
    "{{",
    "{{ messages[0].__class__.__mro__ }}",
    "{{ ''.__class__.__base__.__subclasses__() }}",
    "{{ raise_exception('no') }}",
    "",
    "{{ cycler.__init__.__globals__.os.system('touch ran') }}",
    "{% include '/etc/passwd' %}",
    "{{ 1 / 0 }}",
)
MODELS: dict[str, Path] = {}
WEIGHTS: list[str] = []
TOKENIZERS = {**{name: make() for name, make in SHAPES.items()}, "words": tokenizer()}
SUBJECTS: dict[str, Callable[[random.Random, Path], None]] = {
    "recipes": recipes,
    "lines": lines,
    "models": model_folders,
    "prompts": prompts,
    "replies": replies,
}
ALLOWED = (StillroomError, Refused, Transient)
WATCH = Watch()


def prepare(scratch: Path) -> None:
    """A tiny model's folder, from which each hostile one is made; a file for whatever data a recipe names."""
    if MODELS:
        return
    from stillroom.students import Manner, Student, save

    logging.set_verbosity(logging.CRITICAL)
    words, folder = tokenizer(), scratch / "whole"
    model = llama(len(words))
    model.generation_config.max_new_tokens = 3
    save(Student(model, words, Manner()), folder)
    WEIGHTS.extend(model.state_dict())
    save_file(
        {name: t.contiguous() for name, t in model.state_dict().items()}, folder / "model.safetensors", {"format": "pt"}
    )
    MODELS["whole"] = folder


def attack(subject: str, count: int, scratch: Path, seed: int = 0) -> tuple[Counter[str], list[str]]:
    """What came of so many inputs, by kind; and all that should not have been, with the seed that makes it again."""
    found: Counter[str] = Counter()
    faults = []
    prepare(scratch)
    for number in range(count):
        at = scratch / subject
        at.mkdir()
        rng = random.Random(f"{subject} {seed} {number}")
        WATCH.inside = scratch
        try:
            with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                SUBJECTS[subject](rng, at)
            found["taken"] += 1
        except ALLOWED as error:
            found[type(error).__name__] += 1
            if len(str(error)) > 5000 or "Traceback" in str(error):
                faults.append(f"{subject} {seed} {number}: no sentence: {str(error)[:200]}")
        except (Exception, pickle.PicklingError) as error:
            faults.append(f"{subject} {seed} {number}: {type(error).__name__}: {str(error)[:160]} at {where(error)}")
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            faults.append(f"{subject} {seed} {number}: {type(error).__name__}: {str(error)[:160]}")
        finally:
            WATCH.inside = None
        faults += [f"{subject} {seed} {number}: {told}" for told in WATCH.seen]
        WATCH.seen.clear()
        shutil.rmtree(at)
    return found, faults


def where(error: BaseException) -> str:
    """The last line of ours in the traceback."""
    trace, told = error.__traceback__, ""
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if "stillroom" in name:
            told = f"{Path(name).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return told


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    sys.dont_write_bytecode, bad = True, 0
    for subject in sys.argv[2:] or SUBJECTS:
        began = time.monotonic()
        with scratch_folder() as scratch:
            MODELS.clear()
            found, faults = attack(subject, count, scratch)
        told = ", ".join(f"{name} {number}" for name, number in found.most_common())
        print(
            f"{subject}: {count} inputs in {time.monotonic() - began:.0f} s: {told}; {len(faults)} faults", flush=True
        )
        print("".join(f"  {fault}\n" for fault in faults[:40]), end="", flush=True)
        bad += len(faults)
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
