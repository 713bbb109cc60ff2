"""A Hugging Face model in this process: greedy or sampled, batched, on whatever device, 4-bit if asked for.

A batch is made of the same requests whether or not some are recorded: a run that was killed computes the same numbers.
"""

import itertools
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stillroom.errors import DataError, TeacherError, UsageError
from stillroom.files import resolved
from stillroom.foreign import opening, refuse_hostile, settings_of
from stillroom.progress import say
from stillroom.teachers.journal import Journal
from stillroom.teachers.requests import Ask, Reply
from stillroom.teachers.running import Tally, wanted

CHUNK = 256
FETCHED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
"""What of a model of the hub is fetched: no pickle and no code."""


def on_the_hub(name: str) -> bool:
    """Whether this names a model of the hub (`owner/name`) and no folder."""
    return not Path(name).exists() and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) is not None


def home(config: Any) -> Path:
    """The folder of a local model; of one of the hub the copy that the hub's client keeps. Raises `TeacherError`."""
    if not on_the_hub(config.folder):
        return resolved(Path(config.folder))
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(config.folder, revision=config.revision, allow_patterns=FETCHED))
    except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        why = " ".join(str(error).split())[:200]
        raise TeacherError(
            f"{config.folder}: there is no such folder here, and the hub does not give it ({why}): look at the name "
            "and the network, or give the folder of a saved model"
        ) from None


def answer_all(config: Any, asks: Iterable[Ask], journal: Journal, device: str, retry_failed: bool = False) -> Tally:
    """Answers what the journal does not hold, and records it batch by batch. `config` is a `LocalConfig`."""
    tally, speaker, requests = Tally(), None, iter(asks)
    while chunk := list(itertools.islice(requests, CHUNK)):
        skip = frozenset(i for i, ask in enumerate(chunk) if not wanted(ask, journal, retry_failed))
        tally.reused += len(skip)
        if len(skip) == len(chunk):
            continue
        speaker = speaker or Speaker(config, device)
        speaker.answer(chunk, skip, journal, tally)
        say(f"  {chunk[0].model}: {tally.reused + tally.answered + tally.failed} done")
    return tally


class Speaker:
    """A model with its tokenizer. Heavy libraries are imported here, so that the other teachers start at once."""

    def __init__(self, config: Any, device: str) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from stillroom.devices import use
        from stillroom.quantised import four_bits, keep_packing

        folder = str(home(config))
        chosen = use(device, os.cpu_count() or 1)
        options: dict[str, Any] = {"device_map": config.device_map} if config.device_map else {}
        try:
            if config.four_bit:
                options = {"quantization_config": four_bits(chosen), "device_map": config.device_map or {"": chosen}}
            refuse_hostile(Path(folder), settings_of(Path(folder) / "config.json"))
            with opening(folder, "the model"):
                self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
                model: Any = AutoModelForCausalLM.from_pretrained(
                    folder, use_safetensors=True, trust_remote_code=False, **options
                )
            if config.four_bit:
                keep_packing(model)
        except UsageError as error:
            raise TeacherError(f"{folder}: four_bit: {error}") from None
        except DataError as error:
            why = " ".join(str(error).split())[:200]
            raise TeacherError(
                f"{folder}: no model that can be loaded ({why}): give a folder that save_pretrained wrote whole"
            ) from None
        self.model = model.eval()
        if not options:
            self.model.to(chosen)
        self.batch_size = config.batch_size
        self.room = getattr(self.model.config, "max_position_embeddings", None)

    def prompt(self, ask: Ask) -> list[int]:
        chat = [dict(message) for message in ask.messages]
        if self.tokenizer.chat_template:
            text = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return list(self.tokenizer("\n\n".join(message["content"] for message in chat) + "\n")["input_ids"])

    def answer(self, chunk: list[Ask], skip: frozenset[int], journal: Journal, tally: Tally) -> None:
        from stillroom.decoding import Sampling, decode_all

        first = chunk[0]
        prompts = [self.prompt(ask) for ask in chunk]
        fits = [i for i, p in enumerate(prompts) if self.room is None or len(p) + first.max_new_tokens <= self.room]
        self._refuse([chunk[i] for i in range(len(chunk)) if i not in fits and i not in skip], journal, tally)
        end = self.tokenizer.eos_token_id
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else end
        sampling = Sampling(first.temperature, int(first.key()[:8], 16)) if first.temperature else None
        done = frozenset(place for place, i in enumerate(fits) if i in skip)
        batches = decode_all(
            self.model, [prompts[i] for i in fits], first.max_new_tokens, pad, [end], self.batch_size, done, sampling
        )
        for batch in batches if fits else ():
            fresh = [(fits[place], completion) for place, completion in batch.items() if place not in done]
            journal.write((chunk[i], self._reply(prompts[i], completion), "") for i, completion in fresh)
            tally.answered += len(fresh)

    def _reply(self, prompt: list[int], completion: Any) -> Reply:
        text = str(self.tokenizer.decode(completion.ids, skip_special_tokens=True))
        return Reply(text, "stop" if completion.stopped else "length", len(prompt), len(completion.ids))

    def _refuse(self, asks: list[Ask], journal: Journal, tally: Tally) -> None:
        reason = f"the question and {asks[0].max_new_tokens} new tokens do not fit into {self.room}" if asks else ""
        journal.write((ask, None, reason) for ask in asks)
        tally.failed += len(asks)
        tally.last_reason = reason or tally.last_reason
