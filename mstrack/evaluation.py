"""A tracker over many sequences, resumable, then the scores: two stages with a result folder between them."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mstrack import __version__, checkpoint
from mstrack.backends import choose
from mstrack.claims import anybody_at_work
from mstrack.data import Sequence, arguments_of, load_sequences, modality_to_read
from mstrack.data.sequence import check_policy
from mstrack.data.splits import describe_list
from mstrack.data.truths import Truth, public, truths_of
from mstrack.distributed import choose_device, torchrun_rank
from mstrack.errors import UserError, some
from mstrack.following import Follower, NetworkFollower, Progress, Speed, track_sequences
from mstrack.machine import describe_processor, usable_cores
from mstrack.metrics.ope import SequenceScore, Summary
from mstrack.metrics.protocols import find_protocol, metrics_of, protocol_of
from mstrack.models.network import Network
from mstrack.provenance import trained_encoding, trained_modality, trained_recipe, warn_of_modality
from mstrack.rawresults import RawResults
from mstrack.report import Method, Report, table_rows, write_report
from mstrack.results import Track, check_names, read_object, read_track, write_json
from mstrack.scoring import describe, score_results, stamp

UNSAID = {"precision": "fp32"}
"""What holds for a `run.json` that does not say it."""
ROUNDING = 1e-3
"""Pixels by which a box in a result file may differ from the one that was written."""


@dataclass(frozen=True)
class Evaluation:
    """A tracker's results on some sequences.

    Attributes:
        sequences: What was scored: of all that was tracked, those with more than a first box.
        tracks: Boxes and confidences, by name of the sequence.
        scores: One per sequence, in their order.
        summary: Mean measures and curves.
        long_term: F, Pr and Re in percent, where the dataset is scored by them.
        fps: Frames per second from file to box, all workers together; None when nobody measured.
        network_fps: The network alone, likewise.
        protocol: Name of the scoring convention.
        folder: Where the results lie.
    """

    sequences: list[Sequence]
    tracks: dict[str, Track]
    scores: list[SequenceScore]
    summary: Summary
    long_term: dict[str, float] | None
    fps: float | None
    network_fps: float | None
    protocol: str
    folder: Path

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name} {value:.1f}" for name, value in self.summary.items())
        return f"Evaluation({numbers}; {len(self.scores)} sequences, protocol {self.protocol}, in {self.folder})"


def evaluate(
    model: Network | Follower | str | Path,
    on: str = "synthetic",
    out: str | Path = "results",
    split: str = "test",
    root: Path | None = None,
    modality: str | None = None,
    batch: int = 32,
    workers: int = 1,
    device: str = "auto",
    progress: Progress | None = None,
    encoding: str | None = None,
    missing: str = "error",
    arguments: Mapping[str, Any] | None = None,
    data_root: Path | None = None,
    strict: bool = False,
    protocol: str | None = None,
    backend: str = "auto",
    precision: str = "fp32",
) -> Evaluation:
    """Track every sequence of a split and score the results.

    The same call in several processes, torchrun's or started one by one, on any number of machines that see the same `out`,
    shares the sequences out: each takes the longest that nobody has taken. All wait for the last result; of torchrun's
    processes the first one writes the scores.

    Args:
        model: A network, which is put into eval mode and stays there; a checkpoint file, the name of a shipped weight, or what
            `mstrack.foreign.open_tracker` gives.
        on: A dataset of the catalogue, `module:function`, or a folder of your own data.
        out: Folder of the results; sequences that are finished there are not tracked again.
        split: Which split.
        root: The dataset's folder; None: it is looked for below `data_root`.
        modality: The second modality; `rgb` for none; None: the dataset's, or the one the checkpoint was trained with where a
            dataset has several.
        batch: Sequences that a network tracks in lock step, per worker.
        workers: Processes (on the CPU, each with its share of the cores).
        device: Where a network runs: `cpu`, `cuda`, or `auto`.
        progress: Called with (frames done, all, text).
        encoding: What is made of the second modality's files; None: as the checkpoint was trained, or the default.
        missing: The policy for frames without their second modality, see `sequence.fill`.
        arguments: Further keyword arguments of the dataset function; a recipe for events that is not among them is the one
            that the checkpoint was trained with.
        data_root: Where datasets are looked for; None: `$MST_DATA`, or `./data`.
        strict: Whether sequences of the split's list that are not on disk are an error rather than a warning.
        protocol: Name of the scoring convention; None: that of the dataset's published numbers.
        backend: How a network is run, see `mstrack.backends`.
        precision: Of a network's numbers, `fp32` or `bf16`.

    Raises:
        UserError: Unknown names; another modality than the dataset's; frames lack it, and the policy is `error`; or `out`
            holds results of another checkpoint, precision, policy or list.
    """
    convention = find_protocol(protocol or protocol_of(on)).name
    given = dict(arguments or {})
    follower = _as_follower(model, batch, device, backend, precision)
    if isinstance(follower, NetworkFollower):
        network = follower.network
        modality = modality or modality_to_read(on, root, trained_modality(network))
        recipe = trained_recipe(network)
        if recipe is not None and "events" in arguments_of(on):
            given.setdefault("events", recipe)
    sequences = list(load_sequences(on, split, root, modality, given, encoding, data_root))
    if isinstance(follower, NetworkFollower):
        network, found = follower.network, sequences[0].modality
        warn_of_modality(network.provenance, found, str(model) if isinstance(model, str | Path) else network.name)
        if encoding is None and found in ("rgb", trained_modality(network)):
            encoding = trained_encoding(network)
            sequences = [replace(s, encoding=encoding) if s.modality == found != "rgb" else s for s in sequences]
    check_names([sequence.name for sequence in sequences])
    used = describe_list(on, split, sequences)
    if strict and "of" in used:
        raise UserError(f"{used['name']}: {used['sequences']} of {used['of']} sequences can be read, and all are asked for.")
    folder = Path(out)
    read_as = {"modality": sequences[0].modality, "encoding": encoding, "missing": check_policy(missing)}
    if missing == "error" and isinstance(follower, NetworkFollower) and follower.network.modalities > 1:
        _refuse_lacking(sequences)
    reading = {**read_as, "dataset arguments": given}
    _claim(folder, {"dataset": on, "split": split, **reading, **follower.identify(), "list": used})
    for sequence in sequences:
        if (folder / f"{sequence.name}.txt").is_file():
            _read_result(folder, sequence)
    speed = track_sequences(follower, sequences, folder, workers, progress, missing)
    truths = truths_of(sequences, on, split, root, data_root)
    return score_folder(folder, sequences, truths, on, split, convention, speed, _say_where(follower))


def _as_follower(model: Network | Follower | str | Path, batch: int, device: str, backend: str, precision: str) -> Follower:
    if str(model).endswith(".onnx"):
        raise UserError(f"{model}: `mst eval` takes the checkpoint itself, with --backend onnx if you like.")
    if isinstance(model, str | Path):
        model = checkpoint.load(model)
    return NetworkFollower(model, batch, device, backend, precision) if isinstance(model, Network) else model


def _refuse_lacking(sequences: list[Sequence]) -> None:
    """Say what is known to be missing before hours of tracking end there."""
    counts = {s.name: sum(file is None for file in s.aux or ()) for s in sequences}
    lacking = [f"{s.name} ({counts[s.name]} of {len(s)})" for s in sequences if counts[s.name]]
    if lacking:
        raise UserError(
            f"{len(lacking)} of {len(sequences)} sequences lack {sequences[0].modality} frames, and the network needs them:"
            f" {some(lacking)}. Go on without by the policy zero, copy or last (--missing, or missing=...)."
        )


def _say_where(follower: Follower) -> str:
    """Device, backend and precision of a network; what another tracker runs on is not known."""
    if not isinstance(follower, NetworkFollower):
        return ""
    place = choose_device(follower.device)
    gpu = place.type == "cuda"
    where = torch.cuda.get_device_name(place) if gpu else f"{describe_processor()}, {usable_cores()} cores"
    named = follower.backend if follower.backend != "auto" else choose(follower.network, place, follower.precision)
    return f"{where}; backend {named}, {follower.precision}"


def score_folder(
    folder: Path,
    sequences: list[Sequence],
    truths: list[Truth],
    dataset: str,
    split: str,
    protocol: str,
    speed: Speed | None = None,
    where: str = "",
) -> Evaluation:
    """Stage 2: score a result folder and write `scores.json` beside the results; `where` the speed was measured.

    What has a first box alone is not scored.

    Raises:
        UserError: A sequence has no result, or one of another number of rows or another first box; nothing can be scored; the
            protocol does not take it.
    """
    tracks = {sequence.name: _read_result(folder, sequence) for sequence in sequences}
    try:
        truths = public(dataset, truths)
    except UserError as error:
        raise UserError(f"{error} The results are in {folder}.") from error
    scorable = {truth.name for truth in truths}
    sequences = [sequence for sequence in sequences if sequence.name in scorable]
    results = RawResults(folder.name, tracks, "mst eval")
    scored = score_results(results, truths, protocol, "longterm" in metrics_of(dataset))
    speeds: dict[str, Any] = {"file_to_box": None, "network": None}
    if speed is not None:
        speeds = {**speed._asdict(), "where": where}
    elif isinstance(stored := (read_object(folder / "scores.json") or {}).get("fps"), dict):
        speeds |= stored
    described = {key: value for key, value in describe(scored).items() if key not in ("recognised", "lacking")}
    described |= {"fps": speeds, "frames without second modality": sum(len(track.lacking) for track in tracks.values())}
    if torchrun_rank()[0] == 0:
        write_json(folder / "scores.json", {**described, "stamp": stamp(dataset, split, truths, protocol)})
    # Rows that a reader has cut off in front are scored by the protocol, but are no frames of the sequence.
    scores = [replace(score, iou=score.iou[s.first :]) for s, score in zip(sequences, scored.scores.values(), strict=True)]
    long_term = None if scored.long_term is None else dict(scored.long_term)
    return Evaluation(
        sequences, tracks, scores, scored.summary, long_term, speeds["file_to_box"], speeds["network"], protocol, folder
    )


def say_long_term(result: Evaluation) -> str:
    """F, Pr and Re in a line; empty where the dataset is not scored by them."""
    return ", ".join(f"{measure} {value:.1f}" for measure, value in (result.long_term or {}).items())


def _read_result(folder: Path, sequence: Sequence) -> Track:
    """What was tracked of a sequence that may have changed since.

    Raises:
        UserError: Nothing, another number of frames, or from another first box.
    """
    track = read_track(folder, sequence.name)
    if track is None:
        raise UserError(f"{folder}, sequence '{sequence.name}': no result. Track again.")
    if len(track.boxes) != len(sequence):
        found = f"{len(track.boxes)} rows, expected {len(sequence)}"
    elif not np.allclose(track.boxes[0], sequence.boxes[0], rtol=0, atol=ROUNDING, equal_nan=True):
        began, begins = (", ".join(f"{value:g}" for value in box) for box in (track.boxes[0], sequence.boxes[0]))
        found = f"it was tracked from the first box {began}, which is {begins} now"
    else:
        return track
    raise UserError(f"{folder}, sequence '{sequence.name}': {found}. Remove it and track again.")


def write_single_report(
    result: Evaluation, name: str, dataset: str, command: str
) -> tuple[Path, tuple[list[str], list[list[str]]]]:
    """`report.html` beside the results of one tracker; returns its path, and the table as headers and rows.

    Args:
        result: The results.
        name: What the tracker is called.
        dataset: What it was evaluated on.
        command: What makes the page again.
    """
    tracked = {sequence: track.boxes for sequence, track in result.tracks.items()}
    report = Report(
        title=f"{name} on {dataset}",
        subtitle=f"{len(result.sequences)} sequences, {result.summary.frames} scored frames",
        methods=[Method(name, name, result.scores, result.fps, tracked)],
        sequences=result.sequences,
        settings=_say_settings(result.folder),
        notes=[f"long-term: {say_long_term(result)}"] if result.long_term else [],
        protocol=result.protocol,
        reproduce=[command],
    )
    write_report(result.folder / "report.html", report)
    return result.folder / "report.html", table_rows(report)


def _say_settings(folder: Path) -> dict[str, str]:
    """What `run.json` says for people, and what the speed was measured on."""
    run, scores = (read_object(folder / name) or {} for name in ("run.json", "scores.json"))
    used, speeds = run.pop("list"), scores["fps"]
    of = f" of {used['of']}" if "of" in used else ""
    run["sequences"] = f"list {used['name']}, hash {used['hash']}: {used['sequences']}{of} sequences"
    run["frames per second"] = speeds.get("where") and f"from file to box, on {speeds['where']}"
    said = {key: value for key, value in run.items() if value not in (None, "", {}, [])}
    pairs = {
        key: [f"{name} {given}" for name, given in value.items()] for key, value in said.items() if isinstance(value, dict)
    }
    return {key: ", ".join(pairs[key]) if key in pairs else str(value) for key, value in said.items()}


def _claim(folder: Path, identity: dict[str, Any]) -> None:
    """Write or compare `run.json`: results of two trackers or lists never mix in one folder.

    What is finished under the policy `error` lacked nothing, and is the same under every other one.
    """
    path = folder / "run.json"
    identity = json.loads(json.dumps(identity, default=str))  # as it will be read: lists for tuples, text for paths
    was = read_object(path)
    files = (name for _, _, names in os.walk(folder) for name in names)  # others may end, and their claims go, meanwhile
    if was is None or not (any(name.endswith(".txt") for name in files) or anybody_at_work(folder)):
        write_json(path, {**identity, "mstrack": __version__})
        return
    differing = [key for key, value in identity.items() if was.get(key, UNSAID.get(key)) != value]
    if differing == ["missing"] and was.get("missing") == "error":
        write_json(path, {**was, "missing": identity["missing"]})
    elif differing:
        detail = "; ".join(f"{key}: {was.get(key)} there, {identity[key]} now" for key in differing)
        raise UserError(f"{folder} holds results of another run ({detail}). Name another folder with --out, or remove it.")
