"""Whole sequences followed by any tracker, on any number of processes that share a folder: one result file each, resumable."""

import atexit
import io
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from mstrack.backends import Backend, open_backend
from mstrack.claims import Claims
from mstrack.data import Sequence
from mstrack.distributed import choose_device, torchrun_rank
from mstrack.errors import DataWarning, UserError
from mstrack.lockstep import follow
from mstrack.models import create_model
from mstrack.models.network import Network
from mstrack.provenance import identify
from mstrack.results import Track, write_track
from mstrack.tracker import Clock

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

    def follow(self, sequences: Iterable[Sequence], missing: str, clock: Clock) -> Tracks:
        """Track sequences from their first box, and yield each when it ends.

        Args:
            sequences: As many as it likes at a time, and none before it starts on it: others take those that are left.
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
        state = io.BytesIO()  # tensors would travel through /dev/shm, which containers keep small
        torch.save({key: value.cpu() for key, value in self.network.state_dict().items()}, state)
        settings = (self.batch, self.device, self.backend, self.precision)
        return _build, (self.network.name, self.network.arguments, state.getvalue(), settings)

    def identify(self) -> dict[str, Any]:
        """Name, arguments, a hash of all weights, and the precision; every backend gives the same boxes."""
        return {**identify(self.network), "precision": self.precision}

    def open(self) -> None:
        """Make the network ready to run on its device."""
        if self._runner is None:
            self._runner = open_backend(self.network, self.backend, choose_device(self.device), self.precision)

    def follow(self, sequences: Iterable[Sequence], missing: str, clock: Clock) -> Tracks:
        """See `lockstep.follow`; where processes begin on the same sequences, none takes more at once than its share."""
        batch = min(self.batch, sequences.share) if isinstance(sequences, Waiting) else self.batch
        return follow(self._runner or self.network, sequences, batch=batch, missing=missing, clock=clock)

    def close(self) -> None:
        """Let go of what runs it."""
        self._runner = None


def _build(name: str, arguments: dict[str, Any], state: bytes, settings: tuple[int, str, str, str]) -> NetworkFollower:
    network: Network = create_model(name, **arguments)
    network.load_state_dict(torch.load(io.BytesIO(state), weights_only=True))
    return NetworkFollower(network, *settings)


class Speed(NamedTuple):
    """Frames per second, all workers together."""

    file_to_box: float
    """With reading, cropping and writing, without what `Follower.open` does."""
    network: float | None
    """See `tracker.Clock`."""


class Waiting:
    """Those of some sequences that nobody has tracked or is at work on; each is claimed when it is asked for.

    Args:
        sequences: The sequences, the longest first.
        folder: Of the results.
        claims: Of this process, in that folder.
        share: How many one process should begin with where several begin together.
        stopped: When true, nothing more is given out.
    """

    def __init__(
        self,
        sequences: list[Sequence],
        folder: Path,
        claims: Claims,
        share: int,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.share = share
        self._sequences, self._folder, self._claims, self._stopped = sequences, folder, claims, stopped

    def __iter__(self) -> Iterator[Sequence]:
        for sequence in self._sequences:
            if self._stopped():
                return
            if _is_tracked(self._folder, sequence) or not self._claims.take(sequence.name):
                continue
            if _is_tracked(self._folder, sequence):  # finished between the two looks
                self._claims.release(sequence.name)
            else:
                yield sequence


class _Job(NamedTuple):
    """What is to be tracked, and where the results go; for all processes alike."""

    sequences: list[Sequence]
    folder: Path
    missing: str
    share: int


class _Followed(NamedTuple):
    """What a process has done."""

    frames: int
    clock: Clock
    seconds: float


def track_sequences(
    follower: Follower,
    sequences: list[Sequence],
    folder: Path,
    workers: int = 1,
    progress: Progress | None = None,
    missing: str = "error",
) -> Speed | None:
    """Write a result file for each sequence that has none, together with all other processes that are at work on this folder.

    Others are those of torchrun, or the same command started several times, on any machines that see the folder: each takes
    the longest sequence that nobody has taken, what a dead one had taken is taken again, and all wait for the last result.

    Args:
        follower: Who tracks.
        sequences: All of them.
        folder: Of the results. What was finished is there, whatever happens to the rest.
        workers: Processes, each with its share of the cores.
        progress: Called with (frames done, all, text); of worker processes and others those of finished sequences.
        missing: The policy for frames without their second modality.

    Returns:
        How fast it went; None where there was nothing to do.

    Raises:
        UserError: A frame cannot be read, or what the tracker has to say.
    """
    _, world = torchrun_rank()
    longest_first = sorted(sequences, key=len, reverse=True)
    frames, clock, seconds = 0, Clock(), 0.0
    total = sum(map(len, sequences))

    def report(text: str, under_way: int = 0) -> list[Sequence]:
        """Say how far it is; those that have no result, of which so many frames are done."""
        left = [sequence for sequence in longest_first if not _is_tracked(folder, sequence)]
        if progress is not None:
            progress(min(total, total - sum(map(len, left)) + under_way), total, text)
        return left

    with Claims(folder) as claims:
        while left := report(""):
            free = [sequence for sequence in left if claims.is_free(sequence.name)]
            if not free:
                report("waiting for the other processes")
                time.sleep(POLL)
                continue
            used = max(1, min(workers, len(free)))
            job = _Job(free, folder, missing, -(-len(free) // (world * used)))
            if workers <= 1:
                done = _follow_job(follower, job, claims, report)
            else:
                done = _follow_in_processes(follower, job, used, report)
            frames += done.frames
            clock.frames += done.clock.frames
            clock.seconds += done.clock.seconds
            seconds += done.seconds
    return Speed(world * frames / seconds, clock.fps and world * clock.fps) if frames else None


def _is_tracked(folder: Path, sequence: Sequence) -> bool:
    return (folder / f"{sequence.name}.txt").is_file()


def _follow_job(
    follower: Follower,
    job: _Job,
    claims: Claims,
    report: Callable[[str, int], Any] = lambda text, under_way: None,
    stopped: Callable[[], bool] = lambda: False,
) -> _Followed:
    """Track in this process what nobody else takes."""
    frames = updates = 0
    said = time.monotonic()

    def tick() -> None:
        nonlocal said
        if time.monotonic() - said > POLL:
            report("", clock.frames - updates)
            said = time.monotonic()

    clock = Clock(ticked=tick)
    waiting = Waiting(job.sequences, job.folder, claims, job.share, stopped)
    try:
        follower.open()
        started = time.perf_counter()
        for sequence, track in follower.follow(waiting, job.missing, clock):
            write_track(job.folder, sequence.name, track)
            claims.release(sequence.name)
            frames += len(sequence)
            updates += len(sequence) - 1
            report(sequence.name, max(0, clock.frames - updates))
        return _Followed(frames, Clock(clock.frames, clock.seconds), time.perf_counter() - started)
    finally:
        follower.close()


# ---------------------------------------------------------------- worker processes
def _follow_in_processes(follower: Follower, job: _Job, used: int, report: Callable[[str], Any]) -> _Followed:
    """Track in processes that each hold the tracker and take what is left; where one fails, the others end what they began."""
    context = multiprocessing.get_context("spawn")
    threads, stop = max(1, torch.get_num_threads() // used), context.Event()
    pool = ProcessPoolExecutor(used, context, _start_worker, (follower, threads, stop))
    running: set[Future[_Followed]] = {pool.submit(_work, job) for _ in range(used)}
    finished: list[Future[_Followed]] = []
    try:
        while running:
            ended, running = wait(running, timeout=POLL, return_when=FIRST_COMPLETED)
            finished += ended
            report("")
            if any(future.exception() is not None for future in ended):
                stop.set()
        done = [future.result() for future in finished]
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
    clock = Clock()
    clock.frames = sum(part.clock.frames for part in done)
    clock.seconds = sum(part.clock.seconds for part in done) / used  # they run at the same time
    return _Followed(sum(part.frames for part in done), clock, sum(part.seconds for part in done) / used)


_worker: dict[str, Any] = {}


def _start_worker(follower: Follower, threads: int, stop: Event) -> None:
    torch.set_num_threads(threads)
    usual = warnings.formatwarning
    warnings.formatwarning = lambda text, kind, *where: (
        f"warning: {text}\n" if issubclass(kind, DataWarning) else usual(text, kind, *where)
    )
    _worker.update(follower=follower, stop=stop)
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


def _work(job: _Job) -> _Followed:
    with Claims(job.folder) as claims:
        return _follow_job(_worker["follower"], job, claims, stopped=_worker["stop"].is_set)
