"""A tracker over many sequences, resumable, then the scores: two stages with a result folder between them."""

import hashlib
import json
import multiprocessing
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mstrack import __version__, checkpoint
from mstrack.data import Sequence, arguments_of, load_sequences
from mstrack.data.sequence import check_policy
from mstrack.data.splits import describe_list
from mstrack.data.truths import Truth, truths_of
from mstrack.distributed import choose_device, torchrun_rank
from mstrack.errors import UserError
from mstrack.metrics.ope import SequenceScore, Summary
from mstrack.metrics.protocols import find_protocol, metrics_of, protocol_of
from mstrack.models.network import Network
from mstrack.rawresults import RawResults
from mstrack.report import Method, Report, table_rows, write_report
from mstrack.results import Track, read_json, read_track, write_json, write_track
from mstrack.scoring import describe, score_results, stamp
from mstrack.tracker import Clock, follow

Progress = Callable[[int, int, str], None]
POLL = 0.5
"""Seconds between two looks for the results of other processes."""


@dataclass(frozen=True)
class Evaluation:
    """A tracker's results on some sequences.

    Attributes:
        sequences: What was tracked.
        tracks: Boxes and confidences, by name of the sequence.
        scores: One per sequence, in their order.
        summary: Mean measures and curves.
        fps: Frames per second from file to box, all workers together; None when nobody measured.
        network_fps: The network alone, likewise.
        protocol: Name of the scoring convention.
        folder: Where the results lie.
    """

    sequences: list[Sequence]
    tracks: dict[str, Track]
    scores: list[SequenceScore]
    summary: Summary
    fps: float | None
    network_fps: float | None
    protocol: str
    folder: Path


def evaluate(
    model: Network | str | Path,
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
) -> Evaluation:
    """Track every sequence of a split and score the results.

    Under torchrun each process tracks its share of the sequences, on any number of machines that see the same `out`; all of
    them wait for the others' results, and the first one writes the scores.

    Args:
        model: A network, a checkpoint file, or the name of a shipped weight.
        on: A dataset of the catalogue, `module:function`, or a folder of your own data.
        out: Folder of the results; sequences that are finished there are not tracked again.
        split: Which split.
        root: The dataset's folder; None: it is looked for below `data_root`.
        modality: The second modality; None: the one the checkpoint was trained with.
        batch: Sequences tracked in lock step by a worker.
        workers: Processes (on the CPU, each with its share of the cores).
        device: `cpu`, `cuda`, or `auto`.
        progress: Called with (sequences done, all, text).
        encoding: What is made of the second modality's files; None: as the checkpoint was trained.
        missing: The policy for frames without their second modality, see `sequence.fill`.
        arguments: Further keyword arguments of the dataset function; a recipe for events that is not among them is the one
            that the checkpoint was trained with.
        data_root: Where datasets are looked for; None: `$MST_DATA`, or `./data`.
        strict: Whether sequences of the split's list that are not on disk are an error rather than a warning.
        protocol: Name of the scoring convention; None: that of the dataset's published numbers.

    Raises:
        UserError: Unknown names; or `out` holds results of another checkpoint, policy or list.
    """
    convention = find_protocol(protocol or protocol_of(on)).name
    network = model if isinstance(model, Network) else checkpoint.load(model)
    modality, encoding = modality or trained_modality(network), encoding or trained_encoding(network)
    given = dict(arguments or {})
    recipe = trained_recipe(network)
    if recipe is not None and "events" in arguments_of(on):
        given.setdefault("events", recipe)
    sequences = list(load_sequences(on, split, root, modality, given, encoding, data_root))
    used = describe_list(on, split, sequences)
    if strict and "of" in used:
        raise UserError(f"{used['name']}: {used['sequences']} of {used['of']} sequences can be read, and all are asked for.")
    folder = Path(out)
    reading = {"modality": modality, "encoding": encoding, "missing": check_policy(missing), "dataset arguments": given}
    _claim(folder, {"dataset": on, "split": split, **reading, **_identity(network), "list": used})
    speed = track_sequences(network, sequences, folder, batch, workers, device, progress, missing)
    truths = truths_of(sequences, on, split, root, data_root)
    return score_folder(folder, sequences, truths, on, split, convention, speed)


