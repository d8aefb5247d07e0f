"""How a network is run: something called as a network is, `(template, search) -> Prediction`, chosen by name.

`eager`: the module as it is. `onednn`, on a CPU: weights in the layout of oneDNN, batch norms folded into convolutions.
`graph`, on a GPU: the whole forward pass as one CUDA graph for each batch size. `compiled`: its blocks by `torch.compile`, and
on a GPU a graph of that. `onnx`: ONNX Runtime. `auto`: the fastest here that needs nothing installed and no time to start.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mstrack import checkpoint
from mstrack.backends.graphs import Graphs
from mstrack.backends.onednn import is_supported, repack
from mstrack.backends.precision import PRECISIONS, halve, in_halves, keep_float32, warn_of_emulation
from mstrack.errors import UserError
from mstrack.models.blocks import Prediction
from mstrack.registry import unknown

__all__ = ["BACKENDS", "PRECISIONS", "Backend", "Geometry", "open_backend"]

BACKENDS = ("eager", "onednn", "graph", "compiled", "onnx")
WIDE = 256
"""Channels of a token from which another layout of the weights pays; below, a network is bound by calls, not by products."""


class Geometry(NamedTuple):
    """What a tracker must know of a network to feed it, see `models.network.Network`."""

    template_size: int
    search_size: int
    template_factor: float
    search_factor: float
    modalities: int

    @classmethod
    def of(cls, network: Any) -> "Geometry":
        """That of a network."""
        return cls(*(getattr(network, name) for name in cls._fields))


@dataclass(frozen=True)
class Backend:
    """A network that is ready to run.

    Attributes:
        name: Of `BACKENDS`.
        precision: Of `PRECISIONS`.
        device: Where its arguments must lie.
        geometry: How it is fed.
        run: Template B x M x 3 x h x w and search crop B x M x 3 x H x W, normalised, to maps. They may be overwritten by the
            next call.
        provenance: What made the weights.
    """

    name: str
    precision: str
    device: torch.device
    geometry: Geometry
    run: Callable[[Tensor, Tensor], Prediction]
    provenance: dict[str, Any] = field(default_factory=dict)

    def __call__(self, template: Tensor, search: Tensor) -> Prediction:
        """See `run`."""
        return self.run(template, search)


def open_backend(
    network: nn.Module | str | Path,
    name: str = "auto",
    device: torch.device | str | None = None,
    precision: str = "fp32",
) -> Backend:
    """Make a network ready to run.

    Args:
        network: A network of `mstrack.models`, which is moved to the device and put into eval mode. `eager`, `graph` and
            `compiled` in fp32 run with its very weights, which must stay where they are; the others with copies. Or what
            `checkpoint.load` takes. Or an .onnx file that `mst export` wrote, where `name` is `onnx` or `auto`.
        name: Of `BACKENDS`, or `auto`.
        device: Where it runs; None: where it is.
        precision: `fp32`, or `bf16`: linear layers and attention multiply bfloat16 numbers; sums, norms, embeddings and the
            head stay in float32.

    Raises:
        UserError: Unknown names; no such file; a backend that this device, this precision or this network cannot have.
    """
    if name != "auto" and name not in BACKENDS:
        raise UserError(unknown("backend", name, (*BACKENDS, "auto")))
    if precision not in PRECISIONS:
        raise UserError(unknown("precision", precision, PRECISIONS))
    if isinstance(network, str | Path) and Path(network).suffix == ".onnx":
        return _open_file(Path(network), name, device, precision)
    loaded = checkpoint.load(network) if isinstance(network, str | Path) else network
    model: Any = loaded.to(device).eval()
    place = next(model.parameters()).device
    keep_float32(place)
    if name == "auto":
        name = choose(model, place, precision)
    _check(name, place, precision)
    if precision == "bf16":
        warn_of_emulation(place)
    geometry, provenance = Geometry.of(model), getattr(model, "provenance", {})
    if name == "onnx":
        return Backend(name, precision, place, geometry, _export_and_open(model, place), provenance)
    if name == "onednn":
        model = repack(model, precision)
    elif precision == "bf16":
        model = halve(model, place)
    if name == "compiled":
        from mstrack.backends.compiled import compile_network

        model = compile_network(model)
    run: Callable[[Tensor, Tensor], Prediction] = in_halves(model, place) if precision == "bf16" else model
    if name in ("graph", "compiled"):
        run = Graphs(run)
    return Backend(name, precision, place, geometry, run, provenance)


def choose(network: Any, device: torch.device, precision: str = "fp32") -> str:
    """What `auto` stands for: graphs on a GPU; on a CPU oneDNN's layout for wide networks."""
    if device.type == "cuda":
        return "graph"
    is_wide = getattr(network, "width", 0) >= WIDE
    return "onednn" if device.type == "cpu" and is_wide and is_supported(precision) else "eager"


def _check(name: str, device: torch.device, precision: str) -> None:
    """Refuse what cannot be."""
    if name == "graph" and device.type != "cuda":
        raise UserError(f"backend 'graph' is a CUDA graph, and this is {device.type}: use onednn, onnx or eager.")
    if name == "onednn" and (device.type != "cpu" or not is_supported()):
        raise UserError(f"backend 'onednn' is for the CPU, with a torch built with oneDNN; this is {device.type}: use eager.")
    if name == "onednn" and not is_supported(precision):
        raise UserError(
            f"backend 'onednn' computes in {precision} only on a processor with AVX-512 or better, which this is not:"
            f" use fp32, or eager, which is slow in {precision} here."
        )
    if name == "onnx" and precision != "fp32":
        raise UserError(f"backend 'onnx' computes in fp32, not in {precision}: use eager or onednn for {precision}.")


def _open_file(path: Path, name: str, device: torch.device | str | None, precision: str) -> Backend:
    from mstrack.backends.onnxfile import OnnxFile

    if name not in ("onnx", "auto"):
        raise UserError(f"{path} is run by ONNX Runtime: backend 'onnx' or 'auto', not '{name}'. Others take the checkpoint.")
    place = torch.device(device or "cpu")
    _check("onnx", place, precision)
    file = OnnxFile(path, place)
    geometry = Geometry(**{key: file.geometry[key] for key in Geometry._fields})
    return Backend("onnx", precision, place, geometry, file, file.provenance)


def _export_and_open(network: nn.Module, device: torch.device) -> Callable[[Tensor, Tensor], Prediction]:
    from mstrack.backends.onnxfile import OnnxFile, write_onnx

    with tempfile.TemporaryDirectory(prefix="mstrack-") as folder:
        path = Path(folder) / "network.onnx"
        write_onnx(network, path)
        return OnnxFile(path, device)
