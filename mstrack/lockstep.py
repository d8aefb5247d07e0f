"""Whole sequences, several in lock step: where one ends the next one takes its place, and frames are read ahead by threads."""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as List
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mstrack.backends import Backend
from mstrack.data.sequence import Frame, Sequence
from mstrack.machine import usable_cores
from mstrack.results import Track
from mstrack.tracker import Clock, TrackerBatch

READERS = max(4, usable_cores())
"""Threads that read frames while the network works."""
AHEAD = 4
"""Frames of a sequence that are read at the same time, where there are readers for so many."""


def follow(
    model: nn.Module | Backend,
    sequences: Iterable[Sequence],
    batch: int = 32,
    precision: str = "fp32",
    missing: str = "error",
    clock: Clock | None = None,
    backend: str = "eager",
) -> Iterator[tuple[Sequence, Track]]:
    """Track whole sequences from their first box, `batch` of them in lock step, and yield each when it ends.

    Of a list the longest come first; of anything else they are taken as they come, when there is room. Where one ends, the next
    one takes its place. The next frames are read while the network works on these, with few sequences several of each: a fast
    network needs less time for a frame than it takes to decode one. `clock` is added to. The other arguments are
    those of `TrackerBatch`.

    Raises:
        UserError: A frame cannot be read, or a first box cannot be used (with the sequence's name).
    """
    tracker = TrackerBatch(model, precision=precision, missing=missing, backend=backend)
    tracker.clock = clock or tracker.clock
    ahead = max(1, min(AHEAD, READERS // batch))
    waiting = iter(sorted(sequences, key=len)[::-1] if isinstance(sequences, List) else sequences)
    with ThreadPoolExecutor(READERS) as readers:
        runs = {place: _Run(sequence, readers, ahead) for place, sequence in enumerate(itertools.islice(waiting, batch))}
        tracker.make_room(len(runs))
        while runs:
            _advance(tracker, runs)
            for place, run in list(runs.items()):
                if run.step < len(run.sequence):
                    continue
                yield run.sequence, run.track._replace(lacking=tuple(tracker.lacking[place]))
                after = next(waiting, None)
                if after is not None:
                    runs[place] = _Run(after, readers, ahead)
                else:
                    del runs[place]


class _Run:
    """A sequence under way: `step` frames of it are done, and the next `ahead` are being read; of a video, one at a time."""

    def __init__(self, sequence: Sequence, readers: ThreadPoolExecutor, ahead: int) -> None:
        self.sequence, self.step, self._readers = sequence, 0, readers
        self.track = Track(np.empty((len(sequence), 4)), np.ones(len(sequence)))
        self._coming: deque[Future[Frame]] = deque()
        self._asked = 0
        for _ in range(ahead if isinstance(sequence.rgb[0], Path) else 1):
            self._ask()

    def _ask(self) -> None:
        if self._asked < len(self.sequence):
            self._coming.append(self._readers.submit(self.sequence.frame, self._asked))
            self._asked += 1

    def take(self) -> Frame:
        """The next frame."""
        frame = self._coming.popleft().result()
        self.step += 1
        self._ask()
        return frame

    def keep(self, box: NDArray[np.float64], score: float) -> None:
        """What was found in it."""
        self.track.boxes[self.step - 1], self.track.confidence[self.step - 1] = box, score


def _advance(tracker: TrackerBatch, runs: dict[int, _Run]) -> None:
    """Take every run one frame further, by its place in the tracker."""
    new = [place for place, run in runs.items() if run.step == 0]
    going = [place for place in runs if place not in new]
    frames = {place: run.take() for place, run in runs.items()}
    if going:
        found = tracker.update([frames[place] for place in going], going)
        for place, box, score in zip(going, *found, strict=True):
            runs[place].keep(box, score)
    if new:
        starts = [runs[place].sequence.boxes[0] for place in new]
        names = [f"sequence '{runs[place].sequence.name}'" for place in new]
        tracker.init([frames[place] for place in new], starts, names, new)
        for place, box in zip(new, starts, strict=True):
            runs[place].keep(box, 1.0)
