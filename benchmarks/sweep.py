"""Learning rates of the quickstart's methods, chosen on the validation split: the same budget and grid for each method.

    python benchmarks/sweep.py --jobs 2            # all modalities and methods; resumes, about 70 minutes on 2 cores

Writes `mstrack/recipes/quickstart_sweep.csv`, which `mst quickstart` reads. The test split is never touched.
"""

import argparse
import csv
import itertools
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mstrack.quickstart import SWEPT, Row

CSV = Path(__file__).parents[1] / "mstrack" / "recipes" / "quickstart_sweep.csv"
FIELDS = ("modality", "method", "lr", "seed", "loss", "SR")
FULL = (1e-4, 3e-4, 1e-3, 3e-3)
EFFECTIVE = (6e-4, 2e-3, 6e-3, 2e-2)  # about the same after MST's mean factor 0.175
GRIDS = {"full": FULL, "mst": EFFECTIVE, "default": EFFECTIVE}


def measure(row: Row, modality: str, lr: float, seed: int, runs: Path) -> dict[str, object]:
    """Train once in a process of its own and read its last validation."""
    out = runs / f"{modality}-{row.name}-{lr:g}-{seed}"
    settings = [*row.overrides, f"data.modality={modality}", f"train.lr={lr}", f"train.seed={seed}", f"run.out={out}"]
    settings += ["train.val_clips=30", "train.val_frames=30", "run.tensorboard=false", "run.workers=0"]
    code = "import sys, torch; torch.set_num_threads(1); from mstrack.training import train; train('quickstart', sys.argv[1:])"
    subprocess.run([sys.executable, "-c", code, *settings], check=True)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    last = next(line for line in reversed(lines) if "val/SR" in line)
    return {"modality": modality, "method": row.name, "lr": lr, "seed": seed, "loss": last["val/loss"], "SR": last["val/SR"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modality", nargs="+", default=["thermal", "depth", "event"])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/sweep"))
    options = parser.parse_args()

    lines = list(csv.DictReader(CSV.read_text().splitlines())) if CSV.exists() else []
    known = {(line["modality"], line["method"], float(line["lr"]), int(line["seed"])) for line in lines}
    wanted = [
        (row, modality, lr, seed)
        for modality, seed, row in itertools.product(options.modality, range(options.seeds), SWEPT)
        for lr in GRIDS[row.name]
        if (modality, row.name, lr, seed) not in known
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        for found in pool.map(lambda job: measure(*job, options.runs), wanted):
            lines.append({key: str(value) for key, value in found.items()})
            with CSV.open("w", newline="") as file:
                writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(lines)
            print(found, flush=True)


if __name__ == "__main__":
    main()
