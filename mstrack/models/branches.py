"""Parts of a network that do not need each other: at the same time, where a GPU would be half idle."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
_branching: ContextVar[bool] = ContextVar("branching", default=False)


@contextmanager
def branching() -> Iterator[None]:
    """In here `side_by_side` computes on several streams of a GPU: for passes that are recorded and cost no launches."""
    token = _branching.set(True)
    try:
        yield
    finally:
        _branching.reset(token)


def side_by_side(where: Tensor, *jobs: Callable[[], T]) -> list[T]:
    """The results of independent jobs, in their order; computed in turn, or on a GPU under `branching` at once.

    Each job but the first has a stream of its own, which waits for what came before and which is waited for at the end. So
    memory of one stream that another reads is never reused too early, as long as no job keeps a tensor of another.

    Args:
        where: A tensor that all jobs read, or another on the device they compute on.
        jobs: Called once each.
    """
    if torch.compiler.is_compiling() or not where.is_cuda or not _branching.get():
        return [job() for job in jobs]
    main = torch.cuda.current_stream(where.device)
    others = _streams(where.device, len(jobs) - 1)
    found: list[T] = []
    for job, stream in zip(jobs[1:], others, strict=True):
        stream.wait_stream(main)
        with torch.cuda.stream(stream):
            found.append(job())
    found.insert(0, jobs[0]())
    for stream in others:
        main.wait_stream(stream)
    return found


@lru_cache(maxsize=32)
def _streams(device: torch.device, count: int) -> tuple[torch.cuda.Stream, ...]:
    """Streams of a device, the same ones every time: memory that was freed on a stream is used again on it alone."""
    return tuple(torch.cuda.Stream(device) for _ in range(count))
