"""What a training sample costs in CPU time: two frames, four crops, from files and from the cache of crops.

    python benchmarks/dataloader.py [--samples 120]

Natural-looking images are made on the spot: noise of all scales and sharp-edged ellipses, JPEG of quality 90; 16-bit depth
in PNG files. Targets have a median of 60 (630x480, 640x360) or 90 pixels (1280x720), log-normal with sigma 0.5. Every round
draws some samples of each kind, so that whatever else the machine does meets all alike; files are in the page cache. The
published loop is what SDSTrack's data set and processing do for such a pair, less its search for files and its reading of
annotation texts. Ours leaves brightness and normalisation to the device.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from mstrack.data.augment import Augmentation
from mstrack.data.cropbuild import build
from mstrack.data.crops import crop_mask, jitter
from mstrack.data.pairs import Pairing
from mstrack.data.sampling import PairDataset
from mstrack.data.sequence import Sequence

FRAMES = 24
BLOCK = 8
"""Samples of a kind that are drawn in a row."""
RATES = (200, 400, 800)
"""Samples per second that a GPU may train on."""


class Case(NamedTuple):
    modality: str
    width: int
    height: int
    target: float


CASES = (
    Case("thermal", 630, 480, 60),
    Case("thermal", 1280, 720, 90),
    Case("depth", 640, 360, 60),
    Case("depth", 630, 480, 60),
)


# ---------------------------------------------------------------- data
def make_image(rng: np.random.Generator, width: int, height: int, channels: int) -> NDArray[np.float32]:
    """Noise that grows with its scale, in brightness more than in colour, and ellipses; mean 128."""
    image = np.zeros((height, width, channels), dtype=np.float32)
    for scale in (2, 4, 8, 16, 32, 64):
        grid = rng.standard_normal((height // scale + 2, width // scale + 2, channels if scale > 8 else 1)).astype(np.float32)
        image += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, -1) * scale**0.7
    for _ in range(40):
        middle = tuple(int(v) for v in rng.integers((width, height)))
        axes = tuple(int(v) for v in rng.integers(5, (width // 8, height // 8)))
        cv2.ellipse(image, middle, axes, float(rng.uniform(0, 180)), 0, 360, rng.uniform(-12, 12, channels).tolist(), -1)
    return 128 + 3 * (image + 0.3 * rng.standard_normal((height, width, 1)).astype(np.float32))


def make_depth(rng: np.random.Generator, width: int, height: int) -> NDArray[np.uint16]:
    """Surfaces with edges, noise of a sensor that grows with distance, and holes."""
    surface = cv2.GaussianBlur(make_image(rng, width, height, 1), (0, 0), 2).reshape(height, width)
    depth = (1500 + 12 * surface) * (1 + 1e-3 * rng.standard_normal(surface.shape))
    depth[cv2.GaussianBlur(rng.standard_normal(depth.shape), (0, 0), 4) > 0.15] = 0
    return np.clip(depth, 0, 65535).astype(np.uint16)


def make_sequence(folder: Path, case: Case, seed: int) -> Sequence:
    rng = np.random.default_rng(seed)
    files: dict[str, list[Path]] = {"rgb": [], case.modality: []}
    sides = case.target * np.exp(0.5 * rng.standard_normal(FRAMES))
    aspect = np.exp(0.3 * rng.standard_normal(FRAMES))
    sizes = np.stack([sides * aspect, sides / aspect], axis=1).clip(8, (case.width - 20, case.height - 20))
    boxes = np.concatenate([rng.uniform(0, 1, (FRAMES, 2)) * ((case.width, case.height) - sizes), sizes], axis=1)
    for t in range(FRAMES):
        colour = make_image(rng, case.width, case.height, 3).clip(0, 255).astype(np.uint8)
        if case.modality == "depth":
            second, suffix = make_depth(rng, case.width, case.height), "png"
        else:
            second, suffix = make_image(rng, case.width, case.height, 3).clip(0, 255).astype(np.uint8), "jpg"
        for name, image, kind in (("rgb", colour, "jpg"), (case.modality, second, suffix)):
            path = folder / f"{name}{seed}_{t:03d}.{kind}"
            cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 90] if kind == "jpg" else [])
            files[name].append(path)
    return Sequence(f"s{seed}", files["rgb"], boxes, np.ones(FRAMES, dtype=bool), files[case.modality], case.modality)


# ---------------------------------------------------------------- the published loop
def published_sample(sequence: Sequence, rng: np.random.Generator, pairing: Pairing) -> list[NDArray[np.float32]]:
    """Whole frames decoded, coloured, merged, mirrored; crops with their masks; brightness and normalisation on floats."""
    template, search = sorted(rng.choice(len(sequence), 2, replace=False).tolist())
    frames = [_published_frame(sequence, index) for index in (template, search)]
    boxes = sequence.boxes[[template, search]]
    if rng.random() < 0.5:
        frames = [np.fliplr(frame).copy() for frame in frames]
        boxes[:, 0] = frames[0].shape[1] - 1 - boxes[:, 0] - boxes[:, 2]
    found = []
    for frame, box, (centre, scale), factor, size in (
        (frames[0], boxes[0], pairing.template_jitter, pairing.template_factor, pairing.template_size),
        (frames[1], boxes[1], pairing.search_jitter, pairing.search_factor, pairing.search_size),
    ):
        around = jitter(box, scale, centre, rng.standard_normal(2), rng.random(2))
        patch = _published_crop(frame, around, factor, size)
        crop_mask(frame.shape, around, factor, size)
        image = patch.astype(np.float32) / 255
        image = np.clip(image * rng.uniform(0.8, 1.2), 0, 1)
        image = np.fliplr(image).copy() if rng.random() < 0.5 else image
        mean, deviation = np.tile([0.485, 0.456, 0.406], 2), np.tile([0.229, 0.224, 0.225], 2)
        normal = np.asarray((image - mean.astype(np.float32)) / deviation.astype(np.float32), dtype=np.float32)
        found.append(normal.transpose(2, 0, 1).copy())
    return found


def _published_frame(sequence: Sequence, index: int) -> NDArray[np.uint8]:
    assert sequence.aux is not None
    stored: Any = cv2.imread(str(sequence.rgb[index]))
    colour = cv2.cvtColor(stored, cv2.COLOR_BGR2RGB)
    second: Any = cv2.imread(str(sequence.aux[index]), -1)
    if sequence.modality == "depth":
        second[second > min(np.median(second) * 3, 10000)] = min(np.median(second) * 3, 10000)
        second = cv2.applyColorMap(cv2.normalize(second, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8), cv2.COLORMAP_JET)  # type: ignore[call-overload]
    else:
        second = cv2.cvtColor(second, cv2.COLOR_BGR2RGB)
    return np.asarray(cv2.merge((colour, second)))


def _published_crop(image: NDArray[np.uint8], box: NDArray[np.float64], factor: float, size: int) -> NDArray[np.uint8]:
    """Six channels cut, padded by `copyMakeBorder` and resized together."""
    x, y, w, h = box.tolist()
    side = int(np.ceil(np.sqrt(w * h) * factor))
    x1, y1 = round(x + 0.5 * w - side * 0.5), round(y + 0.5 * h - side * 0.5)
    x2, y2 = x1 + side, y1 + side
    left, top = max(0, -x1), max(0, -y1)
    right, bottom = max(x2 - image.shape[1] + 1, 0), max(y2 - image.shape[0] + 1, 0)
    patch = image[y1 + top : y2 - bottom, x1 + left : x2 - right]
    return np.asarray(cv2.resize(cv2.copyMakeBorder(patch, top, bottom, left, right, cv2.BORDER_CONSTANT), (size, size)))


# ---------------------------------------------------------------- measuring
def measure(kinds: dict[str, Callable[[int], Any]], samples: int) -> dict[str, float]:
    """Mean CPU milliseconds of a sample of each kind; all draw the same samples."""
    spent: dict[str, list[float]] = {name: [] for name in kinds}
    for first in range(0, samples, BLOCK):
        for name, draw in kinds.items():
            draw(first + BLOCK)  # pays for what the kind before left in the caches and in the allocator
            for index in range(first, first + BLOCK):
                begin = time.process_time()
                draw(index)
                spent[name].append(1e3 * (time.process_time() - begin))
    return {name: statistics.fmean(times) for name, times in spent.items()}


def run(case: Case, folder: Path, samples: int, sequences: int) -> tuple[dict[str, float], str]:
    made = [make_sequence(folder, case, seed) for seed in range(sequences)]
    pairing = Pairing()
    sources = [(made, 1.0)]
    begin = time.process_time()
    built = build(made, pairing, folder / "crops")
    seconds = time.process_time() - begin

    def dataset(**options: Any) -> Callable[[int], Any]:
        pairs = PairDataset(sources, pairing, Augmentation(), **options)
        return lambda index: pairs.sample(0, index)

    kinds = {
        "published loop": lambda index: published_sample(made[index % sequences], np.random.default_rng(index), pairing),
        "files, full decode": dataset(),
        "files": dataset(scaled=True),
        "crop cache": dataset(crops=folder / "crops", scaled=True),
    }
    sizes = [statistics.fmean(path.stat().st_size for path in folder.glob(f"{name}*")) / 1e3 for name in ("rgb", case.modality)]
    frames = sequences * FRAMES
    note = (
        f"{case.modality} {case.width}x{case.height}: files of {sizes[0]:.0f} and {sizes[1]:.0f} kB; crop cache"
        f" {built.bytes / frames / 1e3:.0f} kB and {1e3 * seconds / frames:.1f} ms of CPU to make per frame, margin"
        f" {built.margin} target sizes, at most {100 * built.outside:.0f} % of crops outside."
    )
    return measure(kinds, samples), note


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=120, help="of each kind")
    parser.add_argument("--sequences", type=int, default=3, help=f"of {FRAMES} frames, in each case")
    parser.add_argument("--rates", type=float, nargs="*", default=RATES, help="samples per second that one GPU trains on")
    chosen = parser.parse_args()
    cv2.setNumThreads(1)
    head = ["data", "read from", "CPU ms / sample", "published / this", "samples/s per core"]
    head += [f"cores for {rate:g}/s" for rate in chosen.rates]
    lines = [" | ".join(head), "|".join(["---", "---", *["---:"] * (len(head) - 2)])]
    notes = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            found, said = run(case, Path(folder), chosen.samples, chosen.sequences)
        notes.append(said)
        for name, spent in found.items():
            cells = [
                f"{case.modality} {case.width}x{case.height}",
                name,
                f"{spent:.2f}",
                f"{found['published loop'] / spent:.2f}",
            ]
            cells += [f"{1e3 / spent:.0f}", *(f"{rate * spent / 1e3:.1f}" for rate in chosen.rates)]
            lines.append(" | ".join(cells))
    console = Console(width=200, soft_wrap=True)
    console.print("\n".join(f"| {line} |" for line in lines), highlight=False)
    console.print(
        f"\nOpenCV {cv2.__version__}, one thread, mean of {chosen.samples} samples.", *notes, sep="\n", highlight=False
    )


if __name__ == "__main__":
    main()
