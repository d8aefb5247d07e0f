"""What the commands show: progress bars, tables, sentences."""

import textwrap
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
NAME_WIDTH, GAP = 24, 2
"""Characters of a name, or a text, that are not broken for lack of room; and spaces between columns."""

Progress = Callable[[int, int, str], None]


@contextmanager
def show_progress(quiet: bool = False) -> Iterator[Callable[..., Progress]]:
    """Bars with pace and time left: `progress("training", "steps")` makes one of steps, called with (done, total, text)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Pace(ProgressColumn):
        """Since the bar began: work that comes in bursts has no other."""

        def render(self, task: Any) -> Text:
            elapsed, first = task.elapsed or 0.0, task.fields["first"]
            if first is None or task.completed <= first or not elapsed:
                return Text("")
            rate = (task.completed - first) / elapsed
            left = elapsed if task.finished else (task.total - task.completed) / rate
            unit = f" {task.fields['unit']}" if task.fields["unit"] else ""
            pace = Text(f"{rate:.{0 if rate >= 100 else 1}f}{unit}/s", style="cyan")
            return pace.append(f" {_clock(left)}", style="yellow" if task.finished else "magenta")

    console = Console(stderr=True)
    wide = console.width >= 100
    columns = [
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=14 if wide else 8),
        MofNCompleteColumn(),
        Pace(),
    ]
    if wide:
        columns.append(TextColumn("[dim]{task.fields[said]}"))
    with Bars(*columns, console=console, disable=quiet) as bars:

        def begin(description: str, unit: str = "") -> Progress:
            task = bars.add_task(description, total=None, said="", unit=unit, first=None)

            def advance(done: int, total: int, text: str) -> None:
                if bars.tasks[task].fields["first"] is None:
                    bars.reset(task, total=total, said="", unit=unit, first=done)  # what was done before took no time
                bars.update(task, completed=done, total=total)
                if text:
                    bars.update(task, said=text)

            return advance

        try:
            yield begin
        except BaseException:
            for task in bars.tasks:
                bars.update(task.id, visible=task.fields["first"] is not None)  # nothing of a bar that never began
            raise


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def print_table(title: str, headers: List[str], rows: List[List[str]], sides: str = "") -> None:
    """A table with a title; columns for which a terminal has no room are left out, from the right, and named below it.

    Args:
        title: Above it.
        headers: Of its columns.
        rows: Its cells.
        sides: A letter per column: `l` left, wrapped where there is no room, or `r` right, never wrapped. Default: the first
            left, the others right.
    """
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    sides = sides or "l" + "r" * (len(headers) - 1)
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, PIPED_WIDTH))
    natural = [max(cell_len(cell) for cell in column) for column in zip(headers, *rows, strict=True)]
    least = [width if side == "r" else min(width, NAME_WIDTH) for width, side in zip(natural, sides, strict=True)]
    kept = len(headers)
    while kept > 1 and sum(least[:kept]) + GAP * (kept - 1) > console.width:
        kept -= 1
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, GAP - 1, 0, 0), show_edge=False)
    for header, side, width in zip(headers[:kept], sides, least, strict=False):
        right = side == "r"
        table.add_column(header, justify="right" if right else "left", no_wrap=right, overflow="fold", min_width=width)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row[:kept]))
    console.print(Text(_between_words(title, console), style="bold"), soft_wrap=True)
    console.print()
    console.print(table)
    if kept < len(headers):
        console.print(f"(no room for: {', '.join(headers[kept:])})", style="dim", markup=False, highlight=False)
    console.print()


def say(line: str) -> None:
    """A line on the standard output; a terminal gets it broken between words, never within one."""
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(_between_words(line, console))


def _between_words(line: str, console: Any) -> str:
    if not console.is_terminal or len(line) <= console.width:
        return line
    return textwrap.fill(line, console.width, break_long_words=False, break_on_hyphens=False, replace_whitespace=False)


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
