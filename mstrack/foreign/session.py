"""A tracker that speaks TraX, followed through sequences: what it can take, what it is sent, what it answers."""

import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mstrack.data.sequence import Sequence
from mstrack.errors import UserError, warn
from mstrack.foreign.feeding import FORMS, Pictures
from mstrack.foreign.process import TrackerGoneError, TrackerProcess
from mstrack.results import Track
from mstrack.trax import Message, parse_answer

NEWEST = 4
"""The last version of the protocol that is known."""
CHANNELS = {"depth": ("depth",), "thermal": ("ir",), "event": ("event", "ir")}
"""The channel of each second modality. The protocol has none for events: a tracker may name one, else they come as infrared."""


class Abilities(NamedTuple):
    """What a tracker's hello says that it takes."""

    version: int
    form: str
    """How it is told images, of `feeding.FORMS`."""
    polygons: bool
    """Whether the target must be given as a polygon."""
    channels: tuple[str, ...]

    def takes_aux(self, modality: str) -> bool:
        """Whether it is sent the second modality of sequences that have this one.

        Raises:
            UserError: It asks for a channel that they do not have.
        """
        there = CHANNELS.get(modality, ())
        others = [channel for channel in self.channels if channel != "color"]
        if "color" not in self.channels or len(others) > 1 or not set(others) <= set(there):
            have = " and ".join(("color", *there[:1]))
            raise UserError(
                f"it takes the channels {', '.join(self.channels)}; sequences of {modality} frames have {have}."
                " Choose another --modality, or start the tracker with other channels."
            )
        return bool(others)


def read_hello(hello: Message) -> Abilities:
    """What a tracker introduces itself with.

    Raises:
        UserError: It speaks a later version, or takes no images or regions that it can be given.
    """

    def values(key: str, default: str) -> tuple[str, ...]:
        return tuple(re.findall(r"[^;, ]+", hello.properties.get(key, ""))) or (default,)

    text = hello.properties.get("trax.version", "1")
    if not text.isdecimal() or int(text) > NEWEST:
        raise UserError(f"it speaks version {text} of TraX; versions 1 to {NEWEST} are known")
    images, regions = values("trax.image", "path"), values("trax.region", "rectangle")
    form = next((form for form in FORMS if form in images), None)
    if form is None:
        raise UserError(f"it takes images as {', '.join(images)}; it can be given {', '.join(FORMS)}")
    if "rectangle" not in regions and "polygon" not in regions:
        raise UserError(f"it takes the target as {', '.join(regions)}; it can be given a rectangle or a polygon")
    channels = values("trax.channels", "color") if int(text) > 1 else ("color",)
    return Abilities(int(text), form, "rectangle" not in regions, channels)


