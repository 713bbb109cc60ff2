"""Activations from disk: the same as those on the fly, and those of another model, layer or text refused."""

import copy
from pathlib import Path

import pytest
import torch

from stillroom.crosscoder.data import Live, Tokens
from stillroom.crosscoder.harvested import INDEX, Harvested, fingerprint, harvested
from stillroom.errors import DataError
from stillroom.files import read_json, write_json
from toys import student

IDS = [[2, 3, 4, 8, 9], [5, 6], [7, 8, 9, 10, 11, 12], [3, 4, 5]]


def live(seed: int = 1, layer: int = 1) -> Live:
    return Live({"base": student(seed=0), "taught": student(seed=seed)}, IDS, layer)


def in_order(tokens: Tokens) -> Tokens:
    return tokens.at((tokens.document_N * 100 + tokens.position_N).argsort())


@pytest.fixture
def kept(tmp_path: Path) -> Harvested:
    return harvested(live(), tmp_path / "kept", rows=3)  # documents lie across shards


def test_what_is_read_from_disk_is_what_the_models_gave(kept: Harvested) -> None:
    assert (kept.models, kept.layer, kept.lengths) == (("base", "taught"), 1, [5, 2, 6, 3])
    for documents in ([0, 1, 2, 3], [2], [3, 0]):
        here, there = in_order(kept.read(documents)), in_order(live().read(documents))
        torch.testing.assert_close(here.x_NMD, there.x_NMD, rtol=0, atol=1e-5)
        for told in ("document_N", "position_N", "token_N"):
            assert torch.equal(getattr(here, told), getattr(there, told))


def test_a_folder_is_made_once_and_one_that_was_cut_off_is_made_again(kept: Harvested) -> None:
    shard = next(kept.folder.rglob("*.safetensors"))
    before = shard.stat().st_mtime_ns
    harvested(live(), kept.folder, rows=3)
    assert shard.stat().st_mtime_ns == before
    (kept.folder / INDEX).unlink()
    again = harvested(live(), kept.folder, rows=3)
    assert torch.equal(again.read([1]).x_NMD, kept.read([1]).x_NMD)


def test_activations_of_another_model_are_refused_by_both_names(kept: Harvested) -> None:
    mine, other = (fingerprint(student(seed=seed).model) for seed in (1, 2))
    with pytest.raises(DataError, match=rf"holds activations of .*taught \({mine}\).* asked .*taught \({other}\)"):
        harvested(live(seed=2), kept.folder, rows=3)
    with pytest.raises(DataError, match=r"its layer .* is 1, and 2 was asked for"):
        harvested(live(layer=2), kept.folder, rows=3)
    longer = Live(live().students, [*IDS, [2, 3]], 1)
    with pytest.raises(DataError, match="its documents of activations"):
        harvested(longer, kept.folder, rows=3)


def test_a_fingerprint_is_of_the_weights_and_nothing_else() -> None:
    model = student(seed=1).model
    assert fingerprint(copy.deepcopy(model)) == fingerprint(model)
    with torch.no_grad():
        model.get_input_embeddings().weight[0, 0] += 1e-3
    assert fingerprint(model) != fingerprint(student(seed=1).model)


@pytest.mark.parametrize("harm", ["flipped", "cut off", "missing"])
def test_a_shard_that_is_not_what_was_written_is_refused(harm: str, kept: Harvested) -> None:
    shard = kept.folder / "shards" / "000001.safetensors"
    content = bytearray(shard.read_bytes())
    content[-3] ^= 1
    shard.unlink()
    if harm != "missing":
        shard.write_bytes(content if harm == "flipped" else content[:-40])
    again = harvested(live(), kept.folder, rows=3)
    again.read([3])  # lies in other shards
    with pytest.raises(DataError, match=r"000001\.safetensors: is not what was written"):
        again.read([0])


def test_an_index_without_checksums_is_refused(kept: Harvested) -> None:
    told = read_json(kept.folder / INDEX)
    del told["checksums"]
    write_json(kept.folder / INDEX, told)
    with pytest.raises(DataError, match="no checksums"):
        harvested(live(), kept.folder, rows=3)


@pytest.mark.parametrize("harm", [b"", b'{"models": {', b"\xff", b"[]"])
def test_an_index_that_is_not_what_was_written_is_refused(harm: bytes, kept: Harvested) -> None:
    (kept.folder / INDEX).write_bytes(harm)
    with pytest.raises(DataError, match="its index is not what was written: remove the folder"):
        harvested(live(), kept.folder, rows=3)
    (kept.folder / INDEX).write_text('{"modelz": {}}')
    with pytest.raises(DataError, match="its index has no models, layer"):
        harvested(live(), kept.folder, rows=3)
