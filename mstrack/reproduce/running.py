"""Jobs over processes or GPUs: whatever is finished stays, whatever is interrupted goes on at the next call."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from collections.abc import Sequence as List
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager, suppress
from multiprocessing.synchronize import Event
from typing import Any, TypeVar

from mstrack.machine import usable_cores
from mstrack.reproduce.jobs import Job, StoppedError, run_job

Progress = Callable[[int, int, str], None]
Task = TypeVar("Task")

GRACE = 5.0
"""Seconds that interrupted jobs get to save where they stand, before their processes are ended."""

_stop: list[Event] = []


def run_jobs(jobs: List[Job], processes: int = 1, devices: List[str] = ("auto",), progress: Progress | None = None) -> None:
    """Run what is not done, `processes` at a time; a single one in this process.

    Args:
        jobs: In order.
        processes: How many at once; each gets its share of the cores.
        devices: One for each process, in turn (`cuda:0`, `cuda:1`).
        progress: Called with jobs done, all, and a text.

    Raises:
        KeyboardInterrupt: The user asked to stop; the next call goes on.
        Exception: What the first job that failed raised; others that were running are let finish.
    """
    waiting = [job for job in jobs if not job.done]
    report = progress or (lambda done, total, text: None)
    before = len(jobs) - len(waiting)
    report(before, len(jobs), "")
    if processes == 1:
        for done, job in enumerate(waiting, start=before):
            report(done, len(jobs), job.name)
            run_job(job, device=devices[0])
            report(done + 1, len(jobs), job.name)
        return
    for done, job in enumerate(spread(_run, waiting, processes, devices), start=before + 1):
        report(done, len(jobs), job.name)


def spread(work: Callable[[Task, str], Any], tasks: List[Task], processes: int, devices: List[str]) -> Iterator[Any]:
    """Call `work(task, device)` in processes, and yield what it returns as it comes.

    Args:
        work: A function of a module.
        tasks: Its arguments.
        processes: How many at once.
        devices: A process that is free takes a device that is free.
    """
    if not tasks:
        return
    free = [devices[i % len(devices)] for i in range(processes)]
    left = list(tasks)
    running: dict[Future[Any], str] = {}
    with _open_pool(min(processes, len(tasks))) as pool:
        while left or running:
            while left and free:
                device = free.pop(0)
                running[pool.submit(work, left.pop(0), device)] = device
            over, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in over:
                free.append(running.pop(future))
                yield future.result()


@contextmanager
def _open_pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that leave Ctrl-C to this one, and are told or made to stop when it comes."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(processes, context, _start, (max(1, usable_cores() // processes), stop))
    try:
        yield pool
    except (KeyboardInterrupt, GeneratorExit):
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
        own = set(multiprocessing.active_children()) - before
        for process in own:
            process.join(GRACE / max(1, len(own)))
        for process in own:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _start(threads: int, stop: Event) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _stop[:] = [stop]
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)


def _run(job: Job, device: str) -> Job:
    with suppress(StoppedError):  # the process that asked for it does not listen any more
        run_job(job, device=device, interrupted=lambda: bool(_stop) and _stop[0].is_set())
    return job
