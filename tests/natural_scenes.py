"""Images that compress like photographs, and sequences of them on disk: for what is only nearly equal after JPEG."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mstrack.data.sequence import Sequence


def make_image(rng: np.random.Generator, width: int, height: int, channels: int = 3) -> NDArray[np.uint8]:
    """Noise that grows with its scale, in brightness more than in colour, and sharp-edged ellipses."""
    image = np.zeros((height, width, channels), dtype=np.float32)
    for scale in (2, 4, 8, 16, 32):
        grid = rng.standard_normal((height // scale + 2, width // scale + 2, channels if scale > 8 else 1)).astype(np.float32)
        image += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, -1) * scale**0.7
    for _ in range(15):
        middle = tuple(int(v) for v in rng.integers((width, height)))
        axes = tuple(int(v) for v in rng.integers(5, (width // 8, height // 8)))
        cv2.ellipse(image, middle, axes, float(rng.uniform(0, 180)), 0, 360, rng.uniform(-12, 12, channels).tolist(), -1)
    found = np.clip(128 + 3 * image, 0, 255).astype(np.uint8)
    return found if channels > 1 else found.reshape(height, width)


def make_depth(rng: np.random.Generator, width: int, height: int) -> NDArray[np.uint16]:
    """Millimetres, with holes."""
    depth = 1000 + 20 * make_image(rng, width, height, 1).astype(np.float64)
    depth[rng.random(depth.shape) < 0.05] = 0
    return depth.astype(np.uint16)


def make_sequence(
    folder: Path,
    seed: int = 0,
    frames: int = 8,
    size: tuple[int, int] = (320, 240),
    modality: str = "thermal",
    suffix: str = "jpg",
) -> Sequence:
    """A sequence of unrelated images, with boxes of 12 to 90 pixels anywhere in them; depth is written as 16-bit PNG."""
    rng = np.random.default_rng((seed, *size))
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, list[Path]] = {"rgb": [], modality: []}
    for t in range(frames):
        depth = modality == "depth"
        second = make_depth(rng, *size) if depth else make_image(rng, *size, 1 if modality == "thermal" else 3)
        for name, image, kind in (("rgb", make_image(rng, *size), suffix), (modality, second, "png" if depth else suffix)):
            path = folder / f"{name}{seed}_{t}.{kind}"
            cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 90] if kind == "jpg" else [])
            files[name].append(path)
    sides = np.exp(rng.uniform(np.log(12), np.log(90), (frames, 1))) * np.exp(rng.uniform(-0.2, 0.2, (frames, 2)))
    boxes = np.concatenate([rng.random((frames, 2)) * (np.array(size) - sides), sides], axis=1)
    return Sequence(f"scene{seed}", files["rgb"], boxes, np.ones(frames, dtype=bool), files[modality], modality)
