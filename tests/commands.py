"""`mst`, as from a shell, but without the seconds that importing torch takes: forked from a process that has done it."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["torch", "cv2", "mstrack.cli", "mstrack.tracker", "mstrack.training", "mstrack.evaluation"])


def mst(*arguments: object, cwd: Path | None = None, **environment: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; what it says, and how it ends, is as from a shell.

    Args:
        arguments: Of `mst`.
        cwd: Where; by default here.
        environment: Variables on top of this process's own.
    """
    said = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("out", "err")]
        variables = {**os.environ, **{key: str(value) for key, value in environment.items()}}
        process = SERVER.Process(target=_run, args=(said, os.fspath(cwd or Path.cwd()), variables, *map(os.fspath, files)))
        process.start()
        process.join()
        code = process.exitcode
        assert code is not None
        return subprocess.CompletedProcess(["mst", *said], code, *(file.read_text(encoding="utf-8") for file in files))


def _run(arguments: list[str], folder: str, environment: dict[str, str], *files: str) -> None:
    for number, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path.insert(0, folder)
    sys.argv[1:] = arguments
    runpy.run_module("mstrack", run_name="__main__", alter_sys=True)
