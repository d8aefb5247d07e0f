"""Write docs/reproduce.md from the plan and from what has been measured.

python benchmarks/reproduce_docs.py                               # from docs/reproduce_results.csv and _times.csv
python benchmarks/reproduce_docs.py --add reproduce/table3.csv    # with the results of `mst reproduce table3`
python benchmarks/reproduce_docs.py --measure                     # with new times: about three minutes on one core
"""

import argparse
import json
import time
from functools import cache
from pathlib import Path

import torch

from mstrack.models import create_model
from mstrack.models.cost import count_flops
from mstrack.reproduce.conduct import make_data
from mstrack.reproduce.document import RESULTS, TIME_FIELDS, TIMES, add_results, read_records, render_document
from mstrack.reproduce.estimate import BACKWARD, estimate
from mstrack.reproduce.jobs import Job, Site, provisional, row_job
from mstrack.reproduce.plan import PAPER, Plan, read_plan
from mstrack.reproduce.running import Crew
from mstrack.results import write_text

DOCS = Path(__file__).parents[1] / "docs"


def measure(plan: Plan) -> list[dict[str, str]]:
    """Seconds of one run of each row on the embedded benchmark, and the operations of one on the paper's data."""
    torch.set_num_threads(1)
    wanted = dict.fromkeys((study.scale, key) for study in plan.studies.values() for key in study.rows)
    jobs = {
        (scale, key): row_job(provisional(Site(plan, scale, Path("nowhere") / scale)), key, "thermal", 0)
        for scale, key in wanted
        if plan.rows[key].needs is None
    }
    make_data(list(jobs.values()), lambda text: lambda done, total, said: None)
    lines = []
    for scale in dict.fromkeys(scale for scale, _ in jobs):
        own = {key: job for (of, key), job in jobs.items() if of == scale}
        taken = estimate([list(own.values())], Crew(devices=["cpu"]), clock=time.process_time).each
        for key, job in own.items():
            exaflop = operations(row_job(Site(plan, PAPER, Path("nowhere")), key, "fe108", 0))
            lines.append({"scale": scale, "row": key, "seconds": f"{taken[job.name]:.0f}", "exaflop": exaflop})
    return lines


@cache
def count(name: str, arguments: str) -> int:
    """Operations of a forward pass."""
    with torch.device("meta"):
        return count_flops(create_model(name, **json.loads(arguments))).total


def operations(job: Job) -> str:
    """Of a whole training, in units of 1e18; empty where nothing trains."""
    if not job.train:
        return ""
    config = job.config
    forward = count(config.model.name, json.dumps(config.model.arguments))
    return f"{BACKWARD * forward * config.train.samples * config.train.epochs / 1e18:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", type=Path, nargs="+", default=[], help="CSV files of studies")
    parser.add_argument("--measure", action="store_true", help="time the rows anew")
    options = parser.parse_args()
    plan = read_plan()
    for path in options.add:
        add_results(DOCS / RESULTS, read_records(path))
    if options.measure:
        lines = [",".join(TIME_FIELDS), *(",".join(line[field] for field in TIME_FIELDS) for line in measure(plan))]
        write_text(DOCS / TIMES, "\n".join(lines) + "\n")
    write_text(DOCS / "reproduce.md", render_document(plan, read_records(DOCS / RESULTS), read_records(DOCS / TIMES)))


if __name__ == "__main__":
    main()
