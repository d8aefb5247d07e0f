"""TraX messages as we and others write them, and the streams that carry them."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mstrack.errors import UserError
from mstrack.trax import Message, format_message, parse_answer, parse_message, parse_path, parse_rectangle


@given(st.lists(st.text()), st.dictionaries(st.from_regex(r"[A-Za-z0-9._]{1,64}", fullmatch=True), st.text()))
def test_messages_survive_being_written(paths: list[str], properties: dict[str, str]) -> None:
    message = Message("frame", tuple(f"file:///{path}" for path in paths), properties)
    line = format_message(message)
    assert "\n" not in line
    assert parse_message(line) == message
    assert parse_message(line + " \r\n") == message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", None),
        ("progress 50 %", None),
        (" @@TRAX:quit", None),
        ("@@TRAX:quit", Message("quit")),
        ("@@TRAX:QUIT \r\n", Message("quit")),
        ("@@TRAX:status 1,2,3,4", Message("state", ("1,2,3,4",))),
        (r'@@TRAX:frame "file:///a b/\"c\".jpg"  "k=v w" x\ y', Message("frame", ('file:///a b/"c".jpg', "x y"), {"k": "v w"})),
        ("@@TRAX:frame file:///a=b.jpg k=1=2", Message("frame", ("file:///a=b.jpg",), {"k": "1=2"})),
        (r'@@TRAX:state "" "two\nlines" "trax.reason="', Message("state", ("", "two\nlines"), {"trax.reason": ""})),
    ],
)
def test_messages_as_others_write_them(line: str, message: Message | None) -> None:
    assert parse_message(line) == message


@pytest.mark.parametrize("line", ['"a', '"a"b', '"a\\"', 'a "b" "'])
def test_malformed_messages(line: str) -> None:
    with pytest.raises(UserError, match="malformed from here on"):
        parse_message(f"@@TRAX:frame {line}")


def test_paths() -> None:
    for text in ("file:///a/b c.jpg", "/a/b c.jpg", "file:/a/b c.jpg"):
        assert parse_path(text) == Path("/a/b c.jpg")
    assert parse_path("file:///a%20b.jpg") == Path("/a%20b.jpg"), "nothing is encoded in these"
    for text in ("", "file://", "image:1;1;rgb;AAAA", "data:image/png;AA", "http://host/a.jpg"):
        with pytest.raises(UserError, match="no path"):
            parse_path(text)


def test_rectangles() -> None:
    assert parse_rectangle("1,2.5,3e1,4") == (1, 2.5, 30, 4)
    for text, said in (
        ("m1,1,2,2,0,4", "a mask"),
        ("mask:1,1,2,2,0,4", "a mask"),
        ("1,1,2,2,3,3", "a polygon"),
        ("0", "no rec"),
    ):
        with pytest.raises(UserError, match=said):
            parse_rectangle(text)


def test_answers_of_trackers() -> None:
    assert parse_answer("1,2.5,3e1,4") == parse_answer("rect:1,2.5,30,4") == (1, 2.5, 30, 4)
    assert parse_answer("5,0,9,3,5,8,1,3") == parse_answer("poly:5,0,9,3,1,8") == (1, 0, 8, 8), "the box around it"
    assert parse_answer("0") is None and parse_answer("special:2") is None and parse_answer("nan,nan,nan,nan") is None
    for text, said in (
        ("m1,1,2,2,0,4", "a mask"),
        ("mask:1,1,2,2,0,4", "a mask"),
        ("", "no rectangle"),
        ("1,2,3", "no rectangle"),
        ("1,2,3,4,5", "no rectangle"),
        ("1,2,3,4,5,6,7", "no rectangle"),
        ("a,b,c,d", "no rectangle"),
        ("1,2,inf,4", "not finite"),
    ):
        with pytest.raises(UserError, match=said):
            parse_answer(text)


def test_what_else_is_printed_stays_out_of_the_messages() -> None:
    code = (
        "import os, sys; from mstrack.trax import open_stream\n"
        "print('before')\n"
        "with open_stream() as stream:\n"
        "    print('from Python', end='', flush=True); os.system('echo from a shell')\n"
        "    assert sys.stdin.read() == ''\n"
        "    stream.send('state', stream.receive().arguments[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input='@@TRAX:frame "ü"\n', capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n") == ["before", "", '@@TRAX:state "ü"', ""]
    assert "from Python" in done.stderr and "from a shell" in done.stderr
