"""Batches: the providers' own interfaces for requests that may take a day and cost half.

The journal notes a batch before it is handed in and its id before it is polled. After a kill between the two the
provider is asked for it: OpenAI's by the token in its metadata, Anthropic's by its age and size. Requests carry their
keys, so that whatever a batch returns is filed where it belongs.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import datetime
from typing import Any, Protocol

from stillroom.errors import TeacherError
from stillroom.progress import say
from stillroom.teachers.clients import BODIES, ApiClient, read_reply
from stillroom.teachers.journal import Batch
from stillroom.teachers.limits import backoff, pause
from stillroom.teachers.requests import Ask, Refused, Reply, Transient
from stillroom.teachers.running import Run, Tally, wanted

SIZE = 10_000
CLOCKS_APART_S = 300.0
ENDED = ("completed", "failed", "expired", "cancelled", "ended")
Result = tuple[str, Reply | Refused | None]
"""A request's key with its reply, its refusal, or None where it should be asked again."""


class Provider(Protocol):
    """A batch interface."""

    client: ApiClient

    async def hand_in(self, asks: list[Ask], token: str) -> str: ...

    async def find(self, batch: Batch, size: int, known: set[str]) -> str | None: ...

    async def status(self, batch: str) -> str: ...

    def results(self, batch: str) -> AsyncIterator[Result]: ...


class OpenAIBatches:
    def __init__(self, client: ApiClient) -> None:
        self.client, self._api = client, client.api

    async def hand_in(self, asks: list[Ask], token: str) -> str:
        lines = (
            json.dumps(
                {"custom_id": a.key(), "method": "POST", "url": "/v1/chat/completions", "body": BODIES["openai"](a)}
            )
            for a in asks
        )
        content = "\n".join(lines).encode()
        file = await self._api.files.create(file=(f"{token}.jsonl", content), purpose="batch")
        batch = await self._api.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"stillroom": token},
        )
        return str(batch.id)

    async def find(self, batch: Batch, size: int, known: set[str]) -> str | None:
        async for found in self._api.batches.list():
            if (found.metadata or {}).get("stillroom") == batch.token:
                return str(found.id)
            if found.created_at < batch.at - CLOCKS_APART_S:
                return None
        return None

    async def status(self, batch: str) -> str:
        return str((await self._api.batches.retrieve(batch)).status)

    async def results(self, batch: str) -> AsyncIterator[Result]:
        found = await self._api.batches.retrieve(batch)
        if found.status == "failed":
            told = found.errors.data[0].message if found.errors and found.errors.data else "no reason given"
            raise TeacherError(f"the provider refused the batch {batch}: {self.client.scrub(str(told))}; mend the call")
        for file in filter(None, (found.output_file_id, found.error_file_id)):
            content = await self._api.files.content(file)
            for line in content.text.splitlines():
                row = json.loads(line)
                yield row["custom_id"], self._result(row)

    def _result(self, row: dict[str, Any]) -> Reply | Refused | None:
        response = row.get("response") or {}
        status, body = response.get("status_code", 0), response.get("body") or {}
        if status == 200:
            return read_reply("openai", body)
        if row.get("error") or not status:
            return None  # expired or cancelled
        error = self.client.judge(status, self.client.scrub(json.dumps(body)), {}, "")
        return error if isinstance(error, Refused) else None


class AnthropicBatches:
    def __init__(self, client: ApiClient) -> None:
        self.client, self._api = client, client.api.messages.batches

    async def hand_in(self, asks: list[Ask], token: str) -> str:
        requests = [{"custom_id": ask.key(), "params": BODIES["anthropic"](ask)} for ask in asks]
        return str((await self._api.create(requests=requests)).id)

    async def find(self, batch: Batch, size: int, known: set[str]) -> str | None:
        async for found in self._api.list():
            made = found.created_at if isinstance(found.created_at, datetime) else None
            counts = found.request_counts.model_dump()
            if made is not None and made.timestamp() < batch.at - CLOCKS_APART_S:
                return None
            if found.id not in known and sum(counts.values()) == size:
                return str(found.id)
        return None

    async def status(self, batch: str) -> str:
        return str((await self._api.retrieve(batch)).processing_status)

    async def results(self, batch: str) -> AsyncIterator[Result]:
        async for row in await self._api.results(batch):
            yield row.custom_id, self._result(row.result.model_dump())

    def _result(self, result: dict[str, Any]) -> Reply | Refused | None:
        if result["type"] == "succeeded":
            return read_reply("anthropic", result["message"])
        error = ((result.get("error") or {}).get("error")) or {}
        if result["type"] == "errored" and error.get("type") == "invalid_request_error":
            return Refused(f"refused: {self.client.scrub(str(error.get('message')))}")
        return None


