"""An ONNX file of a network, which says itself how it is fed; written by torch's exporter, run by ONNX Runtime."""

import importlib.util
import json
import logging
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mstrack.checkpoint import GEOMETRY
from mstrack.errors import UserError
from mstrack.models.blocks import MEAN, STD, Prediction

FORMAT = "mstrack onnx 1"
INPUTS, OUTPUTS = ("template", "search"), Prediction._fields
AXES = {
    "template, search": "batch x modality (RGB, then the auxiliary one) x channel (R, G, B) x row x column, float32:"
    f" (x / 255 - {MEAN}) / {STD} of a crop around the target, modality zeros where it lacks",
    "score": "batch x 1 x n x n: probability that the target's centre lies in the cell",
    "size": "batch x 2 x n x n: width and height as a fraction of the search crop",
    "offset": "batch x 2 x n x n: x and y of the centre inside the cell, in cells",
}
"""What the numbers are; part of the file. The batch is free, the number of modalities is the network's."""
LARGEST = 2**31 - 2**24
"""Bytes of weights that fit into one file: protobuf ends at 2 GiB."""
INSTALL = "pip install 'mstrack[onnx]'"


def write_onnx(network: nn.Module, path: Path) -> None:
    """Write a network with its weights in float32; the file appears when it is whole.

    Args:
        network: A network of `mstrack.models`, in eval mode.
        path: The file.

    Raises:
        UserError: The exporter is not installed, or cannot express this network; it does not take two batches of images, or
            has too many weights; the file cannot be written.
    """
    model: Any = network
    lacking = [package for package in ("onnx", "onnxscript") if importlib.util.find_spec(package) is None]
    if lacking:
        raise UserError(f"writing ONNX needs {' and '.join(lacking)}, which is not installed: {INSTALL}.")
    name = getattr(model, "name", type(model).__name__)
    if len(model.inputs()) != len(INPUTS):
        raise UserError(
            f"model '{name}' takes {len(model.inputs())} inputs (event voxels), an ONNX file takes template and search"
            " crops: export one with event frames (events=frames)."
        )
    if 4 * sum(parameter.numel() for parameter in model.parameters()) > LARGEST:
        raise UserError(f"model '{name}' has more than 2 GiB of weights, which does not fit into one ONNX file.")
    program = _export(model, name)
    provenance = getattr(model, "provenance", {})
    program.model.metadata_props.update(
        {
            "format": FORMAT,
            "name": name,
            "arguments": json.dumps(getattr(model, "arguments", {})),
            "geometry": json.dumps({key: getattr(model, key) for key in GEOMETRY}),
            "provenance": json.dumps(provenance),
            "axes": json.dumps(AXES),
        }
    )
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".onnx-") as folder:
            part = Path(folder) / path.name
            program.save(part)
            part.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.") from error


def _sort_stably(values: Any, *, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """`torch.sort` with `stable`, which torch's exporter lacks: `TopK` of all, which keeps equal numbers in their order too."""
    from onnxscript import opset18 as op

    count = op.Gather(op.Shape(values), op.Constant(value_ints=[dim]))
    return op.TopK(values, count, axis=dim, largest=int(descending), sorted=1)


def _export(model: Any, name: str) -> Any:
    """The network as an ONNX program with a free batch, by torch's exporter, which is quiet about what others lack."""
    example = tuple(torch.zeros(2, *part.shape[1:], device=next(model.parameters()).device) for part in model.inputs())
    batch = {0: torch.export.Dim("batch", min=1, max=4096)}
    logger, level = logging.getLogger("torch.onnx"), logging.getLogger("torch.onnx").level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                model,
                example,
                dynamo=True,
                input_names=INPUTS,
                output_names=OUTPUTS,
                dynamic_shapes=(batch, batch),
                custom_translation_table={torch.ops.aten.sort.stable: _sort_stably},
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise UserError(f"model '{name}' cannot be written as ONNX: {_reason(error)}") from error
    finally:
        logger.setLevel(level)


def _reason(error: BaseException) -> str:
    """The first line of what lies at the bottom of an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).partition("\n")[0]


def has_cuda() -> bool:
    """Whether there is an ONNX Runtime that computes on a GPU."""
    try:
        import onnxruntime
    except ImportError:
        return False
    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


class OnnxFile:
    """A network from a file of `write_onnx`, run by ONNX Runtime.

    Args:
        path: The file; it is not needed afterwards.
        device: Where the tensors are that it is called with. On CUDA with an `onnxruntime-gpu`, it computes there too.

    Attributes:
        geometry: Sizes and factors of the crops, and the number of modalities.
        provenance: What made the weights.
        name: The model's name.

    Raises:
        UserError: ONNX Runtime is not installed; no such file; not such a file.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError(f"running ONNX needs onnxruntime, which is not installed: {INSTALL}.") from error
        if not path.is_file():
            raise UserError(f"there is no ONNX file {path}; `mst export CHECKPOINT {path}` writes one.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        providers: list[Any] = ["CPUExecutionProvider"]
        if device.type == "cuda" and has_cuda():
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
        try:
            self._session = onnxruntime.InferenceSession(os.fspath(path), options, providers)
        except Exception as error:
            raise UserError(f"{path} is not an ONNX file that can be run: {str(error).splitlines()[0]}") from error
        said = self._session.get_modelmeta().custom_metadata_map
        if said.get("format") != FORMAT:
            found = said.get("format", "none")
            raise UserError(f"{path} is an ONNX file of format '{found}', expected '{FORMAT}': write it with `mst export`.")
        self.geometry: dict[str, Any] = json.loads(said["geometry"])
        self.provenance: dict[str, Any] = json.loads(said["provenance"])
        self.name = said["name"]
        self._device = device

    def __call__(self, template: Tensor, search: Tensor) -> Prediction:
        """As of a network."""
        fed = {key: np.ascontiguousarray(part.cpu().numpy()) for key, part in zip(INPUTS, (template, search), strict=True)}
        maps = self._session.run(list(OUTPUTS), fed)
        return Prediction(*(torch.from_numpy(found).to(self._device) for found in maps))
