"""The providers' batch interfaces: handed in, found again, looked at, and read as replies, refusals and delays.

Requests carry their keys, so that whatever a batch returns, in whatever order, is filed where it belongs.
"""

import json
import re
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Protocol

from stillroom.teachers.clients import BODIES, ApiClient, headers_of, read_reply
from stillroom.teachers.journal import Batch
from stillroom.teachers.requests import Ask, Refused, Reply, Transient

CLOCKS_APART_S = 300.0
ENDED = ("completed", "failed", "expired", "cancelled", "ended")
TEMPORARY = re.compile(r"limit|quota|billing|overloaded|rate|timeout|api_error|server", re.IGNORECASE)
"""Codes of failures that say nothing about the requests."""
Result = tuple[str | None, Reply | Refused | Transient]
"""A request's key (None: every request of the batch) with its reply, its refusal, or why it is to be asked again."""


class Provider(Protocol):
    """A batch interface. Its methods raise what the library raises: they are called through `client.guard`."""

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
            yield None, self._failure(found.errors.data if found.errors else None)
        for file in filter(None, (found.output_file_id, found.error_file_id)):
            content = await self._api.files.content(file)
            for line in content.content.splitlines():  # bytes: a text may hold a separator that str would split at
                try:
                    row = json.loads(line)
                except ValueError:
                    continue  # cut off: what it held is asked again
                if isinstance(name := part(row, "custom_id"), str):
                    yield name, self._result(row)

    def _failure(self, errors: Any) -> Refused | Transient:
        told = self.client.scrub("; ".join(str(error.message) for error in errors or ())) or "no reason given"
        passing = errors and all(TEMPORARY.search(str(error.code)) for error in errors)
        kind = Transient if passing else Refused
        return kind(f"the provider refused the whole batch: {told}")

    def _result(self, row: dict[str, Any]) -> Reply | Refused | Transient:
        status, body = part(row, "response", "status_code"), part(row, "response", "body") or {}
        if status == 200:
            return read_or_wait(self.client, "openai", body)
        if not status or not isinstance(status, int):
            why = self.client.scrub(str(part(row, "error", "code") or "no reason given"))
            return Transient(f"the batch did not come to it ({why})")
        found = self.client.judge(status, self.client.scrub(json.dumps(body)), {}, "this model")
        return found if isinstance(found, Transient) else Refused(str(found))


class AnthropicBatches:
    def __init__(self, client: ApiClient) -> None:
        self.client, self._api = client, client.api.messages.batches

    async def hand_in(self, asks: list[Ask], token: str) -> str:
        requests = [{"custom_id": ask.key(), "params": BODIES["anthropic"](ask)} for ask in asks]
        return str((await self._api.create(requests=requests, extra_headers=headers_of(asks[0]))).id)

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
        if not (await self._api.retrieve(batch)).results_url:
            yield None, Transient("the provider has thrown the batch's results away")
            return
        async for row in await self._api.results(batch):
            yield row.custom_id, self._result(row.result.model_dump())

    def _result(self, result: dict[str, Any]) -> Reply | Refused | Transient:
        fate = part(result, "type")
        if fate == "succeeded":
            return read_or_wait(self.client, "anthropic", part(result, "message"))
        if fate != "errored":
            return Transient(f"the batch did not come to it ({self.client.scrub(str(fate))})")
        kind, why = (part(result, "error", "error", name) for name in ("type", "message"))
        told = self.client.scrub(f"{kind}: {why}")
        if TEMPORARY.search(str(kind)):
            return Transient(told)
        found = self.client.judge(400, told, {}, "this model")
        return found if isinstance(found, Refused) else Refused(str(found))


def part(data: Any, *names: str) -> Any:
    """What stands below these names; None where there is nothing."""
    for name in names:
        data = data.get(name) if isinstance(data, dict) else None
    return data


def read_or_wait(client: ApiClient, teacher: str, message: Any) -> Reply | Transient:
    try:
        return client.hidden(read_reply(teacher, message))
    except Transient as error:
        return error


PROVIDERS: dict[str, type[OpenAIBatches] | type[AnthropicBatches]] = {
    "openai": OpenAIBatches,
    "anthropic": AnthropicBatches,
}
