"""Which two frames of a sequence make a training pair, and how they are cropped."""

import math
from collections.abc import Sequence as List
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from mstrack.data.crops import jitter
from mstrack.data.sequence import Sequence, check_policy
from mstrack.data.stills import Stills
from mstrack.errors import UserError, some, warn

ATTEMPTS = 100
"""Draws of frames, and of crops, before a sample is given up with an error."""
GAP_GROWTH = 5
"""Frames by which the gap grows with every draw that found no search frame."""
STRIDE = 16
"""Of the networks' patches: a crop whose every `STRIDE`-th pixel is padding counts as empty."""


@dataclass(frozen=True)
class Pairing:
    """How template and search frames are found and cropped. The defaults are the published ones for 256-pixel models.

    Attributes:
        template_size, search_size: Sides of the crops in pixels.
        template_factor, search_factor: Sides of the crops in target sizes.
        template_jitter, search_jitter: (centre, scale) of the random displacement of the box a crop is taken around.
        max_gap: The search frame comes less than this many frames after the template.
        min_frames: Shorter videos are left out.
        modalities: 1 (RGB) or 2 (RGB and the second modality).
        missing: What is done about a frame without its second modality, a name of `sequence.POLICIES`.
        reject_padding: Draw again where a crop is all padding, at the stride of the patches; OSTrack does, ViPT and its
            successors do not.
    """

    template_size: int = 128
    search_size: int = 256
    template_factor: float = 2.0
    search_factor: float = 4.0
    template_jitter: tuple[float, float] = (0.0, 0.0)
    search_jitter: tuple[float, float] = (3.0, 0.25)
    max_gap: int = 200
    min_frames: int = 20
    modalities: int = 2
    missing: str = "error"
    reject_padding: bool = False

    def __post_init__(self) -> None:
        check_policy(self.missing)


class Group(NamedTuple):
    """A source of training pairs.

    `min_size` is the published code's rule for a target that may be drawn: width and height above 10 pixels on DepthTrack
    (ViPT, SUTrack; SRTrack 2), above 0 on LasHeR (ViPT; SRTrack 2), above 5 on VisEvent (ViPT; SRTrack 1), above 1 on COESOT
    and FE108; and always that the data set does not call it absent (`Sequence.valid`).
    """

    sequences: List[Sequence]
    weight: float = 1.0
    """How often it is drawn, relative to the others."""
    min_size: float = 0.0
    """Pixels; see above."""


class Candidate(NamedTuple):
    """A sequence that can be drawn from."""

    sequence: Sequence
    visible: NDArray[np.intp]
    """The frames that may be drawn, in order."""


class StillCandidates(List[Candidate]):
    """The candidates among many stills, each made when it is drawn."""

    def __init__(self, stills: Stills) -> None:
        self.stills = stills

    def __len__(self) -> int:
        return len(self.stills)

    @overload
    def __getitem__(self, index: int) -> Candidate: ...
    @overload
    def __getitem__(self, index: slice) -> "StillCandidates": ...
    def __getitem__(self, index: int | slice) -> "Candidate | StillCandidates":
        if isinstance(index, slice):
            return StillCandidates(self.stills[index])
        return Candidate(self.stills[index], np.zeros(1, dtype=np.intp))


def candidates(group: Group, pairing: Pairing) -> List[Candidate]:
    """The sequences that pairs are drawn from: those with enough frames, of which more than twice the drawn ones are visible.

    A warning names the others.

    Raises:
        UserError: There is none, or a sequence lacks the second modality.
    """
    usable: List[Candidate]
    left_out: list[str] = []
    size = f" larger than {group.min_size:g} pixels (min_size)" if group.min_size else ""
    need = f"each needs {pairing.min_frames} frames (data.min_frames) and more than 4 with a visible target{size}"
    if isinstance(group.sequences, Stills):
        usable = StillCandidates(group.sequences.above(group.min_size))
    else:
        found = [Candidate(s, visible_frames(s, pairing, group.min_size)) for s in group.sequences]
        fit = [_is_usable(candidate, pairing) for candidate in found]
        usable = [candidate for candidate, fits in zip(found, fit, strict=True) if fits]
        left_out = [candidate.sequence.name for candidate, fits in zip(found, fit, strict=True) if not fits]
    if not usable:
        raise UserError(f"none of {len(group.sequences)} sequence(s) can be trained on: {need}.")
    if left_out:
        text = f"{len(left_out)} of {len(group.sequences)} sequences are left out, for {need}: {some(left_out, 5)}"
        warn("training", "short", text)
    lacking = next((c.sequence.name for c in usable if c.sequence.aux is None), None) if pairing.modalities == 2 else None
    if lacking is not None:
        raise UserError(f"sequence '{lacking}' has no second modality, and the model needs one: set data.modality.")
    return usable


