"""Whole sequences followed by any tracker, on worker processes and torchrun's: one result file each, resumable."""

import atexit
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from collections.abc import Sequence as List
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from mstrack.backends import Backend, open_backend
from mstrack.data import Sequence
from mstrack.distributed import choose_device, torchrun_rank
from mstrack.errors import DataWarning, UserError
from mstrack.models import create_model
from mstrack.models.network import Network
from mstrack.provenance import identify
from mstrack.results import Track, write_track
from mstrack.tracker import Clock, follow

Progress = Callable[[int, int, str], None]
Tracks = Iterator[tuple[Sequence, Track]]
POLL = 0.5
"""Seconds between two looks for the results of other processes."""


class Follower(Protocol):
    """Something that follows targets through sequences: a network of ours, or somebody's tracker (`mstrack.foreign`).

    It is pickled for each worker process, before it is opened.
    """

    @property
    def batch(self) -> int:
        """Sequences that it takes at a time."""

    def identify(self) -> dict[str, Any]:
        """What it is, in JSON's types: results of two that differ here never mix in one folder."""

    def open(self) -> None:
        """Load what takes time to load; nothing where that is done."""

    def follow(self, sequences: List[Sequence], missing: str, clock: Clock) -> Tracks:
        """Track sequences from their first box, and yield each when it ends.

        Args:
            sequences: As many as it likes at a time.
            missing: The policy for frames without their second modality, see `sequence.fill`.
            clock: Is added to by networks of ours.
        """

    def close(self) -> None:
        """Let go of what `open` took."""


class NetworkFollower:
    """A network of `mstrack.models`.

    Args:
        network: The network.
        batch: Sequences tracked in lock step.
        device: `cpu`, `cuda`, or `auto`.
        backend: How it is run, see `mstrack.backends`; `auto` chooses.
        precision: `fp32` or `bf16`.
    """

    def __init__(
        self, network: Network, batch: int = 32, device: str = "auto", backend: str = "auto", precision: str = "fp32"
    ) -> None:
        self.network, self.batch, self.device, self.backend, self.precision = network, batch, device, backend, precision
        self._runner: Backend | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        state = {key: value.cpu() for key, value in self.network.state_dict().items()}
        settings = (self.batch, self.device, self.backend, self.precision)
        return _build, (self.network.name, self.network.arguments, state, settings)

    def identify(self) -> dict[str, Any]:
        """Name, arguments, a hash of all weights, and the precision; every backend gives the same boxes."""
        return {**identify(self.network), "precision": self.precision}

    def open(self) -> None:
        """Make the network ready to run on its device."""
        if self._runner is None:
            self._runner = open_backend(self.network, self.backend, choose_device(self.device), self.precision)

    def follow(self, sequences: List[Sequence], missing: str, clock: Clock) -> Tracks:
        """See `tracker.follow`."""
        return follow(self._runner or self.network, sequences, batch=self.batch, missing=missing, clock=clock)

    def close(self) -> None:
        """Let go of what runs it."""
        self._runner = None


def _build(
    name: str, arguments: dict[str, Any], state: dict[str, torch.Tensor], settings: tuple[int, str, str, str]
) -> NetworkFollower:
    network: Network = create_model(name, **arguments)
    network.load_state_dict(state)
    return NetworkFollower(network, *settings)


class Speed(NamedTuple):
    """Frames per second, all workers together."""

    file_to_box: float
    """With reading, cropping and writing, without what `Follower.open` does."""
    network: float | None
    """See `tracker.Clock`."""


