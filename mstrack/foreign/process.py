"""A tracker as a process of its own that speaks TraX: its start, messages with a time limit, its last words, its end."""

import os
import queue
import select
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import IO, Any

from mstrack.errors import UserError
from mstrack.trax import LINE_LIMIT, PREFIX, Message, format_message, parse_message

LAST_WORDS = 12
"""Lines of what a tracker printed that are shown with an error."""
GRACE = 5.0
"""Seconds that it has to end after `quit`, and again after it was asked by a signal."""
_TICK = 0.05


class TrackerGoneError(UserError):
    """The tracker has ended, or said that it quits."""


class TrackerProcess:
    """A tracker's process.

    It hears messages on its standard input and answers on its standard output, or connects to the port of this machine that
    `$TRAX_SOCKET` names; whichever says hello first. What else it prints is kept, for error messages.

    Args:
        command: What starts it, as in a shell.
        timeout: Seconds that it has for each answer, its hello included.

    Attributes:
        hello: Its introduction.

    Raises:
        UserError: It cannot be started, or says no hello.
    """

    def __init__(self, command: str, timeout: float) -> None:
        if not hasattr(os, "killpg"):
            raise UserError(
                "trackers over TraX are started and ended by means that this system lacks: use Linux, macOS or WSL; a class"
                " (--tracker module:Class) runs anywhere."
            )
        self._timeout = timeout
        self._heard: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._printed: deque[str] = deque(maxlen=LAST_WORDS)
        self._ended: set[str] = set()
        self._origin: str | None = None
        self._connection: socket.socket | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        port = self._listener.getsockname()[1]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        try:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                shlex.split(command), env={**os.environ, "TRAX_SOCKET": str(port)}, start_new_session=True, **pipes
            )
        except OSError as error:
            self._listener.close()
            raise UserError(f"the tracker cannot be started: {error.strerror} ({shlex.split(command)[0]}).") from error
        assert self._process.stdin is not None and self._process.stdout is not None and self._process.stderr is not None
        self._sink = self._process.stdin.fileno()
        os.set_blocking(self._sink, False)
        self._write: Callable[[memoryview], int] = lambda data: os.write(self._sink, data)
        self._threads = [self._listen("output", self._process.stdout), self._listen("error output", self._process.stderr)]
        try:
            self.hello = self.receive("being started")
            if self.hello.kind != "hello":
                raise self.complain(f"it said '{self.hello.kind}' where it must say hello")
        except BaseException:
            self.close()
            raise
        self._listener.close()

    def send(self, kind: str, arguments: Iterable[str] = (), properties: Mapping[str, str] | None = None) -> None:
        """Send a message.

        Raises:
            TrackerGoneError: It does not listen any more.
            UserError: It has not read the message in time.
        """
        line = f"{format_message(Message(kind, tuple(arguments), dict(properties or {})))}\n".encode("utf-8", "surrogateescape")
        left, deadline = memoryview(line), time.monotonic() + self._timeout
        while left:
            ready = select.select([], [self._sink], [], max(0.0, deadline - time.monotonic()))[1]
            if not ready:
                raise self.complain(f"it has not read a message for {self._timeout:g} s (--timeout)")
            try:
                left = left[self._write(left) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise self._tell_end(f"it takes no messages any more ({error.strerror})") from error

    def receive(self, after: str) -> Message:
        """Its next message.

        Args:
            after: What it answers, for error messages.

        Raises:
            TrackerGoneError: It ended instead, or quits.
            UserError: It says nothing in time, or nonsense.
        """
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                origin, line = self._heard.get(timeout=_TICK)
            except queue.Empty:
                self._accept()
                if self._origin is None and "output" in self._ended and self._process.poll() is not None:
                    raise self._tell_end(f"it ended after {after}") from None
                if time.monotonic() > deadline:
                    raise self.complain(f"it said nothing for {self._timeout:g} s after {after} (--timeout)") from None
                continue
            if not line:
                self._ended.add(origin)
                if origin == self._origin:
                    raise self._tell_end(f"it ended after {after}")
                continue
            if self._origin is None:
                self._choose(origin)
            if origin == self._origin:
                return self._read(line)

    def complain(self, what: str) -> UserError:
        """An error that tells what is wrong with the tracker, and what it printed last."""
        return UserError(f"{what}.{self._last_words()}")

    def close(self) -> None:
        """Let it quit; where it does not within some seconds, end it and what it has started."""
        if self._process.poll() is None:
            self._timeout = min(self._timeout, GRACE)
            with suppress(UserError):
                self.send("quit")
        self._hang_up()
        for way in (None, signal.SIGTERM, signal.SIGKILL):
            if way is not None and self._process.poll() is None:
                with suppress(OSError):  # it has just ended
                    os.killpg(self._process.pid, way)
            try:
                self._process.wait(GRACE)
                break
            except subprocess.TimeoutExpired:
                continue
        for thread in self._threads:
            thread.join(_TICK)

    def _hang_up(self) -> None:
        """Close what it is told things through."""
        self._listener.close()
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._connection is not None:
            with suppress(OSError):  # it has closed its end
                self._connection.shutdown(socket.SHUT_WR)
            self._connection.close()

    # ---------------------------------------------------------------- listening
    def _listen(self, origin: str, stream: IO[bytes]) -> threading.Thread:
        """Read a stream in the background, until its end."""
        thread = threading.Thread(target=self._pump, args=(origin, stream), daemon=True)
        thread.start()
        return thread

    def _pump(self, origin: str, stream: IO[bytes]) -> None:
        with stream, suppress(OSError):  # a connection may be reset
            while line := stream.readline(LINE_LIMIT):
                if line.startswith(PREFIX.encode()) and origin != "error output":
                    self._heard.put((origin, line))
                elif line.strip():
                    self._printed.append(line.decode("utf-8", "replace").rstrip()[:500])
        self._heard.put((origin, b""))

    def _accept(self) -> None:
        """Take a connection, where one was made."""
        if self._origin is not None or self._connection is not None:
            return
        try:
            self._connection, _ = self._listener.accept()
        except OSError:
            return
        self._connection.setblocking(True)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._threads.append(self._listen("connection", self._connection.makefile("rb")))

    def _choose(self, origin: str) -> None:
        """From now on, its messages are what comes from here."""
        self._origin = origin
        connection = self._connection
        if connection is not None and origin == "connection":
            self._sink = connection.fileno()
            self._write = lambda data: connection.send(data, socket.MSG_DONTWAIT)

    def _read(self, line: bytes) -> Message:
        if len(line) == LINE_LIMIT:
            raise self.complain(f"it sent a line of more than {LINE_LIMIT} bytes")
        try:
            message = parse_message(line.decode("utf-8", "surrogateescape"))
        except UserError as error:
            raise self.complain(f"it talks nonsense: {error}".rstrip(".")) from error
        if message is None or message.kind == "quit":
            reason = message.properties.get("trax.reason", "") if message is not None else ""
            raise self._tell_end(f"it quit: {reason}".rstrip(": ."))
        return message

    # ---------------------------------------------------------------- last words
    def _tell_end(self, what: str) -> TrackerGoneError:
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            code = None
        how = "" if code is None else f", killed by signal {-code}" if code < 0 else f", exit code {code}"
        return TrackerGoneError(f"{what}{how}.{self._last_words()}")

    def _last_words(self) -> str:
        if self._process.poll() is not None:
            for thread in self._threads:
                thread.join(_TICK)
        return "\n  ".join([" The last it printed:", *self._printed]) if self._printed else ""