def trained_modality(network: Network) -> str:
    """The second modality that a network's provenance names; `thermal` where it names none."""
    named = _trained_on(network).get("modality", "thermal")
    return "thermal" if named == "rgb" else named


def trained_encoding(network: Network) -> str | None:
    """What the second modality's files were turned into when a network was trained; None where its provenance is silent."""
    return _trained_on(network).get("encoding")


def trained_recipe(network: Network) -> str | None:
    """How events were made into frames when a network was trained; None where its provenance does not say one recipe."""
    named = {source.get("arguments", {}).get("events") for source in _trained_on(network).get("train", ())}
    return named.pop() if len(named) == 1 else None


def _trained_on(network: Network) -> dict[str, Any]:
    """The section `data` of the configuration in a network's provenance."""
    provenance = getattr(network, "provenance", None) or {}
    return provenance.get("config", {}).get("data", {})


class Speed(NamedTuple):
    """Frames per second, all workers together."""

    file_to_box: float
    """With reading, cropping and writing."""
    network: float | None
    """See `tracker.Clock`."""


def track_sequences(
    network: Network,
    sequences: list[Sequence],
    folder: Path,
    batch: int = 32,
    workers: int = 1,
    device: str = "auto",
    progress: Progress | None = None,
    missing: str = "error",
) -> Speed | None:
    """Stage 1: one result file per sequence that has none; returns how fast it went, None where there was nothing to do."""
    rank, world = torchrun_rank()
    longest_first = sorted(sequences, key=len, reverse=True)
    share = [s for s in longest_first[rank::world] if not _is_tracked(folder, s)]
    started, done = time.perf_counter(), sum(_is_tracked(folder, s) for s in sequences)
    clock = Clock()

    def keep(sequence: Sequence, track: Track) -> None:
        nonlocal done
        write_track(folder, sequence.name, track)
        done += 1
        if progress is not None:
            progress(done, len(sequences), sequence.name)

    if share and workers <= 1:
        network = network.to(choose_device(device))
        for sequence, track in follow(network, share, batch=batch, missing=missing, clock=clock):
            keep(sequence, track)
    elif share:
        _track_in_processes(network, share, batch, workers, device, missing, keep, clock)
    seconds = time.perf_counter() - started
    while world > 1:
        done = sum(_is_tracked(folder, s) for s in sequences)
        if progress is not None:
            progress(done, len(sequences), "waiting for the other processes")
        if done == len(sequences):
            break
        time.sleep(POLL)
    if not share:
        return None
    return Speed(world * sum(len(s) for s in share) / seconds, clock.fps and world * clock.fps)


def _is_tracked(folder: Path, sequence: Sequence) -> bool:
    return (folder / f"{sequence.name}.txt").is_file()


def score_folder(
    folder: Path,
    sequences: list[Sequence],
    truths: list[Truth],
    dataset: str,
    split: str,
    protocol: str,
    speed: Speed | None = None,
) -> Evaluation:
    """Stage 2: score a result folder and write `scores.json` beside the results.

    Raises:
        UserError: A sequence has no result, or its result another number of rows; the protocol does not take it.
    """
    tracks = {}
    for sequence in sequences:
        track = read_track(folder, sequence.name)
        if track is None or len(track.boxes) != len(sequence):
            found = "no result" if track is None else f"{len(track.boxes)} rows"
            raise UserError(
                f"{folder}, sequence '{sequence.name}': {found}, expected {len(sequence)} rows. Remove it and track again."
            )
        tracks[sequence.name] = track
    results = RawResults(folder.name, tracks, "mst eval")
    scored = score_results(results, truths, protocol, "longterm" in metrics_of(dataset))
    stored = read_json(folder / "scores.json") or {}
    speeds = speed._asdict() if speed is not None else stored.get("fps") or {"file_to_box": None, "network": None}
    described = {key: value for key, value in describe(scored).items() if key not in ("recognised", "lacking")}
    described |= {"fps": speeds, "frames without second modality": sum(len(track.lacking) for track in tracks.values())}
    if torchrun_rank()[0] == 0:
        write_json(folder / "scores.json", {**described, "stamp": stamp(dataset, split, truths, protocol)})
    # Rows that a reader has cut off in front are scored by the protocol, but are no frames of the sequence.
    scores = [replace(score, iou=score.iou[s.first :]) for s, score in zip(sequences, scored.scores.values(), strict=True)]
    return Evaluation(sequences, tracks, scores, scored.summary, speeds["file_to_box"], speeds["network"], protocol, folder)


