"""Teachers that are asked: OpenAI's, Anthropic's, and a model of the hub in this process.

Two passes over the problems: the first sends what the journal does not hold, the second reads the journal. So what
comes out depends on the journal alone, and a run that was killed ends as one that was not.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from stillroom.config import SECRET, Config
from stillroom.errors import Interrupted, TeacherError, UsageError
from stillroom.files import resolved, sha256
from stillroom.progress import Meter, meter, say
from stillroom.records import Problem, Rationale, content_key
from stillroom.teachers import batches, local, prompts
from stillroom.teachers.clients import ApiClient, endpoint_of
from stillroom.teachers.journal import Journal, Row
from stillroom.teachers.limits import Limits, Purse
from stillroom.teachers.requests import Ask, Client
from stillroom.teachers.running import Run, Tally, ask_all, drive, interruptible, wanted

SAMPLING = 0.2
Format = Literal["plain", "least-to-most", "rephrase-and-respond", "symbolic"]


class AskConfig(Config):
    """What is asked, and how: all that decides a reply."""

    granularity: int = Field(3, ge=1, le=6)
    format: Format = "plain"
    samples: int = Field(1, ge=1)
    """Replies a question."""
    max_new_tokens: int = Field(512, ge=1)
    temperature: float | str | None = None
    """None: greedy for one sample, 0.2 for several. `unset` sends none, for models that refuse any."""

    @field_validator("temperature")
    @classmethod
    def _is_temperature(cls, value: float | str | None) -> float | str | None:
        if value != "unset" and (isinstance(value, str) or (value is not None and value < 0)):
            raise PydanticCustomError("temperature", "expected a number from 0 on, or unset to send none")
        return value

    @property
    def heat(self) -> float | None:
        if isinstance(self.temperature, str):
            return None
        return self.temperature if self.temperature is not None else SAMPLING if self.samples > 1 else 0.0


def address(teacher: str, url: str) -> str:
    """A checked base URL; an error about it does not repeat it, since it may hold a password."""
    try:
        return endpoint_of(teacher, url)
    except UsageError as error:
        raise PydanticCustomError(SECRET, "{why}", {"why": str(error)}) from None


class OpenAIConfig(AskConfig):
    """OpenAI, or any server that speaks its language (vLLM, SGLang, `transformers serve`): give its `base_url`."""

    name: Literal["openai"] = "openai"
    model: str = Field(min_length=1)
    base_url: str | None = None

    @field_validator("base_url")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        return None if value is None else address("openai", value)


class AnthropicConfig(AskConfig):
    """Anthropic. Models since Claude Opus 4.7 refuse a temperature: ask them with `temperature: unset`."""

    name: Literal["anthropic"] = "anthropic"
    model: str = Field(min_length=1)
    base_url: str | None = None

    @field_validator("base_url")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        return None if value is None else address("anthropic", value)


class LocalConfig(AskConfig):
    """A causal model of the hub's format, run in this process."""

    name: Literal["local"] = "local"
    folder: str = Field(min_length=1)
    """A folder, or a model of the hub, which is fetched when it is first asked."""
    revision: str | None = None
    """The hub's commit, tag or branch; its newest where it is not given."""
    four_bit: bool = False
    device_map: Literal["auto"] | None = None
    batch_size: int = Field(16, ge=1)

    @field_validator("temperature")
    @classmethod
    def _is_set(cls, value: float | str | None) -> float | str | None:
        if value == "unset":
            raise PydanticCustomError("temperature", "a local model has none of its own: leave it out to be greedy")
        return value


def model_files(config: LocalConfig) -> tuple[str, ...]:
    """The files that decide what a local model says; none of a model of the hub, which may not be here yet. Raises
    `TeacherError` for a folder that holds no model."""
    if local.on_the_hub(config.folder):
        return ()
    return files_in(resolved(Path(config.folder)))


def files_in(folder: Path) -> tuple[str, ...]:
    if not (folder / "config.json").is_file():
        raise TeacherError(f"{folder}: holds no config.json: give the folder of a saved Hugging Face model")
    return tuple(str(p) for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith("."))


def identity(config: Any) -> tuple[str, str, str]:
    """Teacher, model and endpoint as the journal names them; a local model by what its files hold."""
    if isinstance(config, LocalConfig):
        digest = content_key([[Path(p).name, sha256(Path(p))] for p in files_in(local.home(config))])
        return config.name, f"{resolved(Path(config.folder)).name}@{digest}", "4-bit" if config.four_bit else "local"
    return config.name, config.model, endpoint_of(config.name, config.base_url)


class Item(NamedTuple):
    problem: Problem
    ask: Ask


@dataclass(frozen=True)
class Asks:
    """The requests about some problems, made anew each time they are gone through."""

    config: Any
    problems: Iterable[Problem]
    who: tuple[str, str, str]

    @classmethod
    def of(cls, config: Any, problems: Iterable[Problem]) -> Self:
        return cls(config, problems, identity(config))

    def items(self) -> Iterator[Item]:
        config = self.config
        for problem in self.problems:
            chat = prompts.messages(problem, config.granularity, config.format)
            for sample in range(config.samples):
                yield Item(problem, Ask(*self.who, chat, config.max_new_tokens, config.heat, sample))

    def __iter__(self) -> Iterator[Ask]:
        return (item.ask for item in self.items())


