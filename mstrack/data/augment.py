"""Random variation of a training pair: what is drawn, and what is done to the crops on the host (numpy only).

Geometry and grey are applied here, to uint8 crops; photometric factors and dropped modalities are only drawn here and
applied where the batch is normalised (`sampling.vary`), on the device.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Augmentation:
    """How strongly pairs are varied; the defaults are the published ones (OSTrack, ViPT, SDSTrack).

    Attributes:
        grayscale: Probability that the colour image turns grey in both crops; the second modality is untouched.
        flip: Probability that both crops are mirrored.
        independent_flip: Probability that a crop is mirrored, drawn for each crop.
        brightness: Each crop is multiplied by U(1 - b, 1 + b), one factor for all modalities.
        photometric: Contrast about mid-grey and brightness in U(1 - p, 1 + p), for each crop and modality.
        modality_dropout: Probability that the pair loses one of its modalities (a fair choice) in both crops.
    """

    grayscale: float = 0.05
    flip: float = 0.5
    independent_flip: float = 0.5
    brightness: float = 0.2
    photometric: float = 0.0
    modality_dropout: float = 0.0


NONE = Augmentation(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


class Variation(NamedTuple):
    """One draw for a pair with M modalities; index 0 is the template, 1 the search crop."""

    grayscale: bool
    mirrored: NDArray[np.bool_]
    """(2,)"""
    photometry: NDArray[np.float32]
    """(2, M, 2): contrast about mid-grey, then a factor."""
    keep: NDArray[np.float32]
    """(M,): 1, or 0 for a dropped modality."""


def draw(rng: np.random.Generator, augmentation: Augmentation, modalities: int) -> Variation:
    """Draw a variation; the number of draws does not depend on their outcome."""
    a = augmentation
    grayscale = bool(rng.random() < a.grayscale)
    both, template, search = rng.random(3) < np.array([a.flip, a.independent_flip, a.independent_flip])
    photometry = 1 + a.photometric * rng.uniform(-1, 1, (2, modalities, 2))
    photometry[..., 1] *= 1 + a.brightness * rng.uniform(-1, 1, (2, 1))
    dropped, which = rng.random() < a.modality_dropout, int(rng.integers(modalities))
    keep = np.ones(modalities, dtype=np.float32)
    if dropped and modalities > 1:
        keep[which] = 0
    return Variation(grayscale, np.array([both ^ template, both ^ search]), photometry.astype(np.float32), keep)


def to_grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """H x W x 3 RGB -> the same in grey, three equal channels."""
    return np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2).astype(np.uint8, copy=False)


def mirror_box(box: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """A normalised box (x, y, w, h) in the mirror image of its crop of `size` pixels (pixel i goes to size - 1 - i)."""
    x, y, w, h = box
    return np.array([(size - 1) / size - x - w, y, w, h])
