"""`train()`: from a configuration to a checkpoint. The loop, one function per phase, read top to bottom."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mstrack import distributed
from mstrack.assembly import (
    batch_losses,
    build_model,
    build_optimizer,
    describe_lists,
    pair_dataset,
    prepare_blocks,
    read_sources,
    set_mode,
    split,
    warn_of_overlap,
)
from mstrack.backends.precision import keep_float32, warn_of_emulation
from mstrack.config import Config, load_config
from mstrack.data.sampling import Batch, batches_of, load_keys
from mstrack.distributed import Place
from mstrack.errors import UserError
from mstrack.footprint import refuse_what_does_not_fit
from mstrack.joining import average_gradients, join_processes, share_statistics
from mstrack.journal import Journal, Watch
from mstrack.recorded import RecordedPass
from mstrack.runfiles import occupy, resume, save_model, save_state
from mstrack.sensitivity import measure_trained
from mstrack.tuning import TunedAdamW
from mstrack.validation import validate

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what is to be said)."""


def train(
    recipe: Config | str | Path | Mapping[str, Any],
    overrides: Iterable[str] = (),
    progress: Progress | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Path:
    """Train as a recipe says; a run that was interrupted goes on where its last saved state stands.

    Args:
        recipe: A `Config`, a YAML file, the name of a shipped recipe, or a mapping.
        overrides: `section.key=value`.
        progress: Called after each step.
        interrupted: Asked after each step; when true the state is saved and the run returns.

    Returns:
        The checkpoint `model.safetensors` in the folder of the run; it is not there yet where `interrupted` ended the run.

    Raises:
        UserError: Anything wrong with the recipe, the data, the weights or the folder.
        TrainingError: The loss is not finite; names the sequences of the batches at fault.
    """
    config = recipe if isinstance(recipe, Config) else load_config(recipe, overrides)
    place = distributed.start(config.run.device, config.run.timeout)
    try:
        with occupy(config, place), ExitStack() as ending:
            made = _run(config, place, progress or (lambda done, total, text: None), interrupted, ending)
    except RuntimeError as error:
        if config.run.compile and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            reason = str(error).splitlines()[0]
            raise UserError(
                f"the blocks cannot be compiled here ({reason}). run.compile=false runs them as they are."
            ) from error
        raise
    distributed.stop()  # not where something went wrong: leaving waits for the others, which may wait for this one
    return made


def _run(config: Config, place: Place, progress: Progress, interrupted: Callable[[], bool], ending: ExitStack) -> Path:
    out, settings = config.run.out, config.train
    made = out / "model.safetensors"

    # ---- what is trained on what
    torch.manual_seed(settings.seed)
    keep_float32(place.device)
    if settings.precision == "bf16" and place.first:
        warn_of_emulation(place.device)
    network = build_model(config).to(place.device)
    optimizer = build_optimizer(network, config)
    footage, held_out = (read_sources(sources, config) for sources in (config.data.train, config.data.val))
    warn_of_overlap(footage, held_out)
    lists = describe_lists([*footage, *held_out])
    _check_choices(optimizer, config)
    pairs = pair_dataset(config, network, footage, settings.seed, training=True)
    share = _share(config, place)
    model = join_processes(network, place, recorded=config.run.graph)

    # ---- where the run stands
    steps_per_epoch = settings.samples // settings.batch
    if steps_per_epoch < 1:
        raise UserError(f"train.samples = {settings.samples} is less than one batch (train.batch = {settings.batch}).")
    total = steps_per_epoch * settings.epochs
    step, best = resume(config, network, optimizer, place)
    if optimizer.unmeasured:
        progress(step, total, "measuring sensitivities")
        batches = optimizer.tuning.batches
        optimizer.receive(measure_trained(network, config, footage, optimizer.trained, batches, share, place))
    lost = torch.tensor(step == total and not made.is_file(), device=place.device)
    if distributed.any_rank(lost):  # a finished run has lost its checkpoint
        choice, reached = _validate(optimizer, lambda: validate(network, config, held_out, place), True)
        with optimizer.evaluation_weights(choice):
            save_model(made, network, config, lists, step, reached, choice, place)
    prepare_blocks(network, config)
    if step < total:
        with _uncompiled(config):
            refuse_what_does_not_fit(network, config, share)
    recorded = record_passes(model, config, place)
    journal = ending.enter_context(closing(Journal(out, step, config.run.tensorboard, place.first)))
    watch = Watch(place.device)
    parts = load_keys(pairs, _plan(config, place, share, step), config.run.workers, pin=place.device.type == "cuda")
    saved = step
    stopping = False

    # ---- the loop
    while step < total and not stopping:
        epoch = step // steps_per_epoch
        set_mode(network)
        while step < (epoch + 1) * steps_per_epoch and not stopping:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate(step, steps_per_epoch, config)
            take_step(model, optimizer, parts, watch, config, place, step, recorded)
            step += 1

            asked = interrupted()
            if step % config.run.log_every == 0 or step % steps_per_epoch == 0 or (asked and place.world == 1):
                stopping = bool(distributed.any_rank(torch.tensor(asked, device=place.device)))
                values = watch.read()
                journal.write(step, {f"train/{k}": v for k, v in values.items()} | {"lr": optimizer.param_groups[0]["lr"]})
                progress(step, total, f"loss {values['total']:.3f}")
            else:
                progress(step, total, "")
            within = step % steps_per_epoch != 0  # at its end the state is saved after what is done there
            if within and (stopping or step - saved >= config.run.save_every):
                watch.check()  # batch norms that learn may have averaged what was not finite
                save_state(config, network, optimizer, step, best, place)
                saved = step

        # ---- the end of an epoch
        if step % steps_per_epoch == 0:
            epoch = step // steps_per_epoch
            scores: dict[str, float] = {}
            if epoch % settings.validate_every == 0 or step == total:
                share_statistics(network)
                with _uncompiled(config):
                    choice, scores = _validate(optimizer, lambda: validate(network, config, held_out, place), step == total)
                journal.write(step, {f"val/{k}": v for k, v in scores.items()})
                progress(step, total, ", ".join(f"val {k} {v:.2f}" for k, v in scores.items()))
                with optimizer.evaluation_weights(choice):
                    if "SR" in scores and scores["SR"] > best:
                        best = scores["SR"]
                        save_model(out / "best.safetensors", network, config, lists, step, scores, choice, place)
                    if step == total:
                        save_model(made, network, config, lists, step, scores, choice, place)
            if config.run.keep and epoch % config.run.keep == 0:
                with optimizer.evaluation_weights():
                    save_model(out / "kept" / f"{epoch:04d}.safetensors", network, config, lists, step, {}, None, place)
            if scores or stopping or step == total or step - saved >= config.run.save_every:
                save_state(config, network, optimizer, step, best, place)
                saved = step
    return made


# ---------------------------------------------------------------- the plan
def rate(step: int, steps_per_epoch: int, config: Config) -> float:
    """Factor of the learning rate at a step (from 0): warm-up, then steps or a cosine down to 0."""
    settings = config.train
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    if settings.schedule == "cosine":
        total = steps_per_epoch * settings.epochs
        return 0.5 * (1 + math.cos(math.pi * (step - settings.warmup) / max(1, total - settings.warmup)))
    dropped = settings.drop_epoch is not None and step // steps_per_epoch >= settings.drop_epoch
    return settings.drop_factor if dropped else 1.0


def _plan(config: Config, place: Place, share: int, step: int) -> Iterator[tuple[int, list[int]]]:
    """Epoch and indices of all that this process computes from a step on, `share` pairs at once."""
    settings = config.train
    first, done = divmod(step, settings.samples // settings.batch)
    for epoch in range(first, settings.epochs):
        batches = batches_of(settings.samples, settings.batch, place.rank, place.world, skip=done if epoch == first else 0)
        yield from ((epoch, part) for batch in batches for part in split(batch, share))


def _share(config: Config, place: Place) -> int:
    """How many pairs a process computes at once."""
    parts = place.world * config.train.accumulate
    if config.train.batch % parts:
        raise UserError(
            f"train.batch = {config.train.batch} is the global batch and must be a multiple of processes x train.accumulate"
            f" = {place.world} x {config.train.accumulate}."
        )
    return config.train.batch // parts


def _check_choices(optimizer: TunedAdamW, config: Config) -> None:
    """Refuse a method whose choice validation is to make where nothing is validated."""
    choices, settings = optimizer.tuning.choices, config.train
    if choices and not (config.data.val and (settings.val_clips or settings.val_samples)):
        raise UserError(
            f"tuning '{config.tuning.name}' lets validation choose among {', '.join(f'{c:g}' for c in choices)}, and nothing is"
            " validated: give data.val, and train.val_clips or train.val_samples; or one value instead of several."
        )


# ---------------------------------------------------------------- a step
def take_step(
    model: nn.Module,
    optimizer: TunedAdamW,
    parts: Iterator[Batch],
    watch: Watch,
    config: Config,
    place: Place,
    step: int,
    recorded: RecordedPass | None = None,
) -> None:
    """One step of the optimizer on the next parts of a batch. Nothing in here waits for the device.

    Args:
        model: The network, or its wrapper for several processes.
        optimizer: Of its parameters.
        parts: `train.accumulate` of them are taken.
        watch: Is told the loss terms, and whether the step was skipped because something was not finite.
        config: The configuration.
        place: This process.
        step: Which one, from 0; with the seed it decides what is drawn on the device.
        recorded: What computes the gradients of a part, where it is recorded.
    """
    settings = config.train
    for part in range(settings.accumulate):
        batch = next(parts)
        torch.manual_seed(hash((settings.seed, step, part, place.rank)) & 0x7FFFFFFF)
        last = part == settings.accumulate - 1
        terms = _backward(model, batch, config, place, sync=last) if recorded is None else recorded(batch)
        watch.add(terms, batch.names)
    if recorded is not None:
        average_gradients(model)
    optimizer.change_gradients()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
    bad = distributed.any_rank(~torch.isfinite(norm) | ~watch.finite())
    optimizer.step(skip=bad)
    optimizer.zero_grad()
    watch.mark(bad)


def _uncompiled(config: Config) -> AbstractContextManager[Any]:
    """Inside, compiled blocks run as they are written: validation has other shapes, and few of each."""
    return torch.compiler.set_stance("force_eager") if config.run.compile else nullcontext()


def _backward(model: nn.Module, batch: Batch, config: Config, place: Place, sync: bool) -> dict[str, torch.Tensor]:
    """Gradients of one part of the batch; the loss terms, detached."""
    if isinstance(model, DistributedDataParallel):
        model.require_backward_grad_sync = sync
    terms = batch_losses(model, batch, config, place.device)
    (terms["total"] / config.train.accumulate).backward()
    return {name: value.detach() for name, value in terms.items()}


def record_passes(network: nn.Module, config: Config, place: Place) -> RecordedPass | None:
    """What computes gradients where `run.graph` says so; all processes then start from the weights of the first."""
    if not config.run.graph:
        return None
    distributed.copy_from_first(network.state_dict().values())
    backward = partial(_backward, network, config=config, place=place, sync=False)
    return RecordedPass(backward, network.parameters(), place.device)


# ---------------------------------------------------------------- what is evaluated
def _validate(
    optimizer: TunedAdamW, score: Callable[[], dict[str, float]], last: bool
) -> tuple[float | None, dict[str, float]]:
    """Scores of the weights that the tuning method evaluates; after the last step the best of its choices, and which it is."""
    tried: list[tuple[float | None, dict[str, float]]] = []
    for choice in (optimizer.tuning.choices if last else ()) or (None,):
        with optimizer.evaluation_weights(choice):
            tried.append((choice, score()))
    return max(tried, key=lambda row: (row[1].get("SR", 0.0), -row[1].get("loss", 0.0)))
