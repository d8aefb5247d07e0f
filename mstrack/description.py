"""`mst info`: what a checkpoint or model is, in lines of text."""

import json
from typing import Any

from mstrack import checkpoint
from mstrack.models import Network, create_model
from mstrack.models.cost import count_flops, count_parameters
from mstrack.registry import MODELS

PAPER = {
    "ostrack-b256": "OSTrack: 92.1 M parameters (without embeddings), 58.1 GFLOPs",
    "ostrack-b384": "DropTrack: 92.1 M parameters (without embeddings), 130.6 GFLOPs",
    "protrack-b256": "ProTrack: 92.7 M parameters, 58.4 GFLOPs, those of a shallow ViPT; mixing adds none to OSTrack's",
    "vipt-b256": "ViPT on OSTrack: 92.9 M parameters, 59.9 GFLOPs; without candidate elimination this counts 58.6",
    "vipt-b384": "ViPT on DropTrack: 92.9 M parameters, 131.9 GFLOPs; without candidate elimination this counts 131.8",
    "sdstrack-b256": "SDSTrack on OSTrack: 102.1 M parameters (without embeddings, layer norms and the adapters that are never"
    " read), 108.7 GFLOPs",
    "sdstrack-b384": "SDSTrack on DropTrack: 102.1 M parameters (counted likewise), 244.2 GFLOPs",
    "mst-b256": "202.0 M parameters, 149.0 GFLOPs; the published code itself builds 206.1 M without embeddings, as here",
    "mst-b384": "202.0 M parameters, 335.3 GFLOPs; the published code itself builds 206.1 M without embeddings, as here",
}
"""What Table 7 of the paper says of these models."""

JET = ("vipt", "vipt-shallow", "sdstrack")
"""Families whose published depth weights were trained on the encoding `jet`: colours in BGR order."""


def describe(name: str) -> list[str]:
    """Lines on a checkpoint file, a shipped weight, or a model of the catalogue.

    Raises:
        UserError: None of these, or a file that is no checkpoint.
    """
    network = create_model(name) if name in MODELS else checkpoint.load(name)
    parameters, flops = count_parameters(network), count_flops(network)
    crops = [
        f"{what} {size} x {size} (factor {factor:g})"
        for what, size, factor in (
            ("template", network.template_size, network.template_factor),
            ("search", network.search_size, network.search_factor),
        )
    ]
    arguments = ", ".join(f"{key}={value!r}" for key, value in network.arguments.items())
    lines = [
        f"model        {network.name}({arguments})",
        f"modalities   {network.modalities} ({_modalities(network)})",
        f"crops        {', '.join(crops)}",
        f"parameters   {parameters.total:,} ({_millions(parameters.total - parameters.positions)} without embeddings;"
        f" {parameters.published:,} as the published code counts, with embeddings it never reads)",
        f"trainable    {parameters.trainable:,}{_tuned(network)}",
        f"GFLOPs       {_billions(flops.weights)} (2 x multiply-add, as papers count);"
        f" {_billions(flops.total)} with the products inside attention",
    ]
    provenance = getattr(network, "provenance", None) or {}
    if network.family in JET and "config" not in provenance and not network.name.endswith("-tiny"):
        lines.append("depth        encoding 'jet' (BGR order) for published depth weights")
    if network.name in PAPER:
        lines.append(f"paper        {PAPER[network.name]}")
    return lines + _provenance(provenance)


def _modalities(network: Network) -> str:
    if network.modalities == 1:
        return "RGB"
    return "RGB and auxiliary" + ("; it reads the auxiliary alone" if network.reads == (1,) else "")


def _provenance(provenance: dict[str, Any]) -> list[str]:
    """What the checkpoint says of its making, one line each; the configuration last."""
    simple = {key: value for key, value in provenance.items() if key != "config"}
    lines = [f"{key:<12} {value if isinstance(value, str) else json.dumps(value)}" for key, value in simple.items()]
    if "config" in provenance:
        lines.append(f"{'config':<12} {json.dumps(provenance['config'])}")
    return lines


def _tuned(network: Network) -> str:
    """How many parameters the recipe of a trained checkpoint moved."""
    provenance = getattr(network, "provenance", None) or {}
    return f" ({provenance['tuned']:,} were tuned)" if "tuned" in provenance else ""


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M"


def _billions(count: int) -> str:
    return f"{count / 1e9:.{1 if count > 1e10 else 3}f}"
