"""One histogram of the magnitudes of many tensors, by whatever counts fast on their device."""

from collections.abc import Sequence
from importlib.util import find_spec

from torch import Tensor, float32

from mstrack.tuning.chunks import is_dense
from mstrack.tuning.native import count_into, load_library
from mstrack.tuning.ranks import MOST_BITS, add_keys, magnitude_keys


def add_magnitudes(counts: Tensor, signals: Sequence[Tensor]) -> None:
    """Add how often each value of the top 16 bits of |signal| occurs: integers, so the same however they are counted.

    Args:
        counts: int64 (65536,).
        signals: Gradients, say, on its device.
    """
    plain = [signal.dtype is float32 and is_dense(signal) for signal in signals]
    fast = _add_fast(counts, [signal for signal, alike in zip(signals, plain, strict=True) if alike])
    for signal, alike in zip(signals, plain, strict=True):
        if not (fast and alike):
            add_keys(counts, magnitude_keys(signal).bitwise_right_shift_(31 - MOST_BITS))


def _add_fast(counts: Tensor, signals: list[Tensor]) -> bool:
    """Count dense float32 tensors by a kernel, if there is one for their device."""
    if counts.device.type == "cpu" and load_library() is not None:
        count_into(counts, signals)
        return True
    if counts.device.type == "cuda" and find_spec("triton") is not None:
        from mstrack.tuning import launches

        if launches.is_usable():
            launches.count_into(counts, signals)
            return True
    return False
