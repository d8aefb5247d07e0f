"""A tracker as the VOT toolkit runs it: a process that answers TraX messages; see `mstrack.trax` for these."""

import sys
from pathlib import Path

import numpy as np

from mstrack.data.sequence import Frame, Sequence
from mstrack.errors import UserError, warn
from mstrack.registry import unknown
from mstrack.trax import VERSION, Message, Stream, open_stream, parse_path, parse_rectangle

CHANNELS = {"rgb": ("color",), "depth": ("color", "depth"), "thermal": ("color", "ir")}
"""The toolkit's channels for each second modality; it has none for events."""


def run(checkpoint: str, modality: str | None = None, device: str = "auto", missing: str = "error") -> None:
    """Answer a client on the standard streams, or at `$TRAX_SOCKET`, until it quits.

    The tracker introduces itself before it loads anything heavy, as clients wait only so long for it.

    Args:
        checkpoint: A checkpoint file, or the name of a shipped weight.
        modality: Its second modality, a key of `CHANNELS`; None: as trained, which takes loading it first.
        device: Where it runs.
        missing: What it is fed for a frame without second modality, see `sequence.fill`.

    Raises:
        UserError: The checkpoint cannot be used, or a message or an image; the client is told why.
    """
    if sys.stdin.isatty():
        print("This speaks TraX with the VOT toolkit, which starts it: see `mst vot init`.", file=sys.stderr)
    with open_stream() as stream:
        try:
            _answer(stream, checkpoint, modality, device, missing)
        except Exception as error:
            what = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            _say_why(stream, what)
            raise


def _answer(stream: Stream, checkpoint: str, modality: str | None, device: str, missing: str) -> None:
    if modality is not None:
        _introduce(stream, checkpoint, check_modality(modality))

    from mstrack.checkpoint import load
    from mstrack.distributed import choose_device
    from mstrack.provenance import trained_encoding, trained_modality
    from mstrack.tracker import TrackerBatch

    model = load(checkpoint)
    if modality is None:
        modality = check_modality(trained_modality(model) if model.modalities > 1 else "rgb")
        _introduce(stream, checkpoint, modality)
    encoding = trained_encoding(model) if modality == trained_modality(model) else None
    tracker = TrackerBatch(model, choose_device(device), missing=missing)
    channels, used = CHANNELS[modality], modality if model.modalities > 1 else "rgb"
    count, name = 0, ""
    while (message := stream.receive()).kind != "quit":
        if message.kind == "initialize":
            _report(tracker.lacking, name, count, used, missing)
            *images, region = _take(message, (*channels, "region"))
            box = parse_rectangle(region)
            count, name = 1, f"the sequence from {parse_path(images[0])}"
            tracker.init([_read(images, used, encoding)], [box], [name])
            stream.send("state", _rectangle(box), confidence="1")
        elif message.kind == "frame" and count:
            boxes, scores = tracker.update([_read(_take(message, channels), used, encoding)])
            count += 1
            stream.send("state", _rectangle(boxes[0].tolist()), confidence=f"{scores[0]:.9g}")
        else:
            raise UserError(f"TraX: '{message.kind}' out of turn; expected initialize, frame (after that) or quit.")
    _report(tracker.lacking, name, count, used, missing)


def check_modality(modality: str) -> str:
    """The modality itself.

    Raises:
        UserError: The toolkit has no channel for it.
    """
    if modality not in CHANNELS:
        reason = "the VOT toolkit sends color, depth and ir, no events" if modality == "event" else "there is no such modality"
        raise UserError(f"{reason}; {unknown('modality', modality, CHANNELS)}")
    return modality


def _introduce(stream: Stream, checkpoint: str, modality: str) -> None:
    stream.send(
        "hello",
        trax__version=str(VERSION),
        trax__name=Path(checkpoint).stem,
        trax__family="mstrack",
        trax__image="path",
        trax__region="rectangle",
        trax__channels=";".join(CHANNELS[modality]),
    )


def _take(message: Message, wanted: tuple[str, ...]) -> tuple[str, ...]:
    if len(message.arguments) != len(wanted):
        raise UserError(f"TraX: '{message.kind}' has {len(message.arguments)} argument(s), expected {', '.join(wanted)}.")
    return message.arguments


def _read(images: tuple[str, ...] | list[str], modality: str, encoding: str | None) -> Frame:
    """The frame of some paths, read as those of any dataset are."""
    paths = [parse_path(image) for image in images]
    aux = None if modality == "rgb" else paths[1:2]
    alone = Sequence(paths[0].name, paths[:1], np.full((1, 4), np.nan), np.zeros(1, bool), aux, modality, encoding=encoding)
    return alone.frame(0)


def _rectangle(box: tuple[float, ...] | list[float]) -> str:
    return ",".join(f"{value:.6f}" for value in box)


def _report(lacking: list[list[int]], name: str, count: int, modality: str, missing: str) -> None:
    if count and lacking[0]:
        warn(name, "lacking", f"{len(lacking[0])} of {count} frames lacked their {modality}: --missing {missing}.")


def _say_why(stream: Stream, reason: str) -> None:
    try:
        stream.send("quit", trax__reason=reason)
    except UserError:
        return
