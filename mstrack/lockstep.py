"""Whole sequences, several in lock step: where one ends the next one takes its place, and frames are read ahead by threads."""

import itertools
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as List
from concurrent.futures import ThreadPoolExecutor

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
    one takes its place. The next frames are read while the network works on these. `clock` is added to. The other arguments are
    those of `TrackerBatch`.

    Raises:
        UserError: A frame cannot be read, or a first box cannot be used (with the sequence's name).
    """
    tracker = TrackerBatch(model, precision=precision, missing=missing, backend=backend)
    tracker.clock = clock or tracker.clock
    waiting = iter(sorted(sequences, key=len)[::-1] if isinstance(sequences, List) else sequences)
    with ThreadPoolExecutor(READERS) as readers:
        runs = {place: _Run(sequence, readers) for place, sequence in enumerate(itertools.islice(waiting, batch))}
        tracker.make_room(len(runs))
        while runs:
            _advance(tracker, runs)
            for place, run in list(runs.items()):
                if run.step < len(run.sequence):
                    continue
                yield run.sequence, run.track._replace(lacking=tuple(tracker.lacking[place]))
                after = next(waiting, None)
                if after is not None:
                    runs[place] = _Run(after, readers)
                else:
                    del runs[place]


class _Run:
    """A sequence under way: `step` frames of it are done, and the next one is being read."""

    def __init__(self, sequence: Sequence, readers: ThreadPoolExecutor) -> None:
        self.sequence, self.step, self._readers = sequence, 0, readers
        self.track = Track(np.empty((len(sequence), 4)), np.ones(len(sequence)))
        self._coming = readers.submit(sequence.frame, 0)

    def take(self) -> Frame:
        """The next frame."""
        frame = self._coming.result()
        self.step += 1
        if self.step < len(self.sequence):
            self._coming = self._readers.submit(self.sequence.frame, self.step)
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
