"""What a training run leaves in its folder: the state that it goes on from, and checkpoints."""

import contextlib
import datetime
import json
import math
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from mstrack import __version__, checkpoint, distributed
from mstrack.claims import alone
from mstrack.config import Config, dump_config, load_config
from mstrack.distributed import Place
from mstrack.errors import UserError
from mstrack.models.network import Network
from mstrack.results import write_text
from mstrack.tuning import TunedAdamW


@contextlib.contextmanager
def occupy(config: Config, place: Place) -> Iterator[None]:
    """Keep other trainings out of the folder of the run; what a killed one was writing is removed.

    Raises:
        UserError: One is under way there.
    """
    if not place.first:
        yield
        return
    with alone(config.run.out, "`mst train`"):
        for remains in config.run.out.rglob(".*.part.safetensors"):
            remains.unlink(missing_ok=True)
        yield


def resume(config: Config, network: Network, optimizer: TunedAdamW, place: Place) -> tuple[int, float]:
    """Load the last saved state of this run, if there is one: the step it stands at and the best validation score."""
    path = config.run.out / "state.safetensors"
    state = checkpoint.load_state(path) if path.is_file() else None
    steps = distributed.values_of_ranks(0 if state is None else int(state["step"]), place.device)
    if len(set(steps)) > 1:
        raise UserError(
            f"{path}: the processes find different saved steps there, {', '.join(map(str, steps))} by rank. run.out must be one"
            " folder that all machines share, and see alike."
        )
    if state is None:
        if place.first:
            write_text(config.run.out / "config.yaml", dump_config(config))
        distributed.wait()
        return 0, -math.inf
    was = load_config(json.loads(state["config"]))
    changed = _list_changes(was.model_dump(mode="json", exclude={"run"}), config.model_dump(mode="json", exclude={"run"}))
    began, begins = (found.get("started_from", {}).get("sha256") for found in (state, network.provenance))
    if began is not None and begins is not None and began != begins:
        changed.append(f"the content of model.weights (sha256 {began[:8]}... there, {begins[:8]}... now)")
    if changed:
        raise UserError(
            f"{config.run.out} holds a run with other settings in: {', '.join(changed)}. Name another folder (run.out=DIR),"
            " or remove that one."
        )
    network.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"]), float(state["best"])


def _list_changes(was: Mapping[str, Any], now: Mapping[str, Any], section: str = "") -> list[str]:
    """The dotted keys whose values differ, with both values where they are short."""
    changes = []
    for key in dict.fromkeys((*was, *now)):
        before, after = was.get(key), now.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            changes += _list_changes(before, after, f"{section}{key}.")
        elif before != after:
            values = f" ({before} there, {after} now)"
            changes.append(f"{section}{key}" + (values if len(values) < 80 else ""))
    return changes


def save_state(config: Config, network: Network, optimizer: TunedAdamW, step: int, best: float, place: Place) -> None:
    """Everything a run needs to go on, in one atomic file."""
    if place.first:
        state = {
            "step": step,
            "best": best,
            "config": config.model_dump_json(),
            **network.provenance,
            "model": network.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        checkpoint.save_state(config.run.out / "state.safetensors", state)
    distributed.wait()


def save_model(
    path: Path,
    network: Network,
    config: Config,
    lists: list[dict[str, Any]],
    step: int,
    scores: Mapping[str, float],
    choice: float | None,
    place: Place,
) -> None:
    """A checkpoint that says what made it."""
    if not place.first:
        return
    provenance = {
        "command": shlex.join(["mst", *sys.argv[1:]]) if Path(sys.argv[0]).name in ("mst", "__main__.py") else "mstrack.train",
        "config": json.loads(config.model_dump_json()),
        **network.provenance,
        "seed": config.train.seed,
        "data": [f"{s.name}/{s.split}" for s in config.data.train],
        "lists": lists,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "step": step,
        "validation": dict(scores),
        **({} if choice is None else {"choice": choice}),
        "device": place.device.type,
        "processes": place.world,
        "mstrack": __version__,
        "torch": torch.__version__,
    }
    checkpoint.save(path, network, provenance)
