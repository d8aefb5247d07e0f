"""Jobs over processes or GPUs: whatever is finished stays, whatever is interrupted goes on at the next call."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as List
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.synchronize import Event
from types import TracebackType
from typing import Any, TypeVar

from mstrack.claims import Claims
from mstrack.errors import UserError
from mstrack.machine import usable_cores
from mstrack.reproduce.doing import Progress, StoppedError, run_job
from mstrack.reproduce.jobs import Job

Task = TypeVar("Task")

MOST = 8
"""Processes at once on a CPU, where nobody says how many."""

GRACE = 5.0
"""Seconds that interrupted jobs get to save where they stand, before their processes are ended."""

POLL = 1.0
"""Seconds between two looks at a job that another command is at work on."""

_stop: list[Event] = []


class Crew:
    """Processes that work side by side, for as long as the `with` block lasts; one alone is this process itself.

    Where the block is left by Ctrl-C, the processes are told to stop, and made to if they do not. Each has its share of the
    cores.

    Args:
        processes: How many.
        devices: One for each, in turn (`cuda:0`, `cuda:1`); a process that is free takes a device that is free.
    """

    def __init__(self, processes: int = 1, devices: List[str] = ("auto",)) -> None:
        self.processes, self.devices = processes, tuple(devices)
        self._pool: ProcessPoolExecutor | None = None
        self._told: Event | None = None

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._pool is None or self._told is None:
            return
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._told.set()
            self._pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.join(GRACE / self.processes)
            for process in multiprocessing.active_children():
                process.terminate()
        self._pool.shutdown(cancel_futures=True)

    @property
    def text(self) -> str:
        """For people."""
        where = "this machine's CPU" if set(self.devices) <= {"cpu", "auto"} else ", ".join(self.devices)
        return f"{self.processes} at a time on {where}"

    def spread(self, work: Callable[[Task, str], Any], tasks: List[Task]) -> Iterator[Any]:
        """Call `work(task, device)` for every task, and yield what it returns as it comes.

        Args:
            work: A function of a module.
            tasks: What it is called with.

        Raises:
            UserError: A process died.
            Exception: What the first call that failed raised; others that are running are let finish.
        """
        try:
            yield from self._spread(work, tasks)
        except BrokenProcessPool as error:
            raise UserError(
                "a process died without a word: was it killed, or was memory short? What was finished is kept; the same command"
                " goes on, with fewer --jobs if memory was short."
            ) from error

    def _spread(self, work: Callable[[Task, str], Any], tasks: List[Task]) -> Iterator[Any]:
        if self.processes == 1:
            yield from (work(task, self.devices[0]) for task in tasks)
            return
        free = [self.devices[i % len(self.devices)] for i in range(self.processes)]
        left, running = list(tasks), dict[Future[Any], str]()
        while left or running:
            while left and free:
                device = free.pop(0)
                with _without_ctrl_c():  # a process that starts here inherits that
                    running[self._open().submit(work, left.pop(0), device)] = device
            over, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in over:
                free.append(running.pop(future))
                yield future.result()

    def _open(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._told = context.Event()
            start = (max(1, usable_cores() // self.processes), self._told)
            self._pool = ProcessPoolExecutor(self.processes, context, _start, start)
        return self._pool


def choose_crew(processes: int | None, devices: str | None) -> Crew:
    """Every GPU a row, or on the CPU a row for each core, unless it is said otherwise.

    Args:
        processes: How many rows at once.
        devices: Names with commas between.

    Raises:
        UserError: No name among them.
    """
    import torch

    if devices:
        named = tuple(name.strip() for name in devices.split(",") if name.strip())
        if not named:
            raise UserError(f"--devices '{devices}' names none: expected cpu, or GPUs with commas between: cuda:0,cuda:1.")
    elif torch.cuda.is_available():
        named = tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))
    else:
        named = ("cpu",)
    alone = min(MOST, usable_cores()) if named == ("cpu",) else len(named)
    return Crew(processes or alone, named)


def run_jobs(jobs: List[Job], crew: Crew, progress: Progress | None = None) -> None:
    """Run what is not done.

    Args:
        jobs: In order.
        crew: Who does them.
        progress: Called with jobs done, all, and the name of the last one.

    Raises:
        KeyboardInterrupt: The user asked to stop; the next call goes on.
        Exception: As `Crew.spread`.
    """
    waiting = [job for job in jobs if not job.done]
    report = progress or (lambda done, total, text: None)
    before = len(jobs) - len(waiting)
    report(before, len(jobs), "")
    for done, name in enumerate(crew.spread(_run, waiting), start=before + 1):
        report(done, len(jobs), name)


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Keep Ctrl-C waiting, where the system can."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if hasattr(signal, "pthread_sigmask") else None
    try:
        yield
    finally:
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(threads: int, told: Event) -> None:
    """A process of a crew leaves Ctrl-C to the one that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _stop[:] = [told]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)


def _end_with_parent() -> None:
    """Where nobody is left to take what comes of a job, it is stopped and its process ends."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        _stop[0].set()
        time.sleep(GRACE)
        os._exit(1)


def _run(job: Job, device: str) -> str:
    def told() -> bool:
        return bool(_stop) and _stop[0].is_set()

    with suppress(StoppedError), Claims(job.folder) as claims:  # who asked it to stop does not listen any more
        while not (job.done or told() or claims.take("run")):
            time.sleep(POLL)  # another command is at work on it: studies share rows
        if not (job.done or told()):
            run_job(job, device=device, interrupted=told)
    return job.name
