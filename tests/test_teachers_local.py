"""A model in this process: recorded batch by batch, the same whether or not it was stopped."""

import json
from pathlib import Path

from stillroom.teachers.asking import Desk, LocalConfig
from stillroom.teachers.journal import Journal
from stillroom.teachers.teaching import Questions, ask_and_write
from toys import llama, tokenizer


def test_a_local_model_answers_and_is_not_asked_twice(tmp_path: Path) -> None:
    words = tokenizer()
    model = llama(len(words))
    model.config.max_position_embeddings = 2048  # the prompt with its worked example is long
    model.save_pretrained(tmp_path / "model")
    words.save_pretrained(tmp_path / "model")
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps({"question": f"Ann has {i} eggs and gets 1 ."}) + "\n" for i in range(9)))
    config = LocalConfig(folder=str(tmp_path / "model"), max_new_tokens=4, batch_size=2)
    desk = Desk(tmp_path / "journal.sqlite")
    assert ask_and_write(config, Questions(path), desk, tmp_path / "cot.jsonl")[:2] == (9, 0)
    whole = (tmp_path / "cot.jsonl").read_bytes()
    with Journal(desk.journal) as journal:
        journal._writer.execute("DELETE FROM requests WHERE key > '8'")
        kept = sum(row["requests"] for row in journal.summary())
    assert kept < 9
    ask_and_write(config, Questions(path), desk, tmp_path / "cot.jsonl")
    assert (tmp_path / "cot.jsonl").read_bytes() == whole
    sampled = config.model_copy(update={"samples": 2})
    assert ask_and_write(sampled, Questions(path), desk, tmp_path / "two.jsonl")[:2] == (18, 0)
