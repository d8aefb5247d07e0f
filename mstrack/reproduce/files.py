"""A study as files: `<study>.csv`, a line for each row and data set, and `<study>.md`."""

import csv
import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from mstrack.comparison import judge
from mstrack.reproduce.costs import Cost
from mstrack.reproduce.table import PRINTED, Line, Table, percent, say_difference, spelled, summarise
from mstrack.results import write_text

BOUNDS = ("low", "high")
FIELDS = (
    *("study", "row", "label", "printed", "dataset", "on", "seeds", "sequences"),
    *(f"{name}{suffix}" for name in PRINTED for suffix in ("", *(f"_{bound}" for bound in BOUNDS))),
    *(f"paper_{name}" for name in PRINTED),
    *("against", "difference", "difference_low", "difference_high", "verdict", "resolved"),
    *(
        "parameters_M",
        "GFLOPs",
        "GFLOPs_eliminating",
        "fps",
        "network_fps",
        "machine",
        "paper_parameters_M",
        "paper_GFLOPs",
        "paper_fps",
    ),
)


def write_csv(path: Path, table: Table, costs: Mapping[str, Cost]) -> None:
    """One line for each row and data set of the paper; empty where nothing was measured or printed."""
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, restval="", lineterminator="\n")
    writer.writeheader()
    for line in table.lines:
        for ground in table.grounds:
            for column in ground.columns:
                writer.writerow(_record(table, line, ground.name, column) | _record_cost(line, costs.get(line.key), column))
    write_text(path, text.getvalue())


def write_markdown(path: Path, table: Table, costs: Mapping[str, Cost], command: str, notes: Iterable[str]) -> None:
    """The tables that the terminal shows, the sentences under them, and the command."""
    parts = [f"# {table.name}: {table.title}", f"`{command}`"]
    for ground in table.grounds:
        named = [f"paper, {spelled(column)}" for column in ground.columns]
        headers = ["row", *PRINTED, *named, "SR, difference", "resolves"]
        rows = []
        for line in table.lines:
            found = line.measured.get(ground.name)
            cells = (
                [found.cells[name].text for name in PRINTED] if found else ["not ours" if line.needs else "not run", "", "", ""]
            )
            paper = [
                " / ".join(percent(line, column, name) for name in PRINTED) if column in line.published else ""
                for column in ground.columns
            ]
            resolved = "" if found is None or math.isnan(found.resolved) else f"{found.resolved:.1f}"
            rows.append([line.label, *cells, *paper, say_difference(line, found), resolved])
        parts += [f"## On {spelled(ground.name)}", format_table(headers, rows)]
    if costs:
        parts += ["## Costs", format_table(*cost_rows(table, costs))]
    parts.append("\n".join(f"- {sentence}" for sentence in (*summarise(table), *notes)))
    write_text(path, "\n\n".join(parts) + "\n")


def format_table(headers: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    named = list(headers)
    lines = [named, ["---"] * len(named), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def cost_rows(table: Table, costs: Mapping[str, Cost]) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of what the full-size networks cost, measured and printed."""
    headers = ["Row", "M parameters", "paper", "GFLOPs", "eliminating", "paper", "FPS", "network", "paper"]
    rows = []
    for line in table.lines:
        cost = costs.get(line.key)
        if cost is not None:
            printed = next((row.cost for row in line.published.values() if row.cost), {})
            paper = [f"{printed[name]:.1f}" if name in printed else "" for name in ("params_M", "FLOPs_G", "FPS")]
            speed = [f"{fps:.1f}" if fps >= 10 else f"{fps:.2f}" for fps in (cost.fps, cost.network_fps)]
            size = [f"{cost.parameters / 1e6:.1f}", paper[0]]
            size += [f"{cost.operations / 1e9:.1f}", f"{cost.eliminated / 1e9:.1f}", paper[1]]
            rows.append([line.label, *size, *speed, paper[2]])
    return headers, rows


def _record(table: Table, line: Line, ground: str, column: str) -> dict[str, str]:
    record = {"study": table.name, "row": line.key, "label": line.label, "printed": line.printed or "", "dataset": column}
    record |= {f"paper_{name}": percent(line, column, name) for name in PRINTED}
    found = line.measured.get(ground)
    if found is None:
        return record
    record |= {"on": f"synthetic {ground}" if table.synthetic else ground, "seeds": str(found.seeds)}
    record |= {"sequences": str(found.sequences), "against": line.against or ""}
    for name in PRINTED:
        cell = found.cells[name]
        record |= {
            name: _number(cell.mean),
            f"{name}_low": _number(cell.interval.low),
            f"{name}_high": _number(cell.interval.high),
        }
    if found.difference is not None:
        mean, low, high = map(_number, found.difference)
        record |= {"difference": mean, "difference_low": low, "difference_high": high, "resolved": _number(found.resolved)}
        record["verdict"] = judge(found.difference)
    return record


def _record_cost(line: Line, cost: Cost | None, column: str) -> dict[str, str]:
    printed = line.published[column].cost if column in line.published else {}
    names = {"params_M": "paper_parameters_M", "FLOPs_G": "paper_GFLOPs", "FPS": "paper_fps"}
    record = {names[name]: f"{value:g}" for name, value in printed.items()}
    if cost is not None:
        record |= {"parameters_M": _number(cost.parameters / 1e6), "GFLOPs": _number(cost.operations / 1e9)}
        record |= {"GFLOPs_eliminating": _number(cost.eliminated / 1e9)}
        record |= {"fps": _number(cost.fps), "network_fps": _number(cost.network_fps), "machine": cost.machine}
    return record


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"