def track_sequences(
    follower: Follower,
    sequences: list[Sequence],
    folder: Path,
    workers: int = 1,
    progress: Progress | None = None,
    missing: str = "error",
) -> Speed | None:
    """Write a result file for each sequence that has none.

    Under torchrun each process takes its share, and all wait for the others' results.

    Args:
        follower: Who tracks.
        sequences: All of them.
        folder: Of the results. What was finished is there, whatever happens to the rest.
        workers: Processes, each with its share of the cores.
        progress: Called with (sequences done, all, text).
        missing: The policy for frames without their second modality.

    Returns:
        How fast it went; None where there was nothing to do.

    Raises:
        UserError: A frame cannot be read, or what the tracker has to say.
    """
    rank, world = torchrun_rank()
    longest_first = sorted(sequences, key=len, reverse=True)
    share = [s for s in longest_first[rank::world] if not _is_tracked(folder, s)]
    done, clock, seconds = sum(_is_tracked(folder, s) for s in sequences), Clock(), 0.0

    def keep(sequence: Sequence, track: Track) -> None:
        nonlocal done
        write_track(folder, sequence.name, track)
        done += 1
        if progress is not None:
            progress(done, len(sequences), sequence.name)

    if share and workers <= 1:
        seconds = _track_here(follower, share, missing, keep, clock)
    elif share:
        seconds = _track_in_processes(follower, share, workers, missing, keep, clock)
    while world > 1:
        done = sum(_is_tracked(folder, s) for s in sequences)
        if progress is not None:
            progress(done, len(sequences), "waiting for the other processes")
        if done == len(sequences):
            break
        time.sleep(POLL)
    if not share:
        return None
    return Speed(world * sum(len(s) for s in share) / seconds, clock.fps and world * clock.fps)


def _is_tracked(folder: Path, sequence: Sequence) -> bool:
    return (folder / f"{sequence.name}.txt").is_file()


def _track_here(
    follower: Follower, waiting: list[Sequence], missing: str, keep: Callable[[Sequence, Track], None], clock: Clock
) -> float:
    """Track in this process; returns the seconds it took."""
    try:
        follower.open()
        started = time.perf_counter()
        for sequence, track in follower.follow(waiting, missing, clock):
            keep(sequence, track)
        return time.perf_counter() - started
    finally:
        follower.close()


# ---------------------------------------------------------------- worker processes
class _Followed(NamedTuple):
    """What a worker has done."""

    tracks: list[tuple[Sequence, Track]]
    clock: Clock
    seconds: float


def _track_in_processes(
    follower: Follower,
    waiting: list[Sequence],
    workers: int,
    missing: str,
    keep: Callable[[Sequence, Track], None],
    clock: Clock,
) -> float:
    """Share sequences out to processes that each hold the tracker; returns the seconds that each of them was busy.

    Results are kept as they come back; where one fails, also those of the others that are under way.
    """
    groups = [waiting[i : i + follower.batch] for i in range(0, len(waiting), follower.batch)]
    if len(groups) < workers:
        groups = [group for group in (waiting[i::workers] for i in range(workers)) if group]
    used, busy = min(workers, len(groups)), 0.0
    threads = max(1, torch.get_num_threads() // workers)
    pool = ProcessPoolExecutor(used, multiprocessing.get_context("spawn"), _start_worker, (follower, threads))
    waits: set[Future[_Followed]] = {pool.submit(_follow_group, group, missing) for group in groups}

    def take(future: Future[_Followed]) -> None:
        nonlocal busy
        waits.discard(future)
        followed = future.result()
        clock.frames += followed.clock.frames
        clock.seconds += followed.clock.seconds / used  # they run at the same time
        busy += followed.seconds / used
        for sequence, track in followed.tracks:
            keep(sequence, track)

    try:
        for future in as_completed(list(waits)):
            take(future)
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process has died without a word: killed, or out of memory? What was finished is kept; the same command"
            " goes on from there, with fewer --workers if memory was short."
        ) from error
    except KeyboardInterrupt:
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        for future in list(waits):
            if not future.cancelled() and future.exception() is None:
                take(future)
    return busy


_worker: dict[str, Follower] = {}


def _start_worker(follower: Follower, threads: int) -> None:
    torch.set_num_threads(threads)
    usual = warnings.formatwarning
    warnings.formatwarning = lambda text, kind, *where: (
        f"warning: {text}\n" if issubclass(kind, DataWarning) else usual(text, kind, *where)
    )
    _worker["follower"] = follower
    atexit.register(follower.close)
    signal.signal(signal.SIGTERM, lambda *_: _end_worker())
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_worker() -> None:
    _worker["follower"].close()
    os._exit(1)


def _end_with_parent() -> None:
    """Workers wait for work for ever, even when nobody is left to give them any."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        _end_worker()


def _follow_group(group: list[Sequence], missing: str) -> _Followed:
    follower, clock = _worker["follower"], Clock()
    follower.open()
    started = time.perf_counter()
    tracks = list(follower.follow(group, missing, clock))
    return _Followed(tracks, clock, time.perf_counter() - started)
