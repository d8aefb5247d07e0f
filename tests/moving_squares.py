"""A dataset of our own for tests, `moving_squares:load`: bright squares on noise, written where `root` says.

Any number of processes may call it at once: a file is whole, or not there.
"""

import os
from pathlib import Path

import cv2
import numpy as np

from mstrack.data.sequence import Sequence

SIDE, FRAMES = 96, 12


def load(root: Path, split: str, modality: str = "thermal", sequences: int = 3) -> list[Sequence]:
    return [_sequence(Path(root) / split, index, modality) for index in range(sequences)]


def _sequence(folder: Path, index: int, modality: str) -> Sequence:
    rng = np.random.default_rng((len(folder.name), index))
    start, speed = rng.uniform(30, 50, 2), rng.uniform(-2, 2, 2)
    boxes = np.array([[*(start + speed * t), 16, 14] for t in range(FRAMES)])
    files: dict[str, list[Path]] = {"rgb": [], modality: []}
    for t, (x, y, w, h) in enumerate(boxes.round().astype(int)):
        for kind, level in (("rgb", 200), (modality, 240)):
            image = rng.integers(0, 90, (SIDE, SIDE, 3), dtype=np.uint8)
            image[y : y + h, x : x + w] = level
            path = folder / f"square{index}" / kind / f"{t:04d}.png"
            files[kind].append(path)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                half = path.with_name(f".{os.getpid()}-{path.name}")
                assert cv2.imwrite(str(half), image)
                half.replace(path)
    valid = np.ones(FRAMES, dtype=bool)
    return Sequence(f"square{index}", tuple(files["rgb"]), boxes, valid, tuple(files[modality]), modality)
