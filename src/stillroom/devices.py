"""Where torch computes, and with how many threads: set explicitly by every stage, since both can change the bits."""

import contextlib
import ctypes
import gc
import os

import torch

from stillroom.errors import UsageError


def use(device: str, threads: int) -> torch.device:
    """Set torch's threads and return the device: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto` for the best there is.

    Of many processes on one machine each takes the accelerator of its own number.
    """
    torch.set_num_threads(threads)
    chosen = torch.accelerator.current_accelerator() or torch.device("cpu") if device == "auto" else None
    try:
        chosen = chosen or torch.device(device)
        if chosen.type != "cpu" and chosen.index is None and "LOCAL_RANK" in os.environ:
            chosen = torch.device(chosen.type, int(os.environ["LOCAL_RANK"]))
            torch.accelerator.set_device_index(chosen)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {device!r} cannot be used here ({reason}); try device=cpu or device=auto") from None
    return chosen


def give_back() -> None:
    """Give memory that nothing uses back to the system, where several processes share it.

    After tensors of many shapes came and went, glibc's heap keeps pages that are free between some that are not.
    """
    gc.collect()
    torch.cuda.empty_cache()  # nothing where CUDA was not used
    with contextlib.suppress(AttributeError, OSError, TypeError):  # of another C library: it has no such call
        ctypes.CDLL(None).malloc_trim(0)
