"""From the names in published checkpoints to ours: tables of patterns, and which checkpoint has which."""

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from torch import Tensor

from mstrack.errors import UserError

UNREAD = {
    "backbone.cls_token": "class token of ViT, kept by OSTrack and its descendants, never concatenated",
    "backbone.pos_embed": "ViT's position embeddings, replaced by pos_embed_z and pos_embed_x",
    "num_batches_tracked": "counter of batch norms, read only where their momentum is None",
}
"""Entries of published checkpoints that the published forward never reads; whole names, or the last part of a name."""

Source = Literal["ours", "mst", "ostrack", "dual-stream"]
Rules = tuple[tuple[str, str], ...]

_HEAD: Rules = (
    *(
        (rf"^box_head\.conv{stage + 1}_{theirs}\.{index}\.", f"head.{ours}.{stage}.{part}.")
        for theirs, ours in (("ctr", "score"), ("offset", "offset"), ("size", "size"))
        for stage in range(4)
        for index, part in enumerate(("conv", "norm"))
    ),
    (r"^box_head\.conv5_ctr\.", "head.score.4."),
    (r"^box_head\.conv5_(offset|size)\.", r"head.\1.4."),
)
_SHARED: Rules = (
    (r"^backbone\.pos_embed_z$", "position_template"),
    (r"^backbone\.pos_embed_x$", "position_search"),
    (r"^backbone\.temporal_pos_embed_z$", "temporal_template"),
    (r"^backbone\.temporal_pos_embed_x$", "temporal_search"),
)
_ONE_STREAM: Rules = (
    (r"^backbone\.patch_embed\.proj\.", "embed."),
    (r"^backbone\.(blocks\.\d+|norm)\.", r"\1."),
)
_DUAL_STREAM: Rules = (
    (r"^backbone\.patch_embed_rgb\.proj\.", "embed_rgb."),
    (r"^backbone\.patch_embed_event\.proj\.", "embed_aux."),
    (r"^backbone\.(blocks_rgb\.\d+|norm_rgb)\.", r"\1."),
    (r"^backbone\.(blocks|norm)_event\.", r"\1_aux."),
    (r"^backbone\.blocks_cross\.", "cross."),
)


def source_of(state_dict: Mapping[str, Tensor]) -> Source:
    """Tell whose names a state dict has.

    Returns:
        `ours` (one stream), `mst` (ours, two streams), `ostrack` (OSTrack and DropTrack), `dual-stream` (as published).

    Raises:
        UserError: None of them; the message shows the first names.
    """
    marks: dict[Source, str] = {
        "ours": "blocks.",
        "mst": "blocks_rgb.",
        "ostrack": "backbone.blocks.",
        "dual-stream": "backbone.blocks_rgb.",
    }
    for source, mark in marks.items():
        if any(name.startswith(mark) for name in state_dict):
            return source
    first = ", ".join(list(state_dict)[:5]) or "nothing"
    raise UserError(
        f"these are not the weights of a tracker that mstrack knows: they begin with {first}. Expected names such as "
        f"{', '.join(mark + '0.norm1.weight' for mark in marks.values())}."
    )


def identify(state_dict: Mapping[str, Tensor]) -> tuple[str | None, dict[str, object]]:
    """Tell which of our models a published state dict belongs to.

    Returns:
        The model's name, or None where names and sizes are not those of a published ViT-B tracker, and the arguments that
        the names give away (`droptrack`).

    Raises:
        UserError: Not the weights of a tracker at all.
    """
    family = {"ostrack": "ostrack", "dual-stream": "mst"}.get(source_of(state_dict))
    search = state_dict.get("backbone.pos_embed_x")
    sizes: dict[tuple[int, ...], str] = {(1, 256, 768): "b256", (1, 576, 768): "b384"}
    size = None if search is None else sizes.get(tuple(search.shape))
    arguments: dict[str, object] = {"droptrack": True} if "backbone.temporal_pos_embed_x" in state_dict else {}
    return (f"{family}-{size}" if family and size else None), arguments


def _rename(state_dict: Mapping[str, Tensor], rules: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    """Apply the first rule that matches to each name, and leave out what `UNREAD` lists."""
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]
    renamed = {}
    for name, value in state_dict.items():
        if name in UNREAD or name.rpartition(".")[2] in UNREAD:
            continue
        for pattern, replacement in compiled:
            new, count = pattern.subn(replacement, name)
            if count:
                break
        else:
            new = name
        renamed[new] = value
    return renamed


def from_ostrack(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of OSTrack and DropTrack -> ours, one stream."""
    return _rename(state_dict, _ONE_STREAM + _SHARED + _HEAD)


def from_dual_stream(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of the published dual-stream tracker -> ours."""
    return _rename(state_dict, _DUAL_STREAM + _SHARED + _HEAD)


def double(state_dict: Mapping[str, Tensor], cross_layers: tuple[int, ...]) -> dict[str, Tensor]:
    """Our one-stream weights -> our dual-stream weights.

    Args:
        state_dict: Entries under our one-stream names.
        cross_layers: The layer each cross-modal block follows and copies.

    Returns:
        Patch embedding, blocks and final norm twice, cross-modal blocks, and all else once. No two entries share memory.
    """
    doubled: dict[str, Tensor] = {}
    for name, value in state_dict.items():
        module, _, rest = name.partition(".")
        if module not in ("embed", "blocks", "norm"):
            doubled[name] = value
            continue
        doubled[f"{module}_rgb.{rest}"] = value
        doubled[f"{module}_aux.{rest}"] = value.clone()
        layer, _, inner = rest.partition(".")
        if module == "blocks" and layer.isdigit() and int(layer) in cross_layers:
            doubled[f"cross.{cross_layers.index(int(layer))}.{inner}"] = value.clone()
    return doubled
