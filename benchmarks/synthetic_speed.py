"""What the embedded benchmark costs to make: milliseconds per frame on one core and kilobytes per frame, per split.

python benchmarks/synthetic_speed.py [--sequences 6] [--workers 1]
"""

import argparse
import tempfile
import time
from pathlib import Path

from mstrack.data.synthetic import SPLITS, generate


def measure(split: str, sequences: int, frames: int, workers: int) -> tuple[float, float]:
    """(milliseconds, kilobytes) per frame, all modalities of the split, files included."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        generate(folder, 0, {split: (sequences, frames)}, workers)
        seconds = time.perf_counter() - start
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return 1e3 * seconds / (sequences * frames), size / 1e3 / (sequences * frames)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=6)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    measure("val", 1, 2, 1)
    print(f"{'split':10} {'frames':>12} {'ms/frame':>9} {'kB/frame':>9}")
    for split, (_, frames) in SPLITS.items():
        sequences = options.sequences if frames >= 30 else 10 * options.sequences
        cost, size = measure(split, sequences, frames, options.workers)
        print(f"{split:10} {sequences:>6} x {frames:<3} {cost:9.2f} {size:9.1f}")


if __name__ == "__main__":
    main()