@dataclass(frozen=True)
class Desk:
    """Where and how a teacher is asked: nothing here changes a result."""

    journal: Path = Path("journal.sqlite")
    limits: Limits = field(default_factory=Limits)
    device: str = "cpu"


class Estimate(NamedTuple):
    """What is there and what is to come, before anything is sent. Tokens to come are guesses, `most_usd` a bound."""

    requests: int
    recorded: int
    spent_usd: float | None
    input_tokens: int
    output_tokens: int
    most_usd: float | None


def estimate(asks: Asks, journal: Journal, limits: Limits) -> Estimate:
    price = limits.price_of(*asks.who)
    requests = recorded = read = written = 0
    spent = most = 0.0
    for ask in asks:
        requests += 1
        if wanted(ask, journal, limits.retry_failed):
            read, written = read + ask.likely_tokens(), written + ask.max_new_tokens
            most += price.usd(ask.most_tokens(), ask.max_new_tokens, limits.batch) if price else 0.0
        else:
            recorded += 1
            row = journal.find(ask.key())
            if price and row and row.reply:
                spent += price.usd(row.reply.input_tokens, row.reply.output_tokens, row.batch)
    return Estimate(requests, recorded, spent if price else None, read, written, most if price else None)


def gather(asks: Asks, journal: Journal, desk: Desk, total: int) -> Tally:
    """Sends what the journal does not hold. Raises `TeacherError` where nobody can be asked."""
    if desk.limits.batch and isinstance(asks.config, LocalConfig):
        raise UsageError("a local model has no batch interface: leave --batch out")
    with journal.sole(*asks.who):
        if isinstance(asks.config, LocalConfig):
            return local.answer_all(asks.config, asks, journal, desk.device, desk.limits.retry_failed)
        price, limit = desk.limits.price_of(*asks.who), desk.limits.max_usd
        spent = estimate(asks, journal, desk.limits).spent_usd if limit is not None else 0.0
        purse = Purse(limit, price, ":".join(asks.who[:2]), spent or 0.0)
        with meter(":".join(asks.who[:2]), total, "requests") as bar:
            return drive(lambda: _send(asks, journal, desk.limits, purse, bar))


async def _send(asks: Asks, journal: Journal, limits: Limits, purse: Purse, bar: Meter) -> Tally:
    client = ApiClient(asks.who[0], asks.who[2], limits.timeout_s)
    if not limits.batch:
        return await send(client, asks, journal, limits, purse, bar)
    run = Run(client, journal, limits, purse, bar)
    try:
        with interruptible(run.stop, run.tally):
            return await batches.ask_in_batches(run, batches.PROVIDERS[asks.who[0]](client), asks, asks.who)
    finally:
        await client.close()


async def send(
    client: Client, asks: Iterable[Ask], journal: Journal, limits: Limits, purse: Purse, bar: Meter
) -> Tally:
    """One by one, what the journal does not hold; the client is closed at the end."""
    run = Run(client, journal, limits, purse, bar)
    try:
        with interruptible(run.stop, run.tally):
            return await ask_all(run, asks)
    finally:
        await client.close()


def answers(asks: Asks, journal: Journal) -> Iterator[tuple[Item, Row | None]]:
    """The requests with what the journal holds of each, in the order of the problems."""
    for item in asks.items():
        yield item, journal.find(item.ask.key())


def conclude(tally: Tally) -> None:
    """Raises for a run that did not come to its end: `KeyboardInterrupt` for Ctrl-C, else `TeacherError`."""
    done = f"{tally.answered} answered, {tally.reused} recorded before, {tally.failed} failed"
    if tally.over_budget:
        raise TeacherError(
            f"stopped before --max-usd was passed ({done}): raise it and run the same command to go on; nothing is lost"
        )
    if tally.terminated:
        raise Interrupted(
            f"stopped by SIGTERM: {done}; nothing that was answered is lost, run the same command to go on"
        )
    if tally.stopped:
        say(f"stopped: {done}; nothing that was answered is lost, run the same command to go on")
        raise KeyboardInterrupt


def asked(
    config: Any, problems: Iterable[Problem], apart: Callable[[str], tuple[str, str]], desk: Desk
) -> Iterator[Rationale]:
    """The rationales of a teacher that is asked; the failed are left out, and counted on stderr.

    `apart` tells a reply's reasoning from the sentence that concludes it.
    """
    asks = Asks.of(config, problems)
    total = sum(1 for _ in problems) * config.samples
    left_out = 0
    with Journal(desk.journal) as journal:
        tally = gather(asks, journal, desk, total)
        conclude(tally)
        if tally.unanswered:
            raise TeacherError(
                f"{tally.unanswered} of {total} requests got no answer ({tally.last_reason}); run the same command to "
                "go on, the others are recorded"
            )
        for item, row in answers(asks, journal):
            if row is None or row.reply is None:
                left_out += 1
                continue
            said, conclusion = apart(row.reply.text)
            yield Rationale(
                problem=item.problem.id,
                teacher=config.name,
                granularity=config.granularity,
                format=config.format,
                text=said,
                conclusion=conclusion,
                sample=item.ask.sample,
                truncated=row.reply.finish == "length",
            )
    if left_out:
        say(f"! {left_out} of {total} requests gave no rationale; `stillroom show journal` tells why")
