"""The baseline of every ratio of speed: the same network in a plain eager float32 loop, its softmax attention written by hand.

    python benchmarks/baseline.py [--model mst-b256] [--frames 10]

`plain_network` makes the network, `PlainTracker` follows with it as published code does (`mstrack/plain.py`, where it is tested
equal to the tracker); `mst bench`, `benchmarks/tracking.py` and `benchmarks/training.py` measure it in the run of what they
compare with it.
"""

import argparse
import statistics
import time

import torch

from mstrack.measuring import BOX, describe_machine, make_frames
from mstrack.models import create_model
from mstrack.plain import PlainTracker, plain_network

__all__ = ["PlainTracker", "plain_network"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mst-b256")
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = parser.parse_args()
    torch.manual_seed(0)
    tracker = PlainTracker(plain_network(create_model(chosen.model).to(chosen.device)))
    frame, times = make_frames(1)[0], []
    for _ in range(chosen.frames + 1):
        tracker.init(frame, BOX)
        started = time.perf_counter()
        tracker.update(frame)
        times.append(time.perf_counter() - started)
    step = statistics.median(times[1:])
    print(f"{chosen.model}: {1e3 * step:.1f} ms from crop to box, {1 / step:.2f} frames/s; {describe_machine(chosen.device)}")


if __name__ == "__main__":
    main()