PROVIDERS: dict[str, type[OpenAIBatches] | type[AnthropicBatches]] = {
    "openai": OpenAIBatches,
    "anthropic": AnthropicBatches,
}


async def ask_in_batches(run: Run, provider: Provider, asks: Iterable[Ask], who: tuple[str, str, str]) -> Tally:
    """Hands in what neither the journal nor an open batch holds, then waits for all batches and files their results.

    `asks` is gone through again for each batch that is collected: requests are streamed here too.
    """
    await _adopt(run, provider, who)
    for chunk in _chunks(run, asks):
        held = sum(run.purse.most(ask, batch=True) for ask in chunk)
        if run.stop.is_set() or not run.purse.take(held):
            run.tally.over_budget = not run.stop.is_set()
            break
        token = run.journal.intend(*who, [ask.key() for ask in chunk])
        try:
            name = await provider.client.guard(lambda c=chunk, t=token: provider.hand_in(c, t), who[1])  # type: ignore[misc]
        except Transient as error:
            raise TeacherError(f"a batch could not be handed in ({error}); run the same command to go on") from None
        except Refused as error:
            run.journal.close_batch(token)
            raise TeacherError(f"a batch was {error}; mend the call, then run it again") from None
        except TeacherError:
            run.journal.close_batch(token)
            raise
        run.journal.name_batch(token, name)
        say(f"  batch {name}: {len(chunk)} requests handed in")
    for batch in run.journal.open_batches(*who):
        await _collect(run, provider, batch, asks)
    return run.tally


def _chunks(run: Run, asks: Iterable[Ask]) -> Iterator[list[Ask]]:
    open_asks = (
        ask for ask in asks if wanted(ask, run.journal, run.limits.retry_failed) and not run.journal.in_batch(ask.key())
    )
    while chunk := list(itertools.islice(open_asks, SIZE)):
        yield chunk


async def _adopt(run: Run, provider: Provider, who: tuple[str, str, str]) -> None:
    for batch in run.journal.open_batches(*who):
        if batch.id is None:
            size, known = len(run.journal.batch_keys(batch.token)), run.journal.batch_ids()
            name = await _patiently(run, lambda b=batch, s=size, k=known: provider.find(b, s, k), provider)
            run.journal.name_batch(batch.token, name) if name else run.journal.close_batch(batch.token)


async def _collect(run: Run, provider: Provider, batch: Batch, asks: Iterable[Ask]) -> None:
    assert batch.id is not None
    name = batch.id
    keys = set(run.journal.batch_keys(batch.token))
    by_key = {key: ask for ask in asks if (key := ask.key()) in keys}
    if not by_key:
        return  # another command's questions: theirs to wait for
    while (status := await _patiently(run, lambda: provider.status(name), provider)) not in ENDED:
        if not await pause(run.limits.poll_s, run.stop):
            return
        say(f"  batch {name}: {status}")
    try:
        async for key, result in provider.results(name):
            if key in by_key:
                await _file(run, by_key[key], result)
    except TeacherError:
        run.journal.close_batch(batch.token)
        raise
    run.tally.unanswered += sum(1 for key in keys if key in by_key and run.journal.find(key) is None)
    if keys <= by_key.keys():
        run.journal.close_batch(batch.token)


async def _file(run: Run, ask: Ask, result: Reply | Refused | None) -> None:
    if isinstance(result, Reply):
        price = run.purse.price
        run.purse.spent += price.usd(result.input_tokens, result.output_tokens, batch=True) if price else 0.0
        await run.journal.record(ask, result, batch=True)
        run.tally.answered += 1
    elif isinstance(result, Refused):
        await run.journal.record(ask, None, str(result), batch=True)
        run.tally.failed += 1
        run.tally.last_reason = str(result)
    run.advance()


async def _patiently(run: Run, call: Any, provider: Provider) -> Any:
    """A question about a batch, asked again while the network or the provider stumbles."""
    for attempt in itertools.count():
        try:
            return await provider.client.guard(call)
        except Transient as error:
            if attempt + 1 >= run.limits.attempts:
                raise TeacherError(f"{error}; the batches go on without us: run the same command later") from None
            await asyncio.sleep(error.wait if error.wait is not None else backoff(attempt, run.rng))
    raise AssertionError("unreachable")