def write_single_report(result: Evaluation, name: str, dataset: str) -> tuple[Path, tuple[list[str], list[list[str]]]]:
    """`report.html` beside the results of one tracker; returns its path, and the table as headers and rows."""
    tracked = {sequence: track.boxes for sequence, track in result.tracks.items()}
    report = Report(
        title=f"{name} on {dataset}",
        subtitle=f"{len(result.sequences)} sequences, {result.summary.frames} scored frames",
        methods=[Method(name, name, result.scores, result.fps, tracked)],
        sequences=result.sequences,
        settings={key: str(value) for key, value in read_json(result.folder / "run.json").items()},
        protocol=result.protocol,
        reproduce=[f"mst eval {name} --on {dataset}"],
    )
    write_report(result.folder / "report.html", report)
    return result.folder / "report.html", table_rows(report)


def _track_in_processes(
    network: Network,
    waiting: list[Sequence],
    batch: int,
    workers: int,
    device: str,
    missing: str,
    keep: Callable[[Sequence, Track], None],
    clock: Clock,
) -> None:
    """Share sequences out to processes that each hold the network; results come back as they finish."""
    groups = [waiting[i : i + batch] for i in range(0, len(waiting), batch)]
    if len(groups) < workers:
        groups = [group for group in (waiting[i::workers] for i in range(workers)) if group]
    threads = max(1, torch.get_num_threads() // workers)
    context = multiprocessing.get_context("spawn")
    state = {key: value.cpu() for key, value in network.state_dict().items()}
    start = (network.name, network.arguments, state, device, threads)
    with ProcessPoolExecutor(min(workers, len(groups)), context, _start_worker, start) as pool:
        futures = [pool.submit(_follow_group, group, missing) for group in groups]
        for future in as_completed(futures):
            tracked, own = future.result()
            clock.frames += own.frames
            clock.seconds += own.seconds / min(workers, len(groups))  # they run at the same time
            for sequence, track in tracked:
                keep(sequence, track)


_worker: dict[str, Network] = {}


def _start_worker(name: str, arguments: dict[str, Any], state: dict[str, torch.Tensor], device: str, threads: int) -> None:
    from mstrack.models import create_model

    torch.set_num_threads(threads)
    network = create_model(name, **arguments)
    network.load_state_dict(state)
    _worker["network"] = network.to(choose_device(device))


def _follow_group(group: list[Sequence], missing: str) -> tuple[list[tuple[Sequence, Track]], Clock]:
    clock = Clock()
    return list(follow(_worker["network"], group, batch=len(group), missing=missing, clock=clock)), clock


def _claim(folder: Path, identity: dict[str, Any]) -> None:
    """Write or compare `run.json`: results of two checkpoints or lists never mix in one folder."""
    path = folder / "run.json"
    was = read_json(path)
    if was is None:
        write_json(path, {**identity, "mstrack": __version__})
        return
    differing = [key for key, value in identity.items() if was.get(key) != value]
    if differing:
        detail = "; ".join(f"{key}: {was.get(key)} there, {identity[key]} now" for key in differing)
        raise UserError(f"{folder} holds results of another run ({detail}). Name another folder with --out, or remove it.")


def _identity(network: Network) -> dict[str, Any]:
    """Name, arguments and a hash of all weights."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return {"model": network.name, "arguments": json.loads(json.dumps(network.arguments)), "weights": digest.hexdigest()[:16]}
