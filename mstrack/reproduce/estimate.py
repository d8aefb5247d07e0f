"""How long jobs will take: a few training steps and tracked frames of each distinct network, timed on this machine."""

import json
import time
from collections.abc import Callable, Mapping
from collections.abc import Sequence as List
from functools import partial
from typing import Any, NamedTuple

import torch

from mstrack.assembly import Footage, batch_losses, build_optimizer, pair_dataset, read_sources, set_mode, split
from mstrack.config import Config
from mstrack.data import Sequence, load_sequences
from mstrack.data.roots import locate
from mstrack.data.sampling import Batch, load_batches
from mstrack.data.splits import read_list
from mstrack.data.synthetic import SPLITS
from mstrack.distributed import choose_device
from mstrack.lockstep import follow
from mstrack.models import create_model
from mstrack.models.cost import count_flops
from mstrack.models.network import Network
from mstrack.reproduce.jobs import Job
from mstrack.reproduce.running import Crew
from mstrack.tuning import TunedAdamW

Clock = Callable[[], float]

STEPS = 3
CLIPS, FRAMES = 32, 8
"""Sequences that are tracked in lock step, and frames of each, to time it."""
BACKWARD = 3
"""Operations of a training step over those of the forward pass."""
SLOW = 2e10
"""Operations of a forward pass above which a network is not timed on a CPU, but counted."""
LENGTH = 900
"""Frames of a test sequence that is not there: LasHeR's 245 have 220,703."""
START = 1.0
"""Seconds that a job needs besides: reading lists, building the network, saving."""


class Speed(NamedTuple):
    """Seconds of one optimizer step, of one tracked frame, and of one validation pair."""

    step: float
    frame: float
    pair: float


class Estimate(NamedTuple):
    """What is to be done, and how long it will take.

    Attributes:
        seconds: Of the clock, with all processes at work.
        each: Of each job that is not done, by the name of its folder, on one process.
        counted: Whether the speed of a network was derived from its operations.
    """

    seconds: float
    each: dict[str, float]
    counted: bool


