"""The launches of `kernels.py`: what a step of many tensors on a GPU is made of."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from mstrack.tuning import kernels
from mstrack.tuning.ranks import MOST_BITS, SORTED, tensor_bits
from mstrack.tuning.rules import Rule

TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
"""Types of gradients; others are converted."""

MOST_BINS = 1 << 23
"""Bins of the histograms that are made together: at most 32 MB, the one buffer of a step."""

MOST_ELEMENTS = 1 << 30
"""Of a tensor: kernels count in int32, and ranks twice."""

WARPS, MOST_WARPS = 8, 16
"""Of a program; the second for `count`, which has little else to do while it waits for memory."""

INTERPRETED = not isinstance(kernels.move, triton.JITFunction)
"""Whether the kernels run on the CPU, by Triton's interpreter (`TRITON_INTERPRET=1`): slow, and for tests."""

PTX = not INTERPRETED and torch.version.hip is None
"""Whether kernels may hold instructions of NVIDIA's."""


def runs_on(parameter: Tensor) -> bool:
    """Whether the kernels can move a parameter."""
    here = parameter.device.type == ("cpu" if INTERPRETED else "cuda")
    return here and parameter.dtype is torch.float32 and parameter.numel() <= MOST_ELEMENTS and is_usable()


@lru_cache(maxsize=1)
def is_usable() -> bool:
    """Whether Triton can launch here, which takes a C compiler, Python's headers, a cache to write, and a GPU that it knows."""
    if INTERPRETED:
        return True
    try:
        triton.runtime.driver.active.get_current_target()  # builds what launches
    except Exception:
        return False
    return torch.cuda.get_device_capability() >= (7, 0)


