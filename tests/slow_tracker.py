"""A tracker for tests of shared work, `slow_tracker:Slow`: it waits for its fellows, writes down what it begins, and dies."""

import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np


class Slow:
    """Answers the first box for ever.

    Where the environment has SLOW_DIES, its process is killed in the middle of the second sequence.

    Args:
        log: A file that gets the number of the process at the start of each sequence.
        fellows: Processes that must all have begun their first two sequences before anybody goes on with his second.
    """

    def __init__(self, log: str, fellows: int) -> None:
        self.log, self.fellows, self.begun, self.frames = Path(log), fellows, 0, 0

    def init(self, frame: Any, box: np.ndarray) -> None:
        with self.log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        self.box, self.frames = box, 0
        self.begun += 1
        deadline = time.monotonic() + 120
        while not self._all_have_begun(min(self.begun, 2)) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _all_have_begun(self, count: int) -> bool:
        return sum(begun >= count for begun in Counter(self.log.read_text().split()).values()) >= self.fellows

    def update(self, frame: Any) -> np.ndarray:
        time.sleep(0.01)
        self.frames += 1
        if self.begun == 2 and self.frames == 5 and os.environ.get("SLOW_DIES"):
            os.kill(os.getpid(), signal.SIGKILL)
        return self.box