def estimate(stages: List[List[Job]], crew: Crew, clock: Clock = time.perf_counter) -> Estimate:
    """Time what each kind of job does, and add it up.

    Args:
        stages: Jobs; those of a stage run after all of the stage before. What is done is left out.
        crew: Who does them: they are timed side by side too, as they share the machine.
        clock: Seconds; `time.process_time` is that of an idle machine, on one core.
    """
    waiting = [[job for job in stage if not job.done] for stage in stages]
    kinds: dict[str, Job] = {}
    for job in (job for stage in waiting for job in stage):
        kinds.setdefault(_kind(job), job)
    tasks = [(kind, job, clock) for kind, job in kinds.items()]
    tasks *= -(-crew.processes // len(tasks)) if tasks else 0
    found = list(crew.spread(_time, tasks))
    speeds = {kind: Speed(*(sum(values) / len(values) for values in zip(*_of(found, kind), strict=True))) for kind in kinds}
    lengths: dict[str, int] = {}
    each: dict[str, float] = {}
    total = 0.0
    for stage in waiting:
        seconds = [_seconds(job, speeds[_kind(job)], lengths) for job in stage]
        each |= {job.name: taken for job, taken in zip(stage, seconds, strict=True)}
        total += max(max(seconds, default=0), sum(seconds) / crew.processes)
    return Estimate(total, each, any(counted for _, _, counted in found))


def say_duration(seconds: float) -> str:
    """For people: `40 seconds`, `12 minutes`, `1.5 hours`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} seconds"
    if seconds < 5400:
        return f"{round(seconds / 60)} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 36000 else f"{seconds / 3600:,.0f} hours"


def _of(found: List[tuple[str, Speed, bool]], kind: str) -> list[Speed]:
    return [speed for name, speed, _ in found if name == kind]


def _kind(job: Job) -> str:
    """What decides how fast a job goes: the network, which of it trains, the batch."""
    config = job.config
    trained = [config.tuning.parameters, config.train.batch, config.train.accumulate] if job.train else None
    return json.dumps([config.model.name, config.model.arguments, trained], sort_keys=True)


def _seconds(job: Job, speed: Speed, lengths: dict[str, int]) -> float:
    settings = job.config.train
    seconds = START
    if job.train:
        looks = -(-settings.epochs // settings.validate_every)
        seconds += settings.epochs * (settings.samples // settings.batch) * speed.step
        seconds += looks * (settings.val_samples * speed.pair + settings.val_clips * settings.val_frames * speed.frame)
    if job.tests is not None:
        key = json.dumps([job.tests["on"], job.tests.get("split"), job.tests.get("arguments")])
        lengths.setdefault(key, _count_frames(job.tests))
        seconds += (1 + len(job.kept)) * lengths[key] * speed.frame
    return seconds


def _count_frames(tests: Mapping[str, Any]) -> int:
    """Frames of all sequences that are tested on; by the length of the list where they are not there."""
    if tests["on"] == "synthetic":
        sequences, frames = SPLITS["test"]
        return int(tests["arguments"].get("sequences", sequences) * tests["arguments"].get("frames", frames))
    if ":" not in tests["on"] and not locate(tests["on"], tests["data_root"]):
        return LENGTH * len(read_list(tests["on"], tests["split"]).names)
    return sum(len(sequence) for sequence in _load_tests(tests))


def _load_tests(tests: Mapping[str, Any]) -> List[Sequence]:
    given = {key: tests.get(key) for key in ("modality", "arguments", "data_root")}
    return load_sequences(tests["on"], tests.get("split", "test"), **given)


# ---------------------------------------------------------------- the clock
def _time(task: tuple[str, Job, Clock], device: str) -> tuple[str, Speed, bool]:
    """Speed of a kind of job, and whether it was counted rather than timed."""
    kind, job, clock = task
    config, place = job.config, choose_device(device)
    with torch.device("meta"):
        operations = count_flops(create_model(config.model.name, **config.model.arguments)).total
    if place.type == "cpu" and operations > SLOW:
        return kind, _count(operations, config, clock), True
    network: Network = create_model(config.model.name, **config.model.arguments).to(place)
    there = all(source.name == "synthetic" or locate(source.name, config.run.data_root) for source in config.data.train)
    footage = read_sources(config.data.train, config) if there and job.train else []
    step, pair = _time_training(network, config, footage, clock) if job.train else (0.0, 0.0)
    return kind, Speed(step, _time_tracking(network, job, there, clock), pair), False


def _time_training(network: Network, config: Config, footage: list[Footage], clock: Clock) -> tuple[float, float]:
    """Seconds of an optimizer step and of the forward pass of one pair; with random crops where there is no data."""
    device = next(network.parameters()).device
    optimizer = build_optimizer(network, config)
    if optimizer.unmeasured:
        optimizer.receive({name: torch.ones_like(parameter) for name, parameter in optimizer.trained.items()})
    size = config.train.batch // config.train.accumulate
    plan = split(list(range((STEPS + 1) * size)), size)
    reading = 0.0
    if footage:
        pairs = pair_dataset(config, network, footage, config.train.seed, training=True)
        started = clock()
        batches = list(load_batches(pairs, 0, plan, workers=0))
        reading = (clock() - started) / len(plan)
    else:
        batches = [_random_batch(network, size)] * len(plan)
    set_mode(network)
    step = partial(_step, network, optimizer, config)
    step(batches[0])
    computing = _measure(lambda: [step(batch) for batch in batches[1:]], device, clock) / STEPS
    network.eval()
    with torch.no_grad():
        pair = _measure(lambda: batch_losses(network, batches[0], config, device), device, clock) / size
    workers = config.run.workers
    part = computing + reading if workers == 0 else max(computing, reading / workers)
    return config.train.accumulate * part, pair


def _step(network: Network, optimizer: TunedAdamW, config: Config, batch: Batch) -> None:
    batch_losses(network, batch, config, next(network.parameters()).device)["total"].backward()
    optimizer.change_gradients()
    torch.nn.utils.clip_grad_norm_(network.parameters(), config.train.clip)
    optimizer.step()
    optimizer.zero_grad()


def _time_tracking(network: Network, job: Job, there: bool, clock: Clock) -> float:
    """Seconds of a frame from file to box; of the network alone where there is no data."""
    tests = job.tests
    device = next(network.parameters()).device
    if tests is None or not (there and (tests["on"] == "synthetic" or locate(tests["on"], tests["data_root"]))):
        batch = _random_batch(network, 8)
        images = [part.to(device).float() for part in (batch.template, batch.search)]
        network.eval()
        with torch.no_grad():
            network(*images)
            return _measure(lambda: network(*images), device, clock) / len(images[0])
    clips = [sequence.cut(0, min(FRAMES, len(sequence))) for sequence in list(_load_tests(tests))[:CLIPS]]
    for _ in follow(network, [clip.cut(0, min(2, len(clip))) for clip in clips]):
        pass
    return _measure(lambda: list(follow(network, clips)), device, clock) / sum(map(len, clips))


def _random_batch(network: Network, size: int) -> Batch:
    shape = (size, network.modalities, 3)
    crops = [
        torch.randint(0, 255, (*shape, side, side), dtype=torch.uint8) for side in (network.template_size, network.search_size)
    ]
    boxes = torch.tensor([0.4, 0.4, 0.2, 0.2]).repeat(size, 1)
    return Batch(
        crops[0],
        crops[1],
        boxes,
        torch.ones(size, 2, network.modalities, 2),
        torch.ones(size, 2, network.modalities),
        ("",) * size,
    )


def _measure(work: Callable[[], Any], device: torch.device, clock: Clock) -> float:
    def settle() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    settle()
    started = clock()
    work()
    settle()
    return clock() - started


def _count(operations: int, config: Config, clock: Clock) -> Speed:
    """Speed of a network that is too slow to be timed here, by how fast this machine multiplies matrices."""
    a, b = torch.rand(1024, 768), torch.rand(768, 3072)
    a @ b
    rate = 2 * 1024 * 768 * 3072 * 4 / _measure(lambda: [a @ b for _ in range(4)], torch.device("cpu"), clock)
    forward = operations / rate
    return Speed(BACKWARD * forward * config.train.batch, forward, forward)
