"""Threads are set as asked; a device that cannot be used is named with what to do."""

import pytest
import torch

from stillroom.devices import use
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
