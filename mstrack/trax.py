"""The TraX protocol between a tracker and the program that evaluates it: lines of text over pipes or a socket, version 3.

A message is a line `@@TRAX:kind "argument" "key=value"`; other lines are a program's own output and are passed over. The
tracker says `hello` and what it takes; for `initialize` (images, region) and `frame` (images) it answers with `state`
(region); `quit` ends it, from either side. Described at https://trax.readthedocs.io.
"""

import math
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, NamedTuple

from mstrack.errors import UserError

PREFIX = "@@TRAX:"
VERSION = 3
"""The last version in which `initialize` brings its images along; clients of versions 3 and 4 speak it."""
KINDS = ("hello", "initialize", "frame", "state", "quit")
LINE_LIMIT = 1 << 20
"""Longest line in bytes: a message holds a few paths."""
_KEY = re.compile(r"[A-Za-z0-9._]{1,64}")
_TOKEN = re.compile(r' *(?:"((?:[^"\\]|\\.)*)"|((?:[^" \\]|\\.)(?:[^ \\]|\\.)*))(?= |$)')
_SCHEME = re.compile(r"[a-z+.-]{2,15}:")


class Message(NamedTuple):
    """One message of either side."""

    kind: str
    arguments: tuple[str, ...] = ()
    properties: Mapping[str, str] = MappingProxyType({})


def parse_message(line: str) -> Message | None:
    """A line as a message; None where it is none.

    Raises:
        UserError: It begins as a message but is none.
    """
    text = line.rstrip("\r\n ")
    if not text.startswith(PREFIX):
        return None
    kind, _, rest = text.removeprefix(PREFIX).partition(" ")
    kind = {"status": "state"}.get(kind.lower(), kind.lower())
    if kind not in KINDS:
        raise UserError(f"TraX: '{kind[:40]}' is no message; expected one of {', '.join(KINDS)}.")
    arguments, properties, position = [], {}, 0
    while position < len(rest):
        token = _TOKEN.match(rest, position)
        if token is None:
            raise UserError(f"TraX: a '{kind}' message is malformed from here on: {rest[position:].strip()[:80]}")
        position = token.end()
        content = re.sub(r"\\(.)", lambda pair: "\n" if pair[1] == "n" else pair[1], token[1] if token[2] is None else token[2])
        key, equals, value = content.partition("=")
        if equals and _KEY.fullmatch(key):
            properties[key] = value
        else:
            arguments.append(content)
    return Message(kind, tuple(arguments), properties)


def format_message(message: Message) -> str:
    """A message as a line, without its end."""
    properties = (f"{key}={value}" for key, value in message.properties.items())
    tokens = [re.sub(r'["\\]', r"\\\g<0>", token).replace("\n", r"\n") for token in (*message.arguments, *properties)]
    return " ".join([PREFIX + message.kind, *(f'"{token}"' for token in tokens)])


def parse_path(text: str) -> Path:
    """The file that an image argument names: `file:///a b.jpg` or `/a b.jpg`, nothing in it encoded.

    Raises:
        UserError: It holds the image itself, or an address.
    """
    path = re.sub(r"^file:(//)?", "", text)
    if not path or _SCHEME.match(path):
        raise UserError(f"TraX: the image '{text[:40]}' is no path; this tracker takes images as paths of files alone.")
    return Path(path)


def parse_rectangle(text: str) -> tuple[float, float, float, float]:
    """A region as x, y, w, h.

    Raises:
        UserError: It is a mask, a polygon or a special code, or malformed.
    """
    kind = "a mask" if text.startswith("m") else "a polygon" if text.count(",") >= 5 else None
    if kind is not None:
        raise UserError(
            f"TraX: the region is {kind} ({text[:40]}); this tracker takes rectangles alone, as it said in its hello."
        )
    try:
        x, y, w, h = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"TraX: the region '{text[:80]}' is no rectangle left,top,width,height.") from error
    return x, y, w, h


def parse_answer(text: str) -> tuple[float, float, float, float] | None:
    """A region that a tracker answers as x, y, w, h: of a polygon the box around it; None where it says that it has none.

    It says so by a special code (one number) or by NaN.

    Raises:
        UserError: It is a mask, or malformed.
    """
    content = re.sub(r"^(rect|poly|special):", "", text.strip())
    if content.startswith("m"):
        raise UserError(f"it answered a mask ({text[:40]}); boxes are scored here, so it must answer rectangles or polygons")
    try:
        values = [float(part) for part in content.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 4) and (len(values) < 6 or len(values) % 2):
        raise UserError(f"it answered the region '{text[:80]}', which is no rectangle left,top,width,height and no polygon")
    if len(values) == 1 or any(math.isnan(value) for value in values):
        return None
    if any(math.isinf(value) for value in values):
        raise UserError(f"it answered the region '{text[:80]}', whose numbers are not finite")
    if len(values) > 4:
        left, top = min(values[::2]), min(values[1::2])
        return left, top, max(values[::2]) - left, max(values[1::2]) - top
    x, y, w, h = values
    return x, y, w, h


class Stream:
    """Messages to and from a client.

    Args:
        source: Where the client's lines come from.
        sink: Where messages go. It may carry other output as well, in lines of its own or not.
    """

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self._source, self._sink = source, sink

    def send(self, kind: str, *arguments: str, **properties: str) -> None:
        """Send a message; in the names of properties, `__` stands for a dot.

        Raises:
            UserError: The client is gone.
        """
        message = Message(kind, arguments, {key.replace("__", "."): value for key, value in properties.items()})
        # The empty line ends what a library may have printed to the same pipe; one write, so that nothing comes between.
        line = f"\n{format_message(message)}\n".encode("utf-8", "surrogateescape")
        try:
            self._sink.write(line)
            self._sink.flush()
        except OSError as error:
            raise UserError(f"TraX: the client is gone ({error.strerror}).") from error

    def receive(self) -> Message:
        """The next message.

        Raises:
            UserError: It is malformed, or the client went away without `quit`.
        """
        while True:
            try:
                line = self._source.readline(LINE_LIMIT)
            except OSError as error:
                raise UserError(f"TraX: the client is gone ({error.strerror}).") from error
            if not line:
                raise UserError("TraX: the client went away without saying quit.")
            if len(line) == LINE_LIMIT:
                raise UserError(f"TraX: a line of more than {LINE_LIMIT} bytes; a message with paths is much shorter.")
            message = parse_message(line.decode("utf-8", "surrogateescape"))
            if message is not None:
                return message


@contextmanager
def open_stream() -> Iterator[Stream]:
    """The client of this process: at the port of `$TRAX_SOCKET`, or at its standard input and output.

    From here on, whatever the process prints goes to the error output, and it has no input.

    Raises:
        UserError: `$TRAX_SOCKET` is no port, or nobody listens there.
    """
    sys.stdout.flush()
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    port = os.environ.get("TRAX_SOCKET")
    with source, sink:
        if port is None:
            yield Stream(source, sink)
            return
        try:
            connection = socket.create_connection(("127.0.0.1", int(port)), timeout=30)
        except (OSError, ValueError, OverflowError) as error:
            raise UserError(f"TraX: no client at port {port} of this machine ($TRAX_SOCKET): {error}.") from error
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, connection.makefile("rb") as reader, connection.makefile("wb") as writer:
            yield Stream(reader, writer)
