"""Doing one job: from its configuration to a finished folder, and whether a folder is of today's configuration."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mstrack.config import Config, dump_config, load_config
from mstrack.errors import UserError
from mstrack.reproduce.jobs import Job
from mstrack.reproduce.weights import fingerprint
from mstrack.results import read_json, write_json, write_text

Progress = Callable[[int, int, str], None]

SOURCE = "weights.json"
"""File of a job's folder that says which published weights it started from."""


class StoppedError(Exception):
    """A job was asked to stop; what it had finished is kept."""


def find_differences(job: Job) -> list[str]:
    """Settings that the job's folder was made with and that are other ones now, in words."""
    path = job.folder / "config.yaml"
    if not path.is_file():
        return []
    was, now = load_config(path), job.config
    differing = []
    for section in (name for name in type(now).model_fields if name != "run"):
        before, after = (getattr(config, section).model_dump(mode="json") for config in (was, now))
        if section == "model":  # the folder may have moved, and its foundation with it
            before["weights"], after["weights"] = (Path(part["weights"] or "").name for part in (before, after))
        keys = [key for key in after if before[key] != after[key]]
        differing += [f"{section}.{key}: {before[key]} there, {after[key]} now" for key in keys]
    if job.tests is not None and (job.folder / "results" / "run.json").is_file():
        ran, wanted = read_json(job.folder / "results" / "run.json"), dict(job.tests.get("arguments", {}))
        if ran["dataset arguments"] != wanted:
            differing.append(f"test: {ran['dataset arguments']} there, {wanted} now")
    source, taken = _somebodys_weights(job, now), read_json(job.folder / SOURCE)
    if source is not None and taken is not None and taken["sha256"] != fingerprint(source):
        differing.append(f"{source} is another file than the one that it started from")
    return differing


def _somebodys_weights(job: Job, config: Config) -> Path | None:
    """The file that a job on real data starts from; the embedded benchmark starts from what is shipped or made beside it."""
    if job.tests is None or job.tests["on"] == "synthetic":
        return None
    file = Path(config.model.weights or "")
    return file if file.is_file() else None


def check_settings(job: Job) -> None:
    """Refuse a folder that was made with other settings than the job has now.

    Raises:
        UserError: It was; names the first three that differ.
    """
    differing = find_differences(job)
    if differing:
        raise UserError(
            f"{job.folder} was made with other settings ({'; '.join(differing[:3])}). Name another folder with --out, or"
            " remove that one."
        )


def run_job(
    job: Job,
    workers: int = 1,
    device: str = "auto",
    progress: Progress | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> None:
    """Do what is left of a job; it may be interrupted at any time and called again.

    Args:
        job: What to do.
        workers: Processes that track.
        device: Where the network runs.
        progress: Called with what is done of the current part, all, and a text.
        interrupted: Asked often; when true the job stops at the next point where nothing is lost.

    Raises:
        StoppedError: It was interrupted.
    """
    from mstrack import checkpoint
    from mstrack.training import train

    def report(done: int, total: int, text: str) -> None:
        if progress is not None:
            progress(done, total, text)
        if interrupted():
            raise StoppedError(job.name)

    config = load_config(job.recipe, (*job.overrides, f"run.device={device}"))
    source = _somebodys_weights(job, config)
    if source is not None and not (job.folder / SOURCE).is_file():
        write_json(job.folder / SOURCE, {"file": source.name, "sha256": fingerprint(source)})
    model: Any = job.folder / "model.safetensors"
    if job.train and not model.is_file():
        train(config, progress=progress, interrupted=interrupted)
        if not model.is_file():
            raise StoppedError(job.name)
    elif not job.train:
        model = checkpoint.load(str(config.model.weights), config.model.name, **config.model.arguments)
        write_text(job.folder / "config.yaml", dump_config(config))
    if job.tests is None:
        return
    for epoch in job.kept:
        kept = job.folder / "kept" / f"{epoch:04d}.safetensors"
        _track(job, checkpoint.load(kept), job.folder / "curve" / kept.stem, workers, device, report)
    _track(job, model, job.folder / "results", workers, device, report)


def _track(job: Job, model: Any, out: Path, workers: int, device: str, progress: Progress) -> None:
    from mstrack.evaluation import evaluate

    if not (out / "scores.json").is_file():
        evaluate(model, out=out, workers=workers, device=device, progress=progress, **(job.tests or {}))
