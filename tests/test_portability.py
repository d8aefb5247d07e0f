"""Systems that lack what POSIX has: every module is imported, and what runs anywhere runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mstrack.errors import UserError
from mstrack.machine import cache_root

POOR = """
import contextlib, importlib, os, pathlib, pkgutil, signal, socket, sys
import cv2, numpy

MISSING = {
    os: "fork getloadavg getpgid killpg pread register_at_fork sched_getaffinity setpgid setsid",
    signal: "SIGKILL SIGHUP pthread_sigmask",
    socket: "MSG_DONTWAIT",
}
for module, names in MISSING.items():
    for name in names.split():
        with contextlib.suppress(AttributeError):
            delattr(module, name)
sys.modules["fcntl"] = sys.modules["resource"] = None


def deny(pid, number):
    raise SystemExit("os.kill was called: with 0 for a signal, that is Ctrl-C")


def hide(path, *_, **__):
    raise FileNotFoundError(2, "there is no such file", str(path))


os.kill = deny
"""
IMPORTS = """
names = [m.name for m in pkgutil.walk_packages(mstrack.__path__, "mstrack.") if not m.name.endswith(("kernels", "__main__"))]
for name in names:
    importlib.import_module(name)
print(len(names))
"""
CROPS = """
import natural_scenes
from mstrack.data.cropbuild import build
from mstrack.data.cropcache import CropCache
from mstrack.data.pairs import Pairing
folder = pathlib.Path(sys.argv[1])
scene = natural_scenes.make_sequence(folder, 9, frames=2, size=(401, 299), modality="depth")
scene.boxes[:] = 150, 100, 100, 100
build([scene], Pairing(template_size=32, search_size=64, min_frames=1), folder / "crops", scaled=False)
tiles, whole = CropCache(folder / "crops").find(scene, 0, 1), scene.open_aux(0)
print((tiles[5:250, 7:300] == whole.raw[5:250, 7:300]).all())
"""
CLAIMS = """
read, pathlib.Path.readlink = pathlib.Path.read_text, hide
pathlib.Path.read_text = lambda path, **options: hide(path) if str(path).startswith("/proc") else read(path, **options)
sys.platform = "win32"
from mstrack.claims import Claims
folder = pathlib.Path(sys.argv[1])
mine, other = Claims(folder), Claims(folder)
taken = mine.take("a"), other.take("a")
os.utime(mine.held["a"], (0, 0))
print(*taken, other.is_free("a"))
"""
TRAX = """
from mstrack.errors import UserError
from mstrack.foreign.process import TrackerProcess
with contextlib.suppress(UserError):
    TrackerProcess("python tracker.py", 1.0)
    sys.exit("it was started")
"""


def run_poor(code: str, *arguments: str, before: str = "") -> str:
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    command = [sys.executable, "-c", before + POOR + code, *arguments]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_module_is_imported() -> None:
    others = "import concurrent.futures.process, h5py, torch.utils.data, mstrack"  # they know what system they are on
    assert int(run_poor(IMPORTS, before=others)) > 100


def test_crops_are_read_from_the_cache(tmp_path: Path) -> None:
    assert run_poor(CROPS, str(tmp_path)).split() == ["True"]


def test_a_claim_lasts_as_long_as_there_are_signs_of_life(tmp_path: Path) -> None:
    assert run_poor(CLAIMS, str(tmp_path)).split() == ["True", "False", "True"]


def test_a_tracker_over_trax_is_refused_in_words() -> None:
    run_poor(TRAX)


def test_a_user_without_a_home_names_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")  # what Python says where no user has this number

    monkeypatch.setattr(Path, "expanduser", homeless)
    assert cache_root() == Path(os.environ["MST_CACHE"])
    monkeypatch.delenv("MST_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(UserError, match="MST_CACHE=FOLDER"):
        cache_root()