class TraxFollower:
    """A tracker behind a command.

    One process serves one sequence after the other. Where it ends, or quits, when it is given a second one (trackers that were
    written for the VOT toolkit do), it is started for each.

    Args:
        command: What starts it, as in a shell.
        properties: Are sent with each `initialize`, as the VOT toolkit does with a tracker's `arguments`.
        timeout: Seconds that it has for each answer.
    """

    batch = 1

    def __init__(self, command: str, properties: Mapping[str, Any] | None = None, timeout: float = 300.0) -> None:
        self._command, self._timeout = command, timeout
        self._properties = {key: str(value) for key, value in (properties or {}).items()}
        self._process: TrackerProcess | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._served, self._one_each, self._told = 0, False, False

    def identify(self) -> dict[str, Any]:
        """The command, and what it is sent."""
        return {"tracker": f"trax:{self._command}", "tracker arguments": self._properties}

    def open(self) -> None:
        """Start it, and hear its hello."""
        with _named(f"tracker '{self._command}'"):
            self._started()

    def close(self) -> None:
        """End it, and remove what was written for it."""
        self._end()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def follow(self, sequences: Iterable[Sequence], missing: str, clock: object) -> Iterator[tuple[Sequence, Track]]:
        """Track sequences from their first box, and yield each when it ends.

        Raises:
            UserError: The tracker dies, is silent for too long, talks nonsense, answers a mask, or refuses (with sequence,
                frame and what it printed last); or a frame cannot be read.
        """
        self.open()
        try:
            for sequence in sequences:
                yield sequence, self._track(sequence, missing)
        except BaseException:
            self.close()
            raise

    def _track(self, sequence: Sequence, missing: str) -> Track:
        boxes, confidence = np.full((len(sequence), 4), np.nan), np.zeros(len(sequence))
        boxes[0], confidence[0] = sequence.boxes[0], 1.0
        with _named(f"sequence '{sequence.name}': tracker '{self._command}'"):
            with_aux = self._abilities.takes_aux(sequence.modality)
            region = self._region(sequence)
        self._tell_unused(sequence, with_aux)
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="mst-trax-")
        pictures = Pictures(sequence, with_aux, self._abilities.form, missing, Path(self._folder.name))
        for frame in range(len(sequence)):
            images = pictures.of(frame)
            with _named(f"sequence '{sequence.name}', frame {frame}: tracker '{self._command}'"):
                if frame == 0:
                    self._begin(images, region)
                else:
                    box, confidence[frame] = self._ask("frame", images)
                    boxes[frame] = np.nan if box is None else box
        pictures.forget()
        return Track(boxes, confidence, tuple(pictures.lacking))

    def _region(self, sequence: Sequence) -> str:
        x, y, w, h = sequence.boxes[0].tolist()
        if not (np.isfinite(sequence.boxes[0]).all() and w > 0 and h > 0):
            raise UserError(f"the first box is {x:g}, {y:g}, {w:g}, {h:g}: nothing can be followed from there.")
        corners = (x, y, x + w, y, x + w, y + h, x, y + h)
        return ",".join(f"{value:.4f}" for value in (corners if self._abilities.polygons else (x, y, w, h)))

    # ---------------------------------------------------------------- messages
    def _started(self) -> TrackerProcess:
        """The process; a new one where there is none."""
        if self._process is None:
            self._process = TrackerProcess(self._command, self._timeout)
            self._served = 0
            try:
                self._abilities = read_hello(self._process.hello)
            except UserError as error:
                refusal = self._process.complain(str(error))
                self._end()
                raise refusal from error
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            process.close()

    def _begin(self, images: list[str], region: str) -> None:
        """Give it a target; in a process of its own where it serves only one."""
        if self._served and self._one_each:
            self._end()
        try:
            self._initialize(images, region)
        except TrackerGoneError:
            if not self._served:
                raise
            self._one_each = True
            self._end()
            self._initialize(images, region)
        self._served += 1

    def _initialize(self, images: list[str], region: str) -> None:
        """Up to version 3 the images come with the target; in version 4 after it, and first the old target is dismissed."""
        process = self._started()
        if self._abilities.version < NEWEST:
            self._ask("initialize", [*images, region], self._properties)
            return
        if self._served:
            process.send("initialize")
        process.send("initialize", [region], self._properties)
        self._ask("frame", images)

    def _ask(
        self, kind: str, arguments: list[str], properties: Mapping[str, str] | None = None
    ) -> tuple[tuple[float, float, float, float] | None, float]:
        """Send a message; the box of the answer, None where there is no target, and how sure the tracker is."""
        process = self._started()
        process.send(kind, arguments, properties)
        answer = process.receive(f"'{kind}'")
        if answer.kind != "state" or len(answer.arguments) != 1:
            given = f"'{answer.kind}' and {len(answer.arguments)} argument(s)"
            raise process.complain(f"it answered '{kind}' with {given}, expected 'state' and one region")
        try:
            box = parse_answer(answer.arguments[0])
        except UserError as error:
            raise process.complain(str(error)) from error
        sure = answer.properties.get("confidence", "0" if box is None else "1")
        try:
            return box, float(sure)
        except ValueError as error:
            raise process.complain(f"its confidence is '{sure[:40]}', which is no number") from error

    def _tell_unused(self, sequence: Sequence, with_aux: bool) -> None:
        if not (self._told or with_aux or sequence.aux is None):
            self._told = True
            warn(self._command, "channels", f"this tracker takes colour alone; it is not sent the {sequence.modality} frames.")


@contextmanager
def _named(whose: str) -> Iterator[None]:
    """Say whose errors these are."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{whose}: {error}") from error
