"""A tracker that knows nothing of mstrack: normalised cross-correlation with the first frame, around the last box.

As a class, `template_tracker:TemplateTracker`, and over TraX, `python template_tracker.py [FAULT] [KEY=VALUE]...`: a server
written from the protocol's specification alone, which can do what a tracker should not.
"""

import base64
import os
import re
import socket
import sys
import time
from pathlib import Path

import cv2
import numpy as np

MARGIN = 4
"""Pixels of the surroundings that belong to the template."""
REACH = 64
"""Pixels beyond the image that a target may go."""


class TemplateTracker:
    """Where the grey template of the first frame matches best, at most `radius` pixels from where it was.

    `use` is `rgb`, or `aux` for the second modality alone.
    """

    def __init__(self, radius: int = 12, use: str = "rgb", answer: str = "both") -> None:
        self.radius, self.use, self.answer = radius, use, answer

    def init(self, frame, box) -> None:
        self.start(self.grey(frame), box)

    def update(self, frame):
        box, score = self.find(self.grey(frame))
        return {"both": (box, score), "box": np.array(box)}[self.answer]

    def grey(self, frame):
        return cv2.cvtColor(getattr(frame, self.use), cv2.COLOR_RGB2GRAY)

    def start(self, image, box) -> None:
        self.size = [max(1, round(side)) for side in box[2:]]
        self.at = [round(value) for value in box[:2]]
        self.template = self.cut(image, MARGIN)

    def find(self, image):
        window = self.cut(image, MARGIN + self.radius)
        _, score, _, (right, down) = cv2.minMaxLoc(cv2.matchTemplate(window, self.template, cv2.TM_CCOEFF_NORMED))
        self.at = [self.at[0] + right - self.radius, self.at[1] + down - self.radius]
        return [float(value) for value in (*self.at, *self.size)], float(score)

    def cut(self, image, margin):
        (x, y), (w, h) = self.at, self.size
        padded = cv2.copyMakeBorder(image, *[REACH] * 4, cv2.BORDER_REPLICATE)
        x, y = (min(max(value + REACH, margin), side - 1) for value, side in ((x, padded.shape[1]), (y, padded.shape[0])))
        return padded[y - margin : y + h + margin, x - margin : x + w + margin]


# ---- over TraX


def read(image: str) -> np.ndarray:
    """An image argument as grey."""
    kind, _, rest = image.partition(":")
    if kind == "file":
        assert rest.startswith("//") and Path(rest[2:]).is_file(), f"no file {rest}"
        found = cv2.imread(rest[2:], cv2.IMREAD_UNCHANGED)
    elif kind == "data":
        found = cv2.imdecode(np.frombuffer(base64.b64decode(rest.split(";", 1)[1]), np.uint8), cv2.IMREAD_UNCHANGED)
    else:
        width, height, form, data = rest.split(";", 3)
        pixels = np.frombuffer(base64.b64decode(data), np.uint16 if form == "gray16" else np.uint8)
        found = pixels.reshape(int(height), int(width), -1).squeeze()
        found = found[..., ::-1] if form == "rgb" else found
    found = (found / found.max() * 255).astype(np.uint8) if found.dtype == np.uint16 else np.ascontiguousarray(found)
    return cv2.cvtColor(found, cv2.COLOR_BGR2GRAY) if found.ndim == 3 else found


class Line:
    """Lines in and out: the standard streams, or the port of $TRAX_SOCKET."""

    def __init__(self, where: str) -> None:
        if where == "socket":
            self.connection = socket.create_connection(("127.0.0.1", int(os.environ["TRAX_SOCKET"])))
            self.source, self.sink = self.connection.makefile("r"), self.connection.makefile("w")
        else:
            self.source, self.sink = sys.stdin, sys.stdout

    def say(self, text: str) -> None:
        self.sink.write(f"@@TRAX:{text}\n")
        self.sink.flush()

    def hear(self) -> tuple[str, list[str], dict[str, str]]:
        while line := self.source.readline():
            if line.startswith("@@TRAX:"):
                kind, _, rest = line.strip().removeprefix("@@TRAX:").partition(" ")
                tokens = [re.sub(r"\\(.)", r"\1", token) for token in re.findall(r'"((?:[^"\\]|\\.)*)"', rest)]
                pairs = [re.fullmatch(r"([\w.]{1,64})=(.*)", token) for token in tokens]
                arguments = [token for token, pair in zip(tokens, pairs, strict=True) if pair is None]
                return kind, arguments, {pair[1]: pair[2] for pair in pairs if pair is not None}
        return "quit", [], {}


