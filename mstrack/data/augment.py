"""Random variation of a training pair: what is drawn, and what is done to the crops on the host (numpy only).

Geometry and grey are applied here, to uint8 crops; photometric factors and dropped modalities are only drawn here and
applied where the batch is normalised (`sampling.vary`), on the device.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from mstrack.errors import UserError


@dataclass(frozen=True)
class Augmentation:
    """How strongly pairs are varied; the defaults are the published ones (OSTrack, ViPT, SDSTrack, SRTrack) less their defects.

    Attributes:
        grayscale: Probability that the colour image turns grey in both crops; the second modality is untouched (SRTrack).
        grayscale_redraw: The defect of ViPT and SDSTrack: where grey is drawn it fails on six channels, unseen, and the
            whole sample is drawn again. Nothing ever turns grey, and that share of the draws is lost.
        flip: Probability that both crops are mirrored.
        independent_flip: Probability that a crop is mirrored, drawn for each crop. The defect of all published trackers is
            0.5: in half of the pairs the target of the template looks the other way in the search crop.
        published_flip: A crop that is mirrored on its own has its box mirrored about the edges of the crop and not about its
            pixels, as in the published trackers; see `mirror_box`.
        brightness: Each crop is multiplied by U(1 - b, 1 + b), one factor for all modalities.
        photometric: Contrast about mid-grey and brightness in U(1 - p, 1 + p), for each crop and modality.
        modality_dropout: Probability that the pair loses one of its modalities (a fair choice) in both crops.
    """

    grayscale: float = 0.05
    flip: float = 0.5
    independent_flip: float = 0.0
    published_flip: bool = False
    brightness: float = 0.2
    photometric: float = 0.0
    modality_dropout: float = 0.0
    grayscale_redraw: bool = False

    def __post_init__(self) -> None:
        if self.grayscale_redraw and self.grayscale >= 1:
            raise UserError("data.grayscale = 1 with data.grayscale_redraw: every sample would be drawn again, without end.")


NONE = Augmentation(grayscale=0.0, flip=0.0, brightness=0.0)


class Variation(NamedTuple):
    """One draw for a pair with M modalities; index 0 is the template, 1 the search crop."""

    grayscale: bool
    mirrored: NDArray[np.bool_]
    """(2,) whether the pixels of a crop are in the end."""
    flips: NDArray[np.bool_]
    """(2,): whether both crops are mirrored together, and whether the search crop is on its own too."""
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
    mirrored = np.array([both ^ template, both ^ search])
    return Variation(grayscale, mirrored, np.array([both, search]), photometry.astype(np.float32), keep)


def to_grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """H x W x 3 RGB -> the same in grey, three equal channels."""
    return np.asarray(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), dtype=np.uint8)


def mirror_box(box: NDArray[np.float64], size: int, flips: NDArray[np.bool_], published: bool = False) -> NDArray[np.float64]:
    """The box of the search crop after its flips.

    Pixel i goes to size - 1 - i, and the box with it. So does the published flip of a pair (OSTrack, on whole frames). The
    published flip of one crop (`RandomHorizontalFlip_Norm` of ViPT and SDSTrack) takes x to 1 - x, as if the centre of pixel i
    were at i + 0.5: the box is one pixel further to the right than its pixels, also after both flips.

    Args:
        box: x, y, w, h as fractions of the crop.
        size: Pixels of the crop's side.
        flips: (2,) of the pair, of the crop on its own; see `Variation`.
        published: Whether the second goes by the published formula.
    """
    x, y, w, h = box
    pair, own = flips
    if pair ^ (own and not published):
        x = (size - 1) / size - x - w
    if own and published:
        x = 1 - x - w
    return np.array([x, y, w, h])
