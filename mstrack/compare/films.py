"""Chosen sequences as small films for a page: which of their frames are shown, and the pictures, embedded or linked."""

import base64
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from mstrack.data.sequence import Image, Sequence
from mstrack.errors import UserError

POINTS = 200
"""Moments of a sequence at which overlaps and boxes are kept."""
PICTURES = 25
"""Moments of a sequence that get a picture where pictures are embedded."""
WIDTH, QUALITY = 320, 62
SHOWN_BY_BROWSERS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


class Film(NamedTuple):
    """The pictures of one sequence.

    Attributes:
        width: Of a frame, in pixels of the data.
        height: The same.
        steps: Which of the sequence's sampled moments have a picture, ascending.
        labels: What each panel shows: `colour`, `thermal`, ...
        panels: For each panel the address of a picture per step; empty where there is none.
    """

    width: int
    height: int
    steps: list[int]
    labels: list[str]
    panels: list[list[str]]


def sample_moments(length: int, points: int = POINTS) -> NDArray[np.intp]:
    """At most `points` frame numbers, spread evenly from the first to the last (as the page's script has it)."""
    count = min(length, points)
    return np.floor(np.arange(count) * (length - 1) / max(count - 1, 1) + 0.5).astype(np.intp)


def choose_films(values: NDArray[np.float64], count: int) -> list[int]:
    """Sequences worth a look: in turn the one on which trackers differ most and the one that is worst for all.

    Args:
        values: (M, S) scores, NaN where there is none.
        count: How many at most.
    """
    finite = np.isfinite(values)
    shown = np.flatnonzero(finite.any(axis=0))
    columns = [values[finite[:, i], i] for i in shown]
    by_spread = sorted(range(len(shown)), key=lambda i: (-np.ptp(columns[i]), i))
    by_mean = sorted(range(len(shown)), key=lambda i: (columns[i].mean(), i))
    turns = [i for pair in zip(by_spread, by_mean, strict=True) for i in pair]
    return [int(shown[i]) for i in dict.fromkeys(turns)][:count]


def embed_film(sequence: Sequence, pictures: int = PICTURES, width: int = WIDTH) -> Film:
    """Read frames from disk and make small JPEG pictures of both modalities.

    Raises:
        UserError: A frame cannot be read.
    """
    moments = _moments(sequence)
    steps = sample_moments(len(moments), pictures).tolist()
    panels: list[list[str]] = [[] for _ in _labels(sequence)]
    size = (0, 0)
    for step in steps:
        if moments[step] < 0:
            for panel in panels:
                panel.append("")
            continue
        frame = sequence.frame(int(moments[step]))
        size = frame.rgb.shape[:2]
        for panel, image in zip(panels, (frame.rgb, frame.aux), strict=False):
            panel.append("" if image is None else _jpeg(image, width))
    return Film(size[1], size[0], steps, _labels(sequence), panels)


def link_film(sequence: Sequence) -> Film:
    """Point to the frames where they lie, for a page that stays on this machine.

    What browsers cannot show as it is (videos, 16-bit depth, recordings of events) becomes embedded pictures instead.

    Raises:
        UserError: A frame cannot be read.
    """
    moments = _moments(sequence)
    streams = [sequence.rgb] if sequence.aux is None else [sequence.rgb, sequence.aux]
    files = [[stream[t] if t >= 0 else None for t in moments] for stream in streams]
    known = all(f is None or (isinstance(f, Path) and f.suffix.lower() in SHOWN_BY_BROWSERS) for row in files for f in row)
    if not known or sequence.modality == "depth":
        return embed_film(sequence)
    height, width = sequence.frame(0).rgb.shape[:2]
    panels = [[f.resolve().as_uri() if isinstance(f, Path) else "" for f in row] for row in files]
    return Film(width, height, list(range(len(moments))), _labels(sequence), panels)


def _moments(sequence: Sequence) -> NDArray[np.intp]:
    """The sampled moments of the whole annotation as frame numbers of the sequence; negative where it was cut off."""
    return sample_moments(sequence.first + len(sequence)) - sequence.first


def _labels(sequence: Sequence) -> list[str]:
    return ["colour"] if sequence.aux is None else ["colour", sequence.modality]


def _jpeg(image: Image, width: int) -> str:
    scale = min(1.0, width / image.shape[1])
    size = [max(1, round(scale * side)) for side in image.shape[1::-1]]
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
    done, data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        raise UserError("a frame could not be encoded as JPEG.")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
