"""What a network says of itself: how it was trained, and a fingerprint of what it is."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

import torch

from mstrack.errors import warn
from mstrack.models.network import Network


class Trained(Protocol):
    """A network, or one that is ready to run (`mstrack.backends`)."""

    @property
    def provenance(self) -> dict[str, Any]:
        """What made the weights."""


def trained_modality(network: Trained) -> str:
    """The second modality that a network's provenance names; `thermal` where it names none."""
    named = _trained_on(network).get("modality", "thermal")
    return "thermal" if named == "rgb" else named


def warn_of_modality(provenance: Mapping[str, Any], modality: str, name: str) -> None:
    """Warn where the provenance of a network names another second modality than the one it is given now.

    Args:
        provenance: Of the network.
        modality: What the data hold; `rgb` for nothing else, which needs no warning.
        name: Of the network, for the message.
    """
    trained = provenance.get("config", {}).get("data", {}).get("modality", modality)
    if "rgb" not in (trained, modality) and trained != modality:
        warn(name, "modality", f"was trained on {trained}; here it is fed {modality}.")


def trained_encoding(network: Trained) -> str | None:
    """What the second modality's files were turned into when a network was trained; None where its provenance is silent."""
    return _trained_on(network).get("encoding")


def trained_recipe(network: Trained) -> str | None:
    """How events were made into frames when a network was trained; None where its provenance does not say one recipe."""
    named = {source.get("arguments", {}).get("events") for source in _trained_on(network).get("train", ())}
    return named.pop() if len(named) == 1 else None


def identify(network: Network) -> dict[str, Any]:
    """Name, arguments and a hash of all weights."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return {"model": network.name, "arguments": json.loads(json.dumps(network.arguments)), "weights": digest.hexdigest()[:16]}


def _trained_on(network: Trained) -> dict[str, Any]:
    """The section `data` of the configuration in a network's provenance."""
    provenance = getattr(network, "provenance", None) or {}
    return provenance.get("config", {}).get("data", {})
