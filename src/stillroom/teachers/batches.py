"""Batches: requests that may take a day and cost half.

The journal notes a batch before it is handed in and its id before it is polled. After a kill between the two the
provider is asked for it: OpenAI's by the token in its metadata, Anthropic's by its age and size.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from stillroom.errors import TeacherError
from stillroom.progress import say
from stillroom.teachers.batch_apis import ENDED, PROVIDERS, Provider
from stillroom.teachers.clients import NotFound
from stillroom.teachers.journal import Batch
from stillroom.teachers.limits import backoff, pause
from stillroom.teachers.requests import Ask, Refused, Reply, Transient
from stillroom.teachers.running import Run, Tally, wanted

__all__ = ["PROVIDERS", "ask_in_batches"]
SIZE, BYTES = 10_000, 100_000_000
"""Requests of a batch, and bytes of their messages, at most: providers take 50,000 and 200 MB."""


async def ask_in_batches(run: Run, provider: Provider, asks: Iterable[Ask], who: tuple[str, str, str]) -> Tally:
    """Hands in what neither the journal nor an open batch holds, then waits for all batches and files their results.

    `asks` is gone through again for each batch that is collected: requests are streamed here too. Raises `TeacherError`
    where the provider takes no batch, and where every request was refused.
    """
    await _adopt(run, provider, who)
    for chunk in _chunks(run, asks):
        held = sum(run.purse.most(ask, batch=True) for ask in chunk)
        if run.stop.is_set() or not run.purse.take(held):
            run.tally.over_budget = not run.stop.is_set()
            break
        token = run.journal.intend(*who, [ask.key() for ask in chunk])
        about = f"model {who[1]!r} or batch interface"
        try:
            name = await provider.client.guard(lambda c=chunk, t=token: provider.hand_in(c, t), about)  # type: ignore[misc]
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
    tally = run.tally
    if tally.failed and not (tally.answered or tally.reused or tally.unanswered or tally.stopped):
        raise TeacherError(
            f"every request was refused ({tally.last_reason}): mend the call; then run it with --retry-failed"
        )
    return tally


def _chunks(run: Run, asks: Iterable[Ask]) -> Iterator[list[Ask]]:
    """The requests to hand in, each once; what an open batch may still cost is held back first."""
    chunk: dict[str, Ask] = {}
    size = 0
    run.purse.hold(sum(run.purse.most(ask, batch=True) for ask in asks if _is_out(run, ask)))
    for ask in asks:
        if not wanted(ask, run.journal, run.limits.retry_failed):
            run.tally.reused += 1
            run.advance()
        elif not run.journal.in_batch(ask.key()) and ask.key() not in chunk:
            if chunk and (len(chunk) == SIZE or size + ask.most_tokens() > BYTES):
                yield list(chunk.values())
                chunk, size = {}, 0
            chunk[ask.key()] = ask
            size += ask.most_tokens()
    if chunk:
        yield list(chunk.values())


def _is_out(run: Run, ask: Ask) -> bool:
    return run.journal.in_batch(ask.key()) and wanted(ask, run.journal, run.limits.retry_failed)


async def _adopt(run: Run, provider: Provider, who: tuple[str, str, str]) -> None:
    """Names the batches whose id a kill lost; if failures are retried, gives up forgotten ones."""
    for batch in run.journal.open_batches(*who):
        if batch.id is None:
            size, known = len(run.journal.batch_keys(batch.token)), run.journal.batch_ids()
            name = await _patiently(run, provider, lambda b=batch, s=size, k=known: provider.find(b, s, k), "batches")
            run.journal.name_batch(batch.token, name) if name else run.journal.close_batch(batch.token)
        elif run.limits.retry_failed:
            try:
                await _patiently(run, provider, lambda b=batch: provider.status(b.id), f"batch {batch.id}")
            except NotFound:
                say(f"  batch {batch.id}: the provider knows it no more, its requests are handed in anew")
                run.journal.close_batch(batch.token)


async def _collect(run: Run, provider: Provider, batch: Batch, asks: Iterable[Ask]) -> None:
    assert batch.id is not None
    name = batch.id
    keys = set(run.journal.batch_keys(batch.token))
    by_key = {key: ask for ask in asks if (key := ask.key()) in keys}
    if not by_key:
        return  # another command's questions: theirs to wait for
    try:
        while (status := await _patiently(run, provider, lambda: provider.status(name), f"batch {name}")) not in ENDED:
            say(f"  batch {name}: {status}")
            if not await pause(run.limits.poll_s, run.stop):
                return
    except NotFound as error:
        raise TeacherError(
            f"{error}; if the batch is gone for good, run with --retry-failed: its requests are handed in anew"
        ) from None
    missing = dict(by_key)

    async def file_all() -> None:
        async for key, result in provider.results(name):
            for one in list(missing) if key is None else [key]:
                if one in missing:
                    await _file(run, missing[one], result)
                    del missing[one]

    await _patiently(run, provider, file_all, f"batch {name}")
    for ask in missing.values():
        await _file(run, ask, Transient(f"the batch {name} says nothing of it"))
    if keys <= by_key.keys():
        run.journal.close_batch(batch.token)


async def _file(run: Run, ask: Ask, result: Reply | Refused | Transient) -> None:
    if not wanted(ask, run.journal, retry_failed=True):
        return  # collected before, when other requests of the batch were not asked for
    if isinstance(result, Reply):
        price = run.purse.price
        run.purse.spent += price.usd(result.input_tokens, result.output_tokens, batch=True) if price else 0.0
        await run.journal.record(ask, result, batch=True)
        run.tally.answered += 1
    elif isinstance(result, Refused):
        await run.journal.record(ask, None, str(result), batch=True)
        run.tally.failed += 1
    else:
        run.tally.unanswered += 1
    if not isinstance(result, Reply):
        run.tally.last_reason = str(result)
    run.advance()


async def _patiently(run: Run, provider: Provider, call: Any, about: str) -> Any:
    """A question about a batch, asked again while the network or the provider stumbles."""
    for attempt in itertools.count():
        try:
            return await provider.client.guard(call, about)
        except Transient as error:
            wait = error.wait if error.wait is not None else backoff(attempt, run.rng)
            if attempt + 1 >= run.limits.attempts or not await pause(wait, run.stop):
                raise TeacherError(f"{error}; the batches go on without us: run the same command later") from None
    raise AssertionError("unreachable")
