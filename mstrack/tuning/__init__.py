"""Tuning methods: which parameters train, and what becomes of each step that AdamW proposes."""

from mstrack.tuning.adamw import TunedAdamW
from mstrack.tuning.anchors import L2SP, SRFT, FisherL2SP
from mstrack.tuning.averages import EMA, WiSE
from mstrack.tuning.base import FullFineTuning, Tuning, effective_rate
from mstrack.tuning.combination import Around, build_tuning
from mstrack.tuning.momentum import MST, ScalarMomentum, SensitivityOnly
from mstrack.tuning.sparse import SparseTuning

__all__ = [
    "EMA",
    "L2SP",
    "MST",
    "SRFT",
    "Around",
    "FisherL2SP",
    "FullFineTuning",
    "ScalarMomentum",
    "SensitivityOnly",
    "SparseTuning",
    "TunedAdamW",
    "Tuning",
    "WiSE",
    "build_tuning",
    "effective_rate",
]
