"""Where torch computes, and with how many threads: set explicitly by every stage, since both can change the bits."""

import torch

from stillroom.errors import UsageError


def use(device: str, threads: int) -> torch.device:
    """Set torch's threads and return the device: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto` for the best there is."""
    torch.set_num_threads(threads)
    if device == "auto":
        return torch.accelerator.current_accelerator() or torch.device("cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {device!r} cannot be used here ({reason}); try device=cpu or device=auto") from None
    return chosen
