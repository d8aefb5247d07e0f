"""What event frames cost on one core: events per second from file to PNG frames, and peak memory against the file's length.

python benchmarks/events_speed.py [--events 20000000] [--densities 10e6 1e6 0.2e6] [--folder DIR]

The recordings are synthetic: 346 x 260 pixels, 25 frames per second of noise (which does not compress), events of random
polarity around a centre that moves to and fro (a normal distribution over a third of the width), LZ4 as recorders write it.
Rates are million events per second of one core (processor time; `by the clock` includes waiting for the disk and for others).
Density is events per second of recording: a DAVIS346 delivers at most about 12 million, a street scene 0.1 to 2 million.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import dv_processing as dv
import numpy as np

from mstrack.data.events import convert
from mstrack.data.events.files import open_recording
from mstrack.data.events.recipes import RECIPES
from mstrack.data.events.types import Events
from mstrack.data.events.windows import EventPicture, paint

WIDTH, HEIGHT, FPS, PACKET = 346, 260, 25, 10_000


def write_recording(path: Path, count: int, density: float) -> None:
    """An .aedat4 file of about `count` events."""
    rng = np.random.default_rng(0)
    config = dv.io.MonoCameraWriter.Config("synthetic")
    config.compression = dv.CompressionType.LZ4
    config.addEventStream((WIDTH, HEIGHT))
    config.addFrameStream((WIDTH, HEIGHT))
    writer = dv.io.MonoCameraWriter(str(path), config)
    gap, share = 1_000_000 // FPS, int(density / FPS)
    for index in range(max(1, count // share)):
        start = 1_600_000_000_000_000 + index * gap
        image = rng.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
        writer.writeFrame(dv.Frame(start, 5000, 0, 0, image, dv.FrameSource.SENSOR))
        t = np.sort(rng.integers(start, start + gap, share))
        x = np.clip(rng.normal(WIDTH / 2 + 80 * np.sin(index / 10), 60, share), 0, WIDTH - 1).astype(int)
        rows = np.stack([t, x, rng.integers(0, HEIGHT, share), rng.random(share) < 0.5], axis=1)
        for part in np.array_split(rows, max(1, share // PACKET)):
            vector = dv.EventPacket.EventVector([dv.Event(*row) for row in part.tolist()])
            writer.writeEventPacket(dv.EventPacket(vector))


def clock(act: Callable[[], Any], rounds: int = 3) -> tuple[float, float]:
    """(seconds of processor, seconds), each the best of a few."""
    found = []
    for _ in range(rounds):
        start = time.process_time(), time.perf_counter()
        act()
        found.append((time.process_time() - start[0], time.perf_counter() - start[1]))
    return min(cpu for cpu, _ in found), min(wall for _, wall in found)


def measure_speed(path: Path, density: float) -> None:
    """Print a table row per recipe."""
    total = sum(len(block.t) for block in open_recording(path).packets() if isinstance(block, Events))
    decode, _ = clock(lambda: [None for _ in open_recording(path).packets()])
    for name, recipe in RECIPES.items():
        out = path.parent / "out"

        def write(name: str = name, out: Path = out) -> int:
            shutil.rmtree(out, ignore_errors=True)
            return convert(path, name, out).frames

        painting, _ = clock(lambda recipe=recipe: [None for _ in paint(open_recording(path), recipe)])
        whole, wall = clock(write)
        frames = sum(isinstance(item, EventPicture) for item in paint(open_recording(path), recipe))
        rates = " | ".join(f"{total / seconds / 1e6:.1f}" for seconds in (decode, painting, whole, wall))
        print(f"| {density / 1e6:g} | {total // frames} | {name} | {rates} | {1e3 * whole / frames:.2f} |", flush=True)


def measure_memory(path: Path, recipe: str) -> tuple[float, float]:
    """(MiB after the imports, MiB at the peak of a conversion), in a process of its own."""
    # Not resource.getrusage, whose peak a new program inherits from the one that started it.
    code = (
        "import re, sys, tempfile; from pathlib import Path; from mstrack.data.events import convert;"
        "peak = lambda: int(re.search('VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) / 1024; before = peak();"
        "convert(sys.argv[1], sys.argv[2], tempfile.mkdtemp(dir=sys.argv[3])); print(before, peak())"
    )
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        command = [sys.executable, "-c", code, str(path), recipe, folder]
        before, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(before), float(peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--densities", type=float, nargs="*", default=[10e6, 1e6, 0.2e6])
    parser.add_argument("--folder", type=Path, help="Where the recordings are written; default: a temporary folder.")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        print("| million events/s | events per frame | recipe | decode | + paint | file to PNG | by the clock | ms/frame |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for density in options.densities:
            path = Path(folder) / "speed.aedat4"
            # No more than 1000 frames: sparse recordings would measure nothing else for minutes.
            write_recording(path, min(options.events, int(1000 * density / FPS)), density)
            measure_speed(path, density)
        print("\n| recording | MB | recipe | MiB after imports | peak MiB |\n| --- | --- | --- | --- | --- |")
        for factor in (1, 4):
            path = Path(folder) / "memory.aedat4"
            write_recording(path, factor * options.events // 4, 10e6)
            for recipe in ("interval", "voxel"):
                before, peak = measure_memory(path, recipe)
                size = path.stat().st_size / 1e6
                print(
                    f"| {factor * options.events // 4} events | {size:.0f} | {recipe} | {before:.0f} | {peak:.0f} |", flush=True
                )


if __name__ == "__main__":
    main()
