"""The step of `native.c` for a CPU: built once by the system's C compiler where there is one, and kept in the cache."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mstrack.errors import UserError
from mstrack.machine import cache_root, describe_processor
from mstrack.tuning.ranks import tensor_bits
from mstrack.tuning.rules import Rule

SOURCE = Path(__file__).with_name("native.c")
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
PATIENCE = 120
"""Seconds that a compiler may take."""


class Job(ctypes.Structure):
    """`Job` of `native.c`, field by field."""

    _fields_ = [
        ("tensors", ctypes.c_int64),
        ("next", ctypes.c_int64),
        ("rooms_taken", ctypes.c_int64),
        ("rooms", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in ("sizes", "bits", "parameters", "gradients", "means", "squares")),
        *((name, ctypes.c_void_p) for name in ("velocities", "steps", "scales", "counts")),
        *((name, ctypes.c_double) for name in ("rate", "beta1", "beta2", "eps", "decay", "low", "high")),
    ]


class NativeBatch:
    """Parameters of one group that `native.c` moves together.

    Args:
        parameters: float32, dense, on the CPU.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = sorted(parameters, key=lambda p: -p.numel())  # the largest first: no thread waits long at the end
        sizes = [p.numel() for p in self.parameters]
        self._sizes, self._bits = integers(sizes), integers([tensor_bits(size) for size in sizes])

    def step(
        self,
        gradients: Sequence[Tensor],
        states: Sequence[Mapping[str, Any]],
        group: Mapping[str, Any],
        rule: Rule,
        skip: Tensor | None,
    ) -> None:
        """Take one step.

        Args:
            gradients: Of `parameters`, in their memory order.
            states: Theirs, with `rho` where the rule is of velocity.
            group: The hyperparameters.
            rule: What becomes of the step.
            skip: When it is true, nothing changes.
        """
        if skip is not None and bool(skip):
            return
        job = Job(tensors=len(self.parameters), low=rule.low, high=rule.high)
        scales = None if rule.table is None else rule.table.mul(rule.low - rule.high).add_(1 - rule.low)
        gradients = [g.to(torch.float32) for g in gradients]
        columns = {
            "sizes": self._sizes,
            "bits": self._bits,
            "parameters": addresses(self.parameters),
            "gradients": addresses(gradients),
            "means": addresses([state["exp_avg"] for state in states]),
            "squares": addresses([state["exp_avg_sq"] for state in states]),
            "velocities": addresses([state["rho"] for state in states]) if rule.velocity else None,
            "steps": addresses([state["step"] for state in states]),
        }
        for name, column in columns.items():
            setattr(job, name, ctypes.addressof(column) if column is not None else None)
        job.scales = None if scales is None else scales.data_ptr()
        job.rate, job.eps, job.decay = float(group["lr"]), group["eps"], group["weight_decay"]
        job.beta1, job.beta2 = group["betas"]
        _run("step", job)
        torch.autograd.graph.increment_version([*self.parameters, *(state["step"] for state in states)])


def count_into(counts: Tensor, gradients: Sequence[Tensor]) -> None:
    """Add the occurrences of the top 16 bits of |gradient|.

    Args:
        counts: int64 (65536,).
        gradients: float32, dense, on the CPU.
    """
    sizes, places = integers([g.numel() for g in gradients]), addresses(gradients)
    job = Job(tensors=len(gradients), counts=counts.data_ptr())
    job.sizes, job.gradients = ctypes.addressof(sizes), ctypes.addressof(places)
    _run("count", job)


def integers(values: Sequence[int]) -> ctypes.Array[ctypes.c_int64]:
    """A column of a job."""
    return (ctypes.c_int64 * len(values))(*values)


def addresses(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_int64]:
    """A column of a job: where tensors begin."""
    return integers([tensor.data_ptr() for tensor in tensors])


def _run(name: str, job: Job) -> None:
    """Let as many threads as torch uses work at a job: those of its own OpenMP pool where it has one."""
    library = load_library()
    assert library is not None
    threads = max(1, min(torch.get_num_threads(), job.tensors))
    job.rooms = _OWN.reserve(threads * library.room_size())
    (_work_in_pool if _find_pool() else work_in_threads)(library[name], job, threads)


@lru_cache(maxsize=1)
def _find_pool() -> Any:
    """`GOMP_parallel` of the OpenMP library that torch has loaded, which runs a C function on the threads of its pool."""
    try:
        return ctypes.CDLL(None).GOMP_parallel
    except (AttributeError, OSError, TypeError):
        return None


def _work_in_pool(work: Any, job: Job, threads: int) -> None:
    _find_pool()(work, ctypes.byref(job), ctypes.c_uint(threads), ctypes.c_uint(0))


def work_in_threads(work: Any, job: Job, threads: int) -> None:
    """Let new threads of Python work at a job, where there is no pool."""
    with ThreadPoolExecutor(threads) as workers:
        list(workers.map(lambda _: work(ctypes.byref(job)), range(threads)))


class _Rooms(threading.local):
    """What `native.c` works in: zeros, which it leaves behind; one buffer for each thread of Python that takes steps."""

    def __init__(self) -> None:
        self._buffer = torch.zeros(0, dtype=torch.uint8)

    def reserve(self, size: int) -> int:
        """The address of at least so many bytes."""
        if self._buffer.numel() < size:
            self._buffer = torch.zeros(size, dtype=torch.uint8)
        return self._buffer.data_ptr()


_OWN = _Rooms()


# ---------------------------------------------------------------- building
@lru_cache(maxsize=1)
def load_library() -> ctypes.CDLL | None:
    """`native.c`, compiled for this machine; none where there is no compiler, or what it makes does not load."""
    compiler = _find_compiler()
    if compiler is None:
        return None
    try:
        here = platform.machine(), describe_processor("flags", "Features")  # what another one built may not run on this
        text = repr((SOURCE.read_text(), FLAGS, compiler, _ask(compiler, "--version"), *here))
        kept = cache_root() / "native" / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.so"
        library = _load(kept) or _build(compiler, kept)
        library.room_size.restype = ctypes.c_int64
        return library
    except (OSError, subprocess.SubprocessError, UserError):
        return None


def _load(kept: Path) -> ctypes.CDLL | None:
    """What is kept, if it is there and loads: a disk may be mounted so that nothing on it runs."""
    try:
        return ctypes.CDLL(str(kept)) if kept.is_file() else None
    except OSError:
        return None


def _build(compiler: str, kept: Path) -> ctypes.CDLL:
    """Compile, load, and keep what loads; a cache that cannot be written is done without."""
    with tempfile.TemporaryDirectory(prefix="mstrack-") as folder:
        made = Path(folder) / "native.so"
        _ask(compiler, *FLAGS, str(SOURCE), "-o", str(made), "-lm")
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            beside = kept.with_name(f".{kept.name}-{os.getpid()}")
            shutil.copyfile(made, beside)
            beside.replace(kept)
            return ctypes.CDLL(str(kept))
        except OSError:
            return ctypes.CDLL(str(made))


def _find_compiler() -> str | None:
    """`$CC` or what the system calls its C compiler."""
    names = [os.environ["CC"]] if os.environ.get("CC") else ["cc", "gcc", "clang"]
    return next((found for found in map(shutil.which, names) if found), None)


def _ask(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
