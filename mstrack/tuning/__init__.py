"""Tuning methods: which parameters train, and what becomes of each step that AdamW proposes."""

from mstrack.tuning.adamw import TunedAdamW
from mstrack.tuning.base import FullFineTuning, Tuning, effective_rate
from mstrack.tuning.momentum import MST, ScalarMomentum

__all__ = ["MST", "FullFineTuning", "ScalarMomentum", "TunedAdamW", "Tuning", "effective_rate"]
