"""A tuning method for tests, `witness:Witness`: MST that writes down what it did, and dies when it is told to."""

import hashlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mstrack.tuning import MST


class Witness(MST):
    """Writes a line for each step to `folder/rank.txt`: the start it belongs to, the step, a digest of all that moved so far.

    Where the environment has WITNESS_DIES=rank:step, that process is killed in the middle of that step (from 1), once.

    Args:
        folder: Where.
        others: Of MST.
    """

    def __init__(self, folder: str, **others: Any) -> None:
        super().__init__(**others)
        self.rank, self.start = os.environ.get("RANK", "0"), os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self.path = Path(folder) / f"{self.rank}.txt"
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def begin_step(self, groups: Sequence[Mapping[str, Any]], states: Mapping[Tensor, dict[str, Any]]) -> None:
        super().begin_step(groups, states)
        digest = hashlib.sha256()
        for parameter, state in states.items():
            for value in (parameter, *(state[key] for key in sorted(state))):
                digest.update(value.detach().contiguous().numpy().tobytes())
        step = int(max(float(state["step"]) for state in states.values())) + 1
        with self.path.open("a") as file:
            file.write(f"{self.start} {step} {digest.hexdigest()}\n")
        if os.environ.get("WITNESS_DIES") == f"{self.rank}:{step}" and self.start == "0":
            os.kill(os.getpid(), signal.SIGKILL)
