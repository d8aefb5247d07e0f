"""What the commands show: progress bars, tables, sentences."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from collections.abc import Sequence as List
from contextlib import contextmanager
from typing import Any

import typer

from mstrack.errors import DataWarning

SHOWN = 3
"""Warnings of one kind that are shown one by one."""
PIPED_WIDTH = 110
"""Columns of a table that is not written to a terminal."""

Progress = Callable[[int, int, str], None]


@contextmanager
def show_progress(quiet: bool = False) -> Iterator[Callable[[str], Progress]]:
    """Bars with rate and time left: `progress("training")` makes one, called with (done, total, text)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.1f}/s", style="cyan")

    console = Console(stderr=True)
    columns = [
        TextColumn("{task.description:<32}"),
        BarColumn(bar_width=14),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    ]
    if console.width >= 100:
        columns.append(TextColumn("[dim]{task.fields[said]}"))
    with Bars(*columns, console=console, disable=quiet) as bars:

        def begin(description: str) -> Progress:
            task = bars.add_task(description, total=None, said="")

            def advance(done: int, total: int, text: str) -> None:
                bars.update(task, completed=done, total=total)
                if text:
                    bars.update(task, said=text)

            return advance

        yield begin


def print_table(title: str, headers: List[str], rows: List[List[str]], sides: str = "") -> None:
    """A table with a title.

    Args:
        title: Above it.
        headers: Of its columns.
        rows: Its cells.
        sides: A letter per column: `l` left, wrapped where there is no room, or `r` right, never wrapped. Default: the first
            left, the others right.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for header, side in zip(headers, sides or "l" + "r" * (len(headers) - 1), strict=True):
        table.add_column(header, justify="right" if side == "r" else "left", no_wrap=side == "r", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, PIPED_WIDTH))
    console.print(Text(title, style="bold"), soft_wrap=True)
    console.print(table)


def say(line: str) -> None:
    """A line on the standard output."""
    from rich.console import Console

    Console(soft_wrap=True, highlight=False, markup=False).print(line)


def say_error(message: str) -> None:
    """A line on the error output."""
    typer.echo(typer.style("error: ", fg="red", bold=True) + message, err=True)


def show_data_warnings(quiet: bool = False) -> None:
    """Make a `DataWarning` a line on the error output, the first few of each kind; other warnings stay as they are."""
    if quiet:
        warnings.simplefilter("ignore", DataWarning)
        return
    usual, seen = warnings.showwarning, Counter[str]()

    def show(message: Warning | str, category: type[Warning], *where: Any, **options: Any) -> None:
        if not isinstance(message, DataWarning):
            usual(message, category, *where, **options)
            return
        seen[message.kind] += 1
        text = str(message)
        if seen[message.kind] > SHOWN:
            text = f"there is more of this kind ({message.kind}): `mst data check` lists all"
        if seen[message.kind] <= SHOWN + 1:
            typer.echo(typer.style("warning: ", fg="yellow", bold=True) + text, err=True)

    warnings.showwarning = show
    warnings.simplefilter("always", DataWarning)