def main(fault: str, options: dict[str, str]) -> None:
    version, images = int(options.get("version", 3)), options.get("image", "path")
    channels, region = options.get("channels", "color"), options.get("region", "rectangle")
    look = int(options.get("look", 0))
    """Which channel it tracks in."""
    print("loading the weights ...", file=sys.stderr, flush=True)
    if "pid" in options:
        Path(options["pid"]).write_text(str(os.getpid()))
    if "while" in options and not Path(options["while"]).exists():
        fault = ""
    if fault == "dies at once":
        raise SystemExit("no GPU on this machine")
    if fault == "silent":
        time.sleep(60)
    line = Line(options.get("where", "stdout"))
    tracker = TemplateTracker()
    hello = [f"trax.version={version}", f"trax.image={images};", f"trax.region={region};", f"trax.channels={channels};"]
    line.say(" ".join(["hello", *(f'"{word}"' for word in hello)]))
    print("some library says something", flush=True)
    started, answered, pending = 0, 0, None
    while True:
        kind, arguments, properties = line.hear()
        if kind == "quit":
            break
        if kind == "initialize":
            if not arguments:
                assert version == 4 and started
                continue
            if started and fault == "one sequence":
                line.say("quit")
                break
            if started and fault == "one sequence, no word":
                break
            assert int(properties.get("expect", 0)) == int(options.get("expect", 0))
            *pictures, text = arguments
            numbers = [float(value) for value in text.split(",")]
            assert len(numbers) == (8 if region == "polygon" else 4)
            box = numbers if len(numbers) == 4 else [*numbers[:2], numbers[2] - numbers[0], numbers[5] - numbers[1]]
            started += 1
            if version == 4:
                assert not pictures
                pending = box
                continue
            tracker.start(read(pictures[look]), box)
            line.say(f'state "{text}"')
            continue
        assert kind == "frame" and len(arguments) == len(channels.split(";"))
        image = read(arguments[look])
        if pending is not None:
            tracker.start(image, pending)
            pending, found, score = None, pending, 1.0
        else:
            found, score = tracker.find(image)
            answered += 1
        if answered >= int(options.get("after", 3)):
            misbehave(fault, line)
        x, y, w, h = found
        answer = f"{x:.4f},{y:.4f},{w:.4f},{h:.4f}"
        if fault == "polygon":
            answer = ",".join(f"{v}" for v in (x + w / 2, y, x + w, y + h / 2, x + w / 2, y + h, x, y + h / 2))
        if fault == "absent" and answered == 3:
            answer = "nan,nan,nan,nan"
        line.say(f'state "{answer}" "confidence={score:.6f}"')


def misbehave(fault: str, line: Line) -> None:
    if fault == "dies":
        print("CUDA error: an illegal memory access was encountered", file=sys.stderr, flush=True)
        os._exit(7)
    if fault == "hangs":
        time.sleep(60)
    if fault == "refuses":
        line.say('quit "trax.reason=the image is too dark"')
        raise SystemExit
    if fault == "mask":
        line.say('state "m10,10,4,4,0,16"')
    if fault == "nonsense":
        line.say('state "1,2')
    if fault == "dances":
        line.say("dance")
    if fault == "three numbers":
        line.say('state "1,2,3"')
    if fault == "greets again":
        line.say("hello")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "", dict(word.split("=", 1) for word in sys.argv[2:]))
