import os
import signal
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: pytest-xdist has a worker per core already
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before triton is loaded: without a GPU its kernels run on the CPU
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers share the one of the process that starts them
    _CACHE = tempfile.TemporaryDirectory(prefix="mstrack-tests-")
    os.environ["MST_CACHE"] = _CACHE.name  # before test modules are: some ask for the native kernel, which is built there

import pytest

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores Ctrl-C, and so would its children

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of goldens and oracles beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared beside this checkout: its goldens and real data are not here")
    return SHARED


@pytest.fixture(autouse=True)
def _small_data_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes into the user's own cache."""
    monkeypatch.setenv("MST_CACHE", str(tmp_path_factory.getbasetemp() / "mstrack-data"))
