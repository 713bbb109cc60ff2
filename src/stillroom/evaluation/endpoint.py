"""A server that speaks OpenAI's language answers: the provider's own, vLLM, SGLang, `transformers serve`.

The server puts its own chat template around a question. Its replies are kept in the store's journal as a teacher's are,
so that none is asked, or paid for, twice.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stillroom.errors import TeacherError, UsageError
from stillroom.evaluation.answering import UNASKED, Answer, AnswerConfig
from stillroom.progress import meter
from stillroom.teachers.asking import conclude, send
from stillroom.teachers.clients import ApiClient, endpoint_of
from stillroom.teachers.journal import Journal
from stillroom.teachers.limits import Limits, Purse
from stillroom.teachers.requests import NO_ROOM, Ask, Client, Reply
from stillroom.teachers.running import Tally, drive

OPENAI = "openai"
CHUNK = 1024
"""Questions between two appearances of predictions; each reply is in the journal at once."""
VERSIONED = re.compile(r"-\d{4}-\d\d-\d\d|-\d{4,8}|@\w+")
"""What a service may add to the name of the model that it was asked for: a date, or a revision."""


def same_model(asked: str, answered: str) -> bool:
    """Whether a reply names the model that was asked for, or a dated version of it; a reply may name none."""
    rest = answered.removeprefix(asked)
    return not answered or not rest or (answered.startswith(asked) and VERSIONED.fullmatch(rest) is not None)


@dataclass(frozen=True)
class SameModel:
    """A client that lets no reply of another model through, so that none is recorded."""

    client: Client

    async def ask(self, ask: Ask) -> Reply:
        """Raises `TeacherError` for a reply that names another model."""
        reply = await self.client.ask(ask)
        if not same_model(ask.model, reply.model):
            raise TeacherError(
                f"{ask.endpoint} was asked for {ask.model!r} and answered as {reply.model!r}: nothing was recorded; "
                "name the model that it serves, or start the server with the one that you mean"
            )
        return reply

    async def close(self) -> None:
        await self.client.close()


@dataclass(frozen=True)
class Endpoint:
    """A model behind an address. A seed names a draw of samples: the server draws them by itself."""

    model: str
    base_url: str | None
    config: AnswerConfig
    journal: Path
    limits: Limits = field(default_factory=Limits)

    def answers(self, questions: Sequence[str], known: frozenset[int]) -> Iterator[dict[int, Answer]]:
        """See `Backend`. Raises `TeacherError` where the server cannot be asked, or some questions got no answer."""
        if self.config.max_length is not None:
            raise UsageError("--max-length counts tokens, and only the server has them: leave it out with --base-url")
        asks = {row: ask for row, ask in enumerate(self._asks(questions)) if row not in known}
        with Journal(self.journal) as journal, journal.sole(*self.who):
            for start in range(0, len(questions), CHUNK):
                part = {row: asks[row] for row in range(start, min(start + CHUNK, len(questions))) if row in asks}
                if part:
                    self._send(list(part.values()), journal)
                    yield {row: self._read(journal, ask) for row, ask in part.items()}

    @property
    def who(self) -> tuple[str, str, str]:
        """Teacher, model and endpoint as the journal names them."""
        return OPENAI, self.model, endpoint_of(OPENAI, self.base_url)

    def _asks(self, questions: Sequence[str]) -> Iterator[Ask]:
        """A question that stands again right after itself is a further sample."""
        config, sample, last = self.config, 0, None
        for place, question in enumerate(questions):
            sample = sample + 1 if question == last and place % config.samples else 0
            last = question
            chat = [{"role": "user", "content": question}]
            draw = config.seed * config.samples + sample
            yield Ask(*self.who, chat, config.new_tokens, config.temperature, draw)

    def _send(self, asks: Sequence[Ask], journal: Journal) -> None:
        purse = Purse(self.limits.max_usd, self.limits.price_of(*self.who), ":".join(self.who[:2]))
        client = SameModel(ApiClient(OPENAI, self.who[2], self.limits.timeout_s))
        with meter(":".join(self.who[:2]), len(asks), "requests") as bar:
            again = self.limits.model_copy(update={"retry_failed": True})  # what was refused once may be mended
            tally: Tally = drive(lambda: send(client, asks, journal, again, purse, bar))
        conclude(tally)
        if tally.unanswered:
            raise TeacherError(
                f"{tally.unanswered} of {len(asks)} questions got no answer ({tally.last_reason}); run the same "
                "command to go on, the others are recorded"
            )

    def _read(self, journal: Journal, ask: Ask) -> Answer:
        """Raises `TeacherError` for a question that was refused for anything but its length."""
        row = journal.find(ask.key())
        if row is None or (row.reply is None and not row.reason.startswith(NO_ROOM)):
            told = f"a question got no answer ({row.reason if row else 'not recorded'})"
            raise TeacherError(f"{told}, so nothing is scored; mend that, and the same command asks it again")
        if row.reply is None:
            return UNASKED
        return Answer(row.reply.text, row.reply.output_tokens, row.reply.finish != "length")