def visible_frames(sequence: Sequence, pairing: Pairing, min_size: float = 0.0) -> NDArray[np.intp]:
    """Frames whose target is present and large enough, and where the policy asks for it, those that have both modalities."""
    visible = sequence.valid & (sequence.boxes[:, 2:] > min_size).all(axis=1)
    # A folder or a video holds no gaps: only lists that a reader has put together can.
    if pairing.modalities == 2 and pairing.missing == "error" and isinstance(sequence.aux, list | tuple):
        visible &= np.fromiter((file is not None for file in sequence.aux), bool, len(sequence))
    return np.flatnonzero(visible)


def _is_usable(candidate: Candidate, pairing: Pairing) -> bool:
    frames, visible = len(candidate.sequence), len(candidate.visible)
    return visible == 1 if frames == 1 else frames >= pairing.min_frames and visible > 4


def draw_frames(rng: np.random.Generator, candidate: Candidate, max_gap: int) -> tuple[int, int]:
    """A template frame and a later search frame, in the published causal order.

    The template is a visible frame t before the last of the sequence, the search frame a visible one in
    [t + 1, t + max_gap + g - 1]; g starts at 0, and where there is none both are drawn again with g + 5. A sequence of one
    frame is a still, which is both.

    Raises:
        UserError: Nothing is found in `ATTEMPTS` draws.
    """
    sequence, visible = candidate
    if len(sequence) == 1:
        return 0, 0
    # Nothing follows the last visible frame: as a template it is drawn in vain. Where all frames lie within the gap that
    # changes nothing but the number of draws, and it is left out.
    near = visible[-1] - visible[0] < max_gap
    templates = int(np.searchsorted(visible, visible[-1] if near else len(sequence) - 1))
    for attempt in range(ATTEMPTS):
        template = int(visible[rng.integers(templates)])
        reach = max_gap + GAP_GROWTH * attempt
        first, stop = np.searchsorted(visible, (template + 1, template + reach))
        if stop > first:
            return template, int(visible[first + rng.integers(stop - first)])
    raise UserError(
        f"sequence '{sequence.name}': no visible frame was found less than data.max_gap = {max_gap} frames after another in"
        f" {ATTEMPTS} draws, each with a gap {GAP_GROWTH} frames larger: raise data.max_gap, or leave the sequence out."
    )


class Extent(NamedTuple):
    """What training crops reach, in target sizes (the square root of width times height)."""

    margin: float
    """Side of a square around the target that holds nearly all crops of either kind."""
    shrinkage: float
    """Nearly all crops shrink at least by this, times the target's size in pixels."""


def find_extent(pairing: Pairing, share: float, draws: int = 20_000) -> Extent:
    """The extent of this share of all crops: simulated with `crops.jitter`, with fixed random numbers."""
    rng = np.random.default_rng(0)
    margins, shrinkages = [], []
    for (centre, scale), factor, size in (
        (pairing.template_jitter, pairing.template_factor, pairing.template_size),
        (pairing.search_jitter, pairing.search_factor, pairing.search_size),
    ):
        boxes = np.array(
            [jitter((-0.5, -0.5, 1, 1), scale, centre, rng.standard_normal(2), rng.random(2)) for _ in range(draws)]
        )
        offset = np.abs(boxes[:, :2] + 0.5 * boxes[:, 2:]).max(axis=1)
        side = factor * np.sqrt(boxes[:, 2:].prod(axis=1))
        margins.append(np.quantile(2 * offset + side, share))
        shrinkages.append(np.quantile(side, 1 - share) / size)
    return Extent(math.ceil(10 * max(margins)) / 10, float(min(shrinkages)))
