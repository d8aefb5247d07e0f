"""What starting costs: `mst --help`, `import mstrack`, and the first box of `mst track`, as a Markdown table.

    python benchmarks/startup.py [--rounds 7]

CPU time of whole processes, the least of several: what else the machine does only adds to it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2

from mstrack.measuring import BOX, make_frames

PROBES = {
    "Python alone": ["-c", "pass"],
    "`import mstrack`": ["-c", "import mstrack"],
    "`mst --help`": ["-m", "mstrack", "--help"],
    "`import torch`": ["-c", "import torch"],
}
AIMS = {"`mst --help`": "0.3", "`mst track`, first box": "3"}


def measure(arguments: list[str], rounds: int) -> tuple[float, float]:
    """Least CPU and wall seconds of a process, which finds compiled modules from the second time on, as at a user's."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    command, quiet = [sys.executable, *arguments], subprocess.DEVNULL
    found = []
    for _ in range(rounds):
        before, started = os.times(), time.perf_counter()
        subprocess.run(command, check=True, stdout=quiet, stderr=quiet, env=environment)
        wall, after = time.perf_counter() - started, os.times()
        found.append((after.children_user + after.children_system - before.children_user - before.children_system, wall))
    return min(cpu for cpu, _ in found), min(wall for _, wall in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder)
        for name in ("rgb", "aux"):
            (clip / name).mkdir()
        for number, frame in enumerate(make_frames(2)):
            cv2.imwrite(str(clip / "rgb" / f"{number}.jpg"), frame.rgb)
            cv2.imwrite(str(clip / "aux" / f"{number}.jpg"), frame.aux)
        box = ",".join(f"{value:g}" for value in BOX)
        track = ["-m", "mstrack", "track", "mst-tiny-thermal", "--rgb", f"{clip / 'rgb'}", "--aux", f"{clip / 'aux'}"]
        probes = {**PROBES, "`mst track`, first box": [*track, "--box", box, "--out", f"{clip / 'out'}", "--device", "cpu"]}
        print("| | CPU, s | wall, s | at most |\n|---|---|---|---|")
        for name, arguments in probes.items():
            cpu, wall = measure(arguments, rounds)
            print(f"| {name} | {cpu:.2f} | {wall:.2f} | {AIMS.get(name, '')} |", flush=True)
    print(
        "\nThe first box: the whole process, which also finds the second frame's box and writes both pictures and the result."
    )


if __name__ == "__main__":
    main()
