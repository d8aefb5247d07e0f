"""`mst info`: what a checkpoint or model is, in lines of text."""

from typing import Any

import yaml

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


def describe(source: Network | str) -> list[str]:
    """Lines on a checkpoint file, a shipped weight, a model of the catalogue, or a network.

    Raises:
        UserError: None of these, or a file that is no checkpoint.
    """
    if isinstance(source, str):
        source = create_model(source) if source in MODELS else checkpoint.load(source)
    network = source
    parameters, flops = count_parameters(network), count_flops(network)
    crops = [
        f"{what} {size} x {size} (factor {factor:g})"
        for what, size, factor in (
            ("template", network.template_size, network.template_factor),
            ("search", network.search_size, network.search_factor),
        )
    ]
    arguments = ", ".join(f"{key}={value!r}" for key, value in network.arguments.items())
    said = {
        "model": f"{network.name}({arguments})",
        "modalities": f"{network.modalities} ({_modalities(network)})",
        "crops": ", ".join(crops),
        "parameters": f"{parameters.total:,} ({_millions(parameters.total - parameters.positions)} without embeddings;"
        f" {parameters.published:,} as the published code counts, with embeddings it never reads)",
        "trainable": f"{parameters.trainable:,}{_tuned(network)}",
        "GFLOPs": f"{_billions(flops.weights)} (2 x multiply-add, as papers count);"
        f" {_billions(flops.total)} with the products inside attention",
    }
    provenance = getattr(network, "provenance", None) or {}
    if network.family in JET and "config" not in provenance and not network.name.endswith("-tiny"):
        said["depth"] = "encoding 'jet' (BGR order) for published depth weights"
    if network.name in PAPER:
        said["paper"] = PAPER[network.name]
    pairs = [*said.items(), *_provenance(provenance)]
    width = max(12, *(len(name) for name, _ in pairs))
    lines = []
    for name, value in pairs:
        first, *rest = value.splitlines() or [""]
        lines += [f"{name:<{width}} {first}", *(f"{'':<{width}} {line}" for line in rest)]
    return lines


def _modalities(network: Network) -> str:
    if network.modalities == 1:
        return "RGB"
    return "RGB and auxiliary" + ("; it reads the auxiliary alone" if network.reads == (1,) else "")


def _provenance(provenance: dict[str, Any]) -> list[tuple[str, str]]:
    """What the checkpoint says of its making; the configuration last."""
    pairs = [(key, _words(value)) for key, value in provenance.items() if key != "config"]
    if "config" in provenance:
        pairs.append(("config", yaml.safe_dump(provenance["config"], sort_keys=False, default_flow_style=None, width=100)))
    return pairs


def _words(value: Any) -> str:
    """A value for people: measures of percent with one decimal."""
    if isinstance(value, dict):
        return ", ".join(
            f"{key} {f'{v:.1f}' if key.isupper() and isinstance(v, float) else _words(v)}" for key, v in value.items()
        )
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return "none" if value is None else str(value)


def _tuned(network: Network) -> str:
    """How many parameters the recipe of a trained checkpoint moved."""
    provenance = getattr(network, "provenance", None) or {}
    return f" ({provenance['tuned']:,} were tuned)" if "tuned" in provenance else ""


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M"


def _billions(count: int) -> str:
    return f"{count / 1e9:.{1 if count > 1e10 else 3}f}"
