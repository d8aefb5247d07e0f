"""docs/reproduce.md: for every row its command, hardware, time, published number and ours, so far as it has been measured."""

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mstrack.compare.published import published_results
from mstrack.data.sequence import MODALITIES
from mstrack.reproduce.files import FIELDS, format_table
from mstrack.reproduce.plan import PAPER, Plan, Study, grounds_of
from mstrack.reproduce.rates import look
from mstrack.reproduce.table import spelled
from mstrack.results import write_text

RESULTS, TIMES = "reproduce_results.csv", "reproduce_times.csv"
TIME_FIELDS = ("scale", "row", "seconds", "exaflop")
SPEED = 1e14
"""Operations per second that the times on real data are given for."""

Record = Mapping[str, str]

HEAD = """\
# The tables and figures of the paper

Made by `python benchmarks/reproduce_docs.py` from the plan (`mstrack/reproduce/*.yaml`), `docs/reproduce_results.csv` and
`docs/reproduce_times.csv`; a test keeps it in step with the plan.

```bash
mst reproduce                                 # what there is
mst reproduce table3                          # says how long it takes, then trains, tracks, prints, writes
mst reproduce table3 --only mst --seeds 1     # one row, a run on each modality; --only full --only mst: two rows
mst reproduce table3 --jobs 2 --out DIR       # two runs at a time; --devices cuda:0,cuda:1 for one on each GPU
mst reproduce table3 --on real --data-root DIR --weights DIR    # the paper's recipe on its data; says what is missing
mst reproduce table3 --on real --partial ...  # on that part of the data which is there; the notes say which
mst reproduce sweep --only vipt               # learning rates by the validation split, with their curves
```

Interrupted, it goes on with the same command, run by run; runs are shared by all studies (`DIR/SCALE/ROW-DATA-SEED`). It ends
with `STUDY.csv`, `STUDY.md` and `STUDY.html` (`STUDY-real.*` on the paper's data): means with 95 % intervals over sequences and
seeds, differences to the baseline, and the smallest difference that the comparison can tell from none. A row whose sweep
nobody has run gets it run first; `mst reproduce sweep --into mstrack/reproduce/sweeps.csv` adds sweeps to the committed ones.

**The embedded benchmark is not the paper's data.** "Ours" below is a tiny network on made-up videos, "published" the full-size
one on real ones; where a table has several data sets of one second modality, one modality of the benchmark stands for all of
them. The numbers show that every row runs, and how the rows stand to each other here.

- Learning rates on the benchmark: the best of {sweeps} on the validation split, one run each, for every family and modality;
  rows without a sweep of their own (SPT at 0.5 and 0.1, scalar momentum, the DropTrack base) take their family's value.
- On the paper's data: the published hyper-parameters (Sec. 4.1 and App. A.1; ViPT, SDSTrack and CEUTrack as their code has
  them), no validation, the last checkpoint, and one run of each row unless `--seeds` asks for more. The rows of MST train 30
  epochs on every data set, as the paper says.
- Rows on the DropTrack base (384 pixels, search crops of 5 target sizes) train with `data.search_jitter` 4.5 (centre) and 0.5
  (scale), as the published configurations on that base do; all others with 3 and 0.25.
- Only targets are drawn whose sides are both larger, in pixels, than SRTrack (the later code of the paper's authors) has it:
  {sizes}.
  The rows of ViPT and SDSTrack as published have their own ({peers}) and lose the 5 % of draws that
  would turn grey (`data.grayscale_redraw`).
- Published checkpoints of ViPT and SDSTrack are tracked with and not trained again; their authors' training lists are not quite
  ours (VisEvent 500 sequences where our rows have 293), so that a difference to them is not of the method alone.
- Lists on the paper's data: {lists}.
  The paper has 295 training and 219 test sequences of VisEvent (App. A.1) and prints no lists: ours are SRTrack's, 293 and 218.
- Every table that compares ways of tuning has the control row: fine-tuning at MST's learning rate x 0.175, the mean of 1 - m.
- Hardware: the benchmark needs one CPU core and 1 GB for each run at a time; the time is one run on one core (Xeon with AMX).
  The paper's data need a GPU of 24 GB; the time is the training's operations at {speed:.0f} TFLOP/s (published: 8 NVIDIA 3090
  Ti; one H100 reaches 83 in bf16, 160 with `run.graph=true`, 200 with `run.compile=true` too). `mst reproduce` measures both on
  the machine it runs on, before it starts.
- Systems that are not ours have no command here: their own code through `mst eval --tracker`, or their raw results through
  `mst score`; see [trackers.md](trackers.md). Where published weights lie: [weights.md](weights.md).
"""

SWEPT = """\
## What was swept

Success rates on the validation split, by `mst reproduce sweep`: `mstrack/reproduce/sweeps.csv`, whose best value (bold)
is taken. One training run for each value at scale `tiny`, two at `micro`: neighbours are not told apart. A study that needs a
sweep on a modality that has no line here runs it first.

![Validation success rate over learning rate, scale tiny](reproduce_sweeps.svg)
"""


