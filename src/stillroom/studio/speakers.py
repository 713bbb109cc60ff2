"""Students that are open, shared by all who talk with them."""

import threading
from collections import OrderedDict
from pathlib import Path

from stillroom.conversation import Speaker, open_speaker

ROOM = 8
"""So many are kept open; those that nobody talked with the longest are let go."""


class Speakers:
    def __init__(self, root: Path, device: str = "cpu") -> None:
        self.root, self.device = root, device
        self._open: OrderedDict[Path, Speaker] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, folder: Path) -> Speaker:
        """Raises `DataError` for a folder that is no model's."""
        with self._lock:
            if folder not in self._open:
                self._open[folder] = open_speaker(str(folder), self.root, device=self.device)
            self._open.move_to_end(folder)
            while len(self._open) > ROOM:
                self._open.popitem(last=False)
            return self._open[folder]
