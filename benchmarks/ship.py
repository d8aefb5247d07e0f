"""Turn a finished run into a shipped weight: 16 bits, with the scores of exactly those 16 bits in its provenance.

mst train ostrack-tiny && python benchmarks/ship.py runs/ostrack-tiny
"""

import argparse
import tempfile
from pathlib import Path

import torch

from mstrack import checkpoint
from mstrack.evaluation import evaluate

WEIGHTS = Path(__file__).parents[1] / "mstrack" / "weights"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run; its name becomes the name of the weight")
    options = parser.parse_args()
    target = WEIGHTS / f"{options.run.name}.safetensors"
    model = checkpoint.load(options.run / "model.safetensors")
    checkpoint.save(target, model, model.provenance, dtype=torch.float16)
    with tempfile.TemporaryDirectory() as folder:
        found = evaluate(target, "synthetic", folder)
    scores = {name: round(value, 2) for name, value in found.summary.items()}
    checkpoint.save(target, model, {**model.provenance, "synthetic test": scores}, dtype=torch.float16)
    print(f"{target.name}: {target.stat().st_size / 1e6:.1f} MB, {scores}")


if __name__ == "__main__":
    main()