def render_document(plan: Plan, results: Iterable[Record], times: Iterable[Record]) -> str:
    """The page.

    Args:
        plan: What there is.
        results: Lines of the studies' CSV files.
        times: Lines of `TIME_FIELDS`: a scale and a row, seconds of a run on the benchmark,
            operations of one on the paper's data.
    """
    found = {(r["study"], r["row"], r["dataset"], r["on"].startswith("synthetic")): r for r in results}
    taken = {(line["scale"], line["row"]): line for line in times}
    counts = sorted({len(sweep.values) for sweep in plan.sweeps.values() if sweep.key == "train.lr"})
    lists = ", ".join(f"{spelled(name)} `{place.train}` and `{place.test}`" for name, place in plan.scales[PAPER].data.items())
    sizes = ", ".join(f"{spelled(name)} {place.min_size:g}" for name, place in plan.scales[PAPER].data.items())
    peers = ", ".join(f"{spelled(name)} {size:g}" for name, size in plan.rows["vipt"].min_size.items())
    swept = f"{' or '.join(map(str, counts))} values"
    head = HEAD.format(sweeps=swept, lists=lists, sizes=sizes, peers=peers, speed=SPEED / 1e12)
    parts = [head]
    for name, study in plan.studies.items():
        parts.append(f"## {name}: {study.title}\n")
        seeds = {int(r["seeds"]) for (measured, *_), r in found.items() if measured == name and r["seeds"]}
        fewer = f" Ours so far: {max(seeds)} seed(s)." if seeds and max(seeds) < study.seeds else ""
        parts.append(f"{_describe(plan, study)}{fewer}\n")
        headers = [
            "row",
            "command: mst reproduce",
            "published SR",
            "ours, synthetic SR",
            "ours, real SR",
            "one run, CPU core",
            "one run, GPU",
        ]
        rows = [_row(plan, name, study, key, found, taken.get((study.scale, key))) for key in study.rows]
        parts.append(format_table(headers, rows) + "\n")
        if study.notes:
            parts.append("\n".join(f"- {note}" for note in study.notes) + "\n")
    return "\n".join([*parts, SWEPT, *_sweeps(plan)])


def read_records(path: Path) -> list[Record]:
    """Lines of a CSV file; none where there is no file."""
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) if path.is_file() else []


def add_results(path: Path, records: Iterable[Record]) -> None:
    """Add lines of studies' CSV files to another one; a line of the same row, data set and data is replaced."""
    kept = {_identity(record): record for record in read_records(path)}
    kept |= {_identity(record): record for record in records if record["on"]}
    lines = [",".join(FIELDS), *(",".join(_quote(record.get(field, "")) for field in FIELDS) for record in kept.values())]
    write_text(path, "\n".join(lines) + "\n")


def _identity(record: Record) -> tuple[str, ...]:
    return record["study"], record["row"], record["dataset"], record["on"]


def _quote(text: str) -> str:
    return f'"{text}"' if "," in text else text


def _describe(plan: Plan, study: Study) -> str:
    grounds = grounds_of(plan.scales[study.scale], study.columns)
    stands = "; ".join(f"{ground.name} for {', '.join(map(spelled, ground.columns))}" for ground in grounds)
    tables = " and ".join(f"Table {number}" for number in study.tables)
    text = f"Scale `{study.scale}`, {study.seeds} seed(s): {stands}."
    return f"{text} Published numbers: {tables}." if tables else f"{text} The paper prints no numbers for it."


def _row(
    plan: Plan, name: str, study: Study, key: str, found: Mapping[tuple[str, str, str, bool], Record], taken: Record | None
) -> list[str]:
    row = plan.rows[key]
    printed = {
        r.dataset: r
        for c in study.columns
        for r in published_results(c)
        if r.table in study.tables and r.label == study.rows[key]
    }
    published = ", ".join(f"{spelled(c)} {printed[c].percent['SR']:.1f}" for c in study.columns if c in printed)
    if row.needs is not None:
        return [row.label, f"none: {row.needs}", published, "not ours", "not ours", "-", "-"]
    ours = [
        _say(study, found, name, key, True, "not run yet"),
        _say(study, found, name, key, False, "needs data" if study.real else "-"),
    ]
    seconds = f"{float(taken['seconds']):.0f} s" if taken and taken["seconds"] else "not timed"
    hours = f"{float(taken['exaflop']) * 1e18 / SPEED / 3600:.1f} h" if study.real and taken and taken["exaflop"] else "-"
    return [row.label, f"`{name} --only {key}`", published, *ours, seconds, hours]


def _say(
    study: Study, found: Mapping[tuple[str, str, str, bool], Record], name: str, key: str, synthetic: bool, absent: str
) -> str:
    parts: dict[str, str] = {}
    for column in study.columns:
        record = found.get((name, key, column, synthetic))
        if record is not None and record["SR"]:
            half = f" ±{(float(record['SR_high']) - float(record['SR_low'])) / 2:.1f}" if record["SR_low"] else ""
            what = record["on"].removeprefix("synthetic ") if synthetic else spelled(column)
            parts[what] = f"{float(record['SR']):.1f}{half}"
    return ", ".join(f"{what} {number}" for what, number in parts.items()) or absent


def _sweeps(plan: Plan) -> Iterator[str]:
    """A table for each scale with sweeps that come with the package."""
    for scale in plan.scales:
        rows = []
        for sweep, what in plan.sweeps.items():
            for modality in MODALITIES:
                choice = look(sweep, scale, modality)
                if choice is None or choice.modality != modality:
                    continue
                points = [(f"{value:g}: {success:.1f}", value == choice.value) for value, success in choice.points]
                said = ", ".join(f"**{text}**" if best else text for text, best in points)
                rows.append([plan.rows[what.row].label, f"`{what.key}`", modality, said])
        if rows:
            yield f"### Scale `{scale}`\n"
            yield format_table(["method", "what", "modality", "value: SR"], rows) + "\n"
