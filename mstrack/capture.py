"""Recording a CUDA graph: what both passes of training and of tracking need for it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mstrack.errors import UserError


@contextmanager
def capture(graph: torch.cuda.CUDAGraph, aside: torch.cuda.Stream, advice: str) -> Iterator[None]:
    """Record on a stream what is launched inside; other threads may use the device meanwhile, to pin memory for example.

    Args:
        graph: What it is recorded in.
        aside: The stream.
        advice: What to do where that cannot be, as a sentence.

    Raises:
        UserError: What is inside waits for the device.
        torch.OutOfMemoryError: There is no room.
    """
    main = torch.cuda.current_stream(aside.device)
    try:
        with torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):
            yield
    except RuntimeError as error:
        torch.cuda.set_stream(main)  # a recording that fails leaves the other one current
        first = _first(error)
        if isinstance(first, torch.OutOfMemoryError):
            raise first from None
        said = str(first).partition("\n")[0]
        raise UserError(f"a pass of this network cannot be recorded ({said}). {advice}") from error


def _first(error: BaseException) -> BaseException:
    """What went wrong first; the end of a recording adds an error of its own."""
    while error.__context__ is not None:
        error = error.__context__
    return error