class TritonBatch:
    """Parameters of one group that the kernels move together; see `Batch`.

    Args:
        parameters: float32, dense, on one device.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = sorted(parameters, key=lambda p: p.numel())
        sizes = [p.numel() for p in self.parameters]
        device = self.parameters[0].device
        self._waves = list(_waves(sizes, device))
        offsets = [0] * len(sizes)
        for wave in self._waves:
            offsets[wave.first : wave.first + len(wave.offsets)] = wave.offsets
        self._fixed = [(size, tensor_bits(size), offset) for size, offset in zip(sizes, offsets, strict=True)]
        self._table = _Table(len(sizes), device)
        self._factors = torch.empty(len(sizes), 3, device=device)
        self._counts = torch.empty(max((wave.bins for wave in self._waves), default=0), dtype=torch.int32, device=device)
        small = sum(size <= SORTED for size in sizes)
        self._all = _places(sizes, 0, kernels.TILE.value, device)
        self._small = _places(sizes[:small], 0, kernels.ROW.value, device)

    def step(
        self,
        gradients: Sequence[Tensor],
        states: Sequence[Mapping[str, Any]],
        group: Mapping[str, Any],
        rule: Rule,
        skip: Tensor | None,
    ) -> None:
        """Take one step; a learning rate that is a tensor on the device is read there."""
        with _on(self._factors.device):
            self._step(gradients, states, group, rule, skip)
        torch.autograd.graph.increment_version([*self.parameters, *(state["step"] for state in states)])

    def _step(
        self,
        gradients: Sequence[Tensor],
        states: Sequence[Mapping[str, Any]],
        group: Mapping[str, Any],
        rule: Rule,
        skip: Tensor | None,
    ) -> None:
        gradients, kind = _alike(gradients)
        names = ("exp_avg", "exp_avg_sq", "step", *(("rho",) if rule.velocity else ()))
        columns = [gradients, self.parameters, *([state[name] for state in states] for name in names)]
        addresses = [[tensor.data_ptr() for tensor in column] for column in columns]
        rows = self._table.send(addresses, self._fixed)
        heeds = {"skip": rows if skip is None else skip.to(rows.device).view(torch.uint8), "skips": skip is not None}
        self._advance(rows, group, heeds)
        beta1, beta2 = group["betas"]
        numbers = {"low": rule.low, "fresh1": 1 - beta1, "beta2": beta2, "fresh2": 1 - beta2, "eps": group["eps"]}
        common = numbers | heeds | {"factors": self._factors, "velocity": rule.velocity}

        if rule.low == rule.high or rule.table is not None:
            table = self._factors if rule.table is None else rule.table.mul(rule.low - rule.high).add_(1 - rule.low)
            how = {"ranked": rule.table is not None, "shared": True, "kind": kind, "aligned": self._table.aligned()}
            _launch(kernels.step_by_table, WARPS, self._all, rows, table=table, **common, **how)
        else:
            for wave in self._waves:
                how = {"shared": False, "kind": kind, "aligned": self._table.aligned(wave.first)}
                counts = self._counts[: wave.bins].zero_()
                _launch(kernels.count, MOST_WARPS, wave.counted, rows, counts=counts, ptx=PTX, **how)
                kernels.tabulate[(len(wave.offsets),)](rows, wave.first, counts, rule.low, rule.high, num_warps=WARPS)
                table = counts.view(torch.float32)
                _launch(kernels.step_by_table, WARPS, wave.moved, rows, table=table, ranked=True, **common, **how)
            _launch(kernels.step_by_pairs, WARPS, self._small, rows, high=rule.high, kind=kind, **common)

    def _advance(self, rows: Tensor, group: Mapping[str, Any], heeds: Mapping[str, Any]) -> None:
        """Count the step of every tensor."""
        (beta1, rest1), (beta2, rest2) = map(_halves, group["betas"])
        lr = group["lr"].to(rows.device) if isinstance(group["lr"], Tensor) else group["lr"]
        kernels.advance[(triton.cdiv(len(self.parameters), kernels.TENSORS.value),)](
            rows, len(self.parameters), self._factors, lr=lr, decay=group["weight_decay"], tensor_lr=isinstance(lr, Tensor),
            beta1=beta1, rest1=rest1, beta2=beta2, rest2=rest2, **heeds,
        )  # fmt: skip


def count_into(counts: Tensor, gradients: Sequence[Tensor]) -> None:
    """Add the occurrences of the top 16 bits of |gradient|.

    Args:
        counts: int64 (65536,).
        gradients: Dense, on its device.
    """
    gradients, kind = _alike(gradients)
    with _on(counts.device):
        table, fixed, places = _counting(tuple(g.numel() for g in gradients), counts.device)
        rows = table.send([[g.data_ptr() for g in gradients]], fixed)
        found = torch.zeros(1 << MOST_BITS, dtype=torch.int32, device=counts.device)
        how = {"shared": True, "ptx": PTX, "kind": kind, "aligned": table.aligned()}
        _launch(kernels.count, MOST_WARPS, places, rows, counts=found, **how)
        counts.add_(found)


# ---------------------------------------------------------------- what a launch is given
class _Wave(NamedTuple):
    """Tensors that are ranked by histograms together: from the row `first` on, each with its bins from its offset on."""

    first: int
    offsets: list[int]
    bins: int
    counted: Tensor
    moved: Tensor


def _waves(sizes: Sequence[int], device: torch.device) -> Iterator[_Wave]:
    """Divide the tensors that are too large to be ranked exactly, which come last, into waves of limited memory."""
    first = sum(size <= SORTED for size in sizes)
    while first < len(sizes):
        offsets: list[int] = []
        bins = 0
        for size in sizes[first:]:
            wanted = 1 << tensor_bits(size)
            if offsets and bins + wanted > MOST_BINS:
                break
            offsets.append(bins)
            bins += wanted
        inside = sizes[first : first + len(offsets)]
        places = (_places(inside, first, span.value, device) for span in (kernels.COUNTED, kernels.TILE))
        yield _Wave(first, offsets, bins, *places)
        first += len(offsets)


def _places(sizes: Sequence[int], first: int, span: int, device: torch.device) -> Tensor:
    """int32 (P, 2): the row and the number of every stretch of that many elements."""
    pairs = [(first + row, number) for row, size in enumerate(sizes) for number in range(triton.cdiv(size, span))]
    return torch.tensor(pairs, dtype=torch.int32, device=device).view(-1, 2)


class _Table:
    """The table of addresses on the device, written anew where one has changed; the host never waits for it."""

    def __init__(self, tensors: int, device: torch.device) -> None:
        self._rows = torch.zeros(tensors, kernels.COLUMNS.value, dtype=torch.int64, device=device)
        self._cells: list[list[int]] = []
        self._even: list[bool] = []
        self._spare: Tensor | None = self._pinned()
        self._captured: list[Tensor] = []

    def send(self, addresses: Sequence[Sequence[int]], fixed: Sequence[tuple[int, int, int]]) -> Tensor:
        """The table with these addresses.

        Args:
            addresses: Of all tensors: gradients, and where they are moved parameters, first and second moments, counts of
                steps, and velocities.
            fixed: Size, bits and place of the ranks of each.
        """
        gradients, *others = addresses
        cells = [list(row) for row in zip(gradients, *zip(*fixed, strict=True), *others, strict=True)]
        capturing = self._rows.is_cuda and torch.cuda.is_current_stream_capturing()
        if capturing or self._captured or cells != self._cells:  # a replay writes the rows too
            self._cells = cells
            moved = {kernels.GRADIENT.value, kernels.SIZE.value, *range(kernels.PARAMETER.value, len(cells[0]))}
            self._even = [all(row[column] % 16 == 0 for column in moved - {kernels.STEP.value}) for row in cells]
            written = self._pinned() if self._spare is None or not capturing else self._spare
            written[:, : len(cells[0])] = torch.tensor(cells, dtype=torch.int64)
            self._rows.copy_(written, non_blocking=True)
            if capturing:
                self._captured.append(written)  # a replay reads it again
                self._spare = None
        if self._spare is None and not capturing:
            self._spare = self._pinned()
        return self._rows

    def aligned(self, first: int = 0) -> bool:
        """Whether all addresses and sizes from a row on are multiples of 16: the kernels then read four elements at a time."""
        return all(self._even[first:])

    def _pinned(self) -> Tensor:
        return torch.zeros(self._rows.shape, dtype=torch.int64, pin_memory=self._rows.is_cuda)


@lru_cache(maxsize=1024)
def _counting(sizes: tuple[int, ...], device: torch.device) -> tuple[_Table, list[tuple[int, int, int]], Tensor]:
    """What it takes to count tensors of these sizes in one histogram."""
    return _Table(len(sizes), device), [(s, MOST_BITS, 0) for s in sizes], _places(sizes, 0, kernels.COUNTED.value, device)


def _alike(gradients: Sequence[Tensor]) -> tuple[Sequence[Tensor], tl.dtype]:
    """Gradients of one type that the kernels read, and which it is."""
    types = {gradient.dtype for gradient in gradients}
    if len(types) == 1 and types <= TYPES.keys():
        return gradients, TYPES[types.pop()]
    return [gradient.to(torch.float32) for gradient in gradients], tl.float32


def _launch(kernel: Any, warps: int, places: Tensor, rows: Tensor, **arguments: Any) -> None:
    """A program for each place, if there are any."""
    if len(places):
        kernel[(len(places),)](rows, places, num_warps=warps, **arguments)


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Launches go to the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _halves(number: float) -> tuple[float, float]:
    """A number as the sum of two that float32 holds."""
    high = struct.unpack("f", struct.pack("f", number))[0]
    return high, number - high
