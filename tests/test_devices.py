"""Threads are set as asked; a device that cannot be used is named with what to do."""

import ctypes

import psutil
import pytest
import torch

from stillroom.devices import give_back, use
from stillroom.errors import UsageError


def test_threads_and_device_are_set_as_asked() -> None:
    before = torch.get_num_threads()
    try:
        assert use("cpu", 1) == torch.device("cpu")
        assert torch.get_num_threads() == 1
        assert use("auto", 2).type == (torch.accelerator.current_accelerator() or torch.device("cpu")).type
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["gpu", "cuda:99", ""])
def test_a_device_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(UsageError, match=rf"device '{name}' cannot be used here .*try device=cpu"):
        use(name, 2)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc alone keeps memory in this way")
def test_pages_that_are_free_between_some_that_are_not_go_back_to_the_system() -> None:
    held = psutil.Process().memory_info
    many = [torch.ones(25_000) for _ in range(2_000)]  # 100 kB each, 200 MB in all, below what malloc maps by itself
    kept = many[::100]
    del many
    before = held().rss
    give_back()
    assert before - held().rss > 150e6
    assert all(bool(one.all()) for one in kept)
