"""From the names in published checkpoints to ours: tables of patterns, and which checkpoint has which."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

from mstrack.errors import UserError

UNREAD = {
    "backbone.cls_token": "class token of ViT, kept by OSTrack and its descendants, never concatenated",
    "backbone.pos_embed": "ViT's position embeddings, replaced by pos_embed_z and pos_embed_x",
    "cls_token": "the same in a ViT's own checkpoint",
    "backbone.pos_embed_z_z_dte": "position embeddings for both modalities that SDSTrack keeps and never adds",
    "backbone.pos_embed_x_x_dte": "the same for the search crop",
    "num_batches_tracked": "counter of batch norms, read only where their momentum is None",
}
"""Entries of published checkpoints that the published forward never reads; whole names, or the last part of a name."""

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
_PROMPTS: Rules = (
    (r"^backbone\.patch_embed_prompt\.proj\.", "embed_aux."),
    (r"^backbone\.prompt_norms\.", "prompt_norms."),
    (r"^backbone\.prompt_blocks\.(\d+)\.conv0_0\.", r"prompts.\1.squeeze_tokens."),
    (r"^backbone\.prompt_blocks\.(\d+)\.conv0_1\.", r"prompts.\1.squeeze_prompt."),
    (r"^backbone\.prompt_blocks\.(\d+)\.conv1x1\.", r"prompts.\1.expand."),
    (r"^backbone\.prompt_blocks\.(\d+)\.fovea\.smooth$", r"prompts.\1.sharpness"),
)
_VIT: Rules = (
    (r"^patch_embed\.proj\.", "embed."),
    (r"^pos_embed$", "positions"),
)
_VOXELS: Rules = (
    (r"^backbone\.pos_embed_event\.pos_embedding\.", "embed_aux.place."),
    (r"^backbone\.pos_embed_event\.proj\.", "embed_aux.patches."),
)
_ADAPTERS: Rules = (
    (r"^backbone\.patch_embed_multimodal\.proj\.", "embed_aux."),
    *(
        (rf"^backbone\.(blocks\.\d+)\.{theirs}_{which}_Adapter\.D_(fc[12])\.", rf"\1.{stream}.{part}.\2.")
        for theirs, part in (("Space", "attn"), ("MLP", "mlp"))
        for which, stream in (("X_DTE", "aux"), ("X_X_DTE", "cross"))
    ),
)
_DUAL_STREAM: Rules = (
    (r"^backbone\.patch_embed_rgb\.proj\.", "embed_rgb."),
    (r"^backbone\.patch_embed_event\.proj\.", "embed_aux."),
    (r"^backbone\.(blocks_rgb\.\d+|norm_rgb)\.", r"\1."),
    (r"^backbone\.(blocks|norm)_event\.", r"\1_aux."),
    (r"^backbone\.blocks_cross\.", "cross."),
)


class Family(NamedTuple):
    """Networks whose checkpoints have the same entries.

    Attributes:
        what: What it is called in a message.
        ours: What one of our names begins with, and none of those of the families further down the table.
        theirs: The same of the published names.
        rules: From the published names to ours; those of the position embeddings and the head, which all share, follow.
    """

    what: str
    ours: str
    theirs: str
    rules: Rules


FAMILIES = {
    "mst": Family("a dual-stream tracker", "blocks_rgb.", "backbone.blocks_rgb.", _DUAL_STREAM),
    "vipt": Family("a deep ViPT", "prompts.1.", "backbone.prompt_blocks.1.", _PROMPTS + _ONE_STREAM),
    "vipt-shallow": Family("a shallow ViPT", "prompts.0.", "backbone.prompt_blocks.0.", _PROMPTS + _ONE_STREAM),
    "sdstrack": Family("an SDSTrack", "blocks.0.aux.", "backbone.blocks.0.Space_X_DTE_", _ADAPTERS + _ONE_STREAM),
    "ceutrack": Family("a CEUTrack", "embed_aux.", "backbone.pos_embed_event.", _VOXELS + _ONE_STREAM),
    "vit": Family("a ViT that is no tracker yet (MAE)", "patch_embed.", "patch_embed.", _VIT),
    "ostrack": Family("a one-stream tracker", "blocks.", "backbone.blocks.", _ONE_STREAM),
}
"""The first family whose mark a checkpoint bears is the one it is of; its name begins our models' names."""

ARGUMENTS: dict[str, dict[str, object]] = {
    "backbone.temporal_pos_embed_x": {"droptrack": True},
    "backbone.pos_embed_event.proj.weight": {"events": "voxels"},
}
"""A published name, and the arguments of the model that it gives away."""

SIZES: dict[tuple[int, ...], str] = {(1, 256, 768): "b256", (1, 576, 768): "b384"}
"""Shape of the published position embeddings of the search crop, and how our models of that size end."""


def family_of(state_dict: Mapping[str, Tensor]) -> str:
    """Tell which of the `FAMILIES` a state dict is of, published or ours.

    Raises:
        UserError: None of them; the message shows the first names.
    """
    for name, family in FAMILIES.items():
        if any(key.startswith((family.ours, family.theirs)) for key in state_dict):
            return name
    first = ", ".join(list(state_dict)[:5]) or "nothing"
    known = FAMILIES["ostrack"].ours, FAMILIES["mst"].ours, FAMILIES["ostrack"].theirs, FAMILIES["mst"].theirs
    raise UserError(
        f"these are not the weights of a tracker that mstrack knows: they begin with {first}. Expected names such as "
        f"{', '.join(mark + '0.norm1.weight' for mark in known)}."
    )


def translate(state_dict: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """Give the entries of a checkpoint, published or ours, our names.

    Returns:
        The family, and the entries without those that the published forward never reads (`UNREAD`). Names that nobody knows
        stay as they are, for the caller's error message; a checkpoint of ours stays whole.

    Raises:
        UserError: Of no family.
    """
    name = family_of(state_dict)
    family = FAMILIES[name]
    if not any(key.startswith(family.theirs) for key in state_dict):
        return name, dict(state_dict)
    return name, _rename(state_dict, family.rules + _SHARED + _HEAD)


def identify(state_dict: Mapping[str, Tensor]) -> tuple[str | None, dict[str, object]]:
    """Tell which of our models a published state dict belongs to.

    Returns:
        The model's name, or None where names and sizes are not those of a published ViT-B tracker, and the arguments that
        the names give away (`ARGUMENTS`).

    Raises:
        UserError: Not the weights of a tracker at all.
    """
    family = family_of(state_dict)
    search = state_dict.get("backbone.pos_embed_x")
    size = None if search is None else SIZES.get(tuple(search.shape))
    arguments: dict[str, object] = {}
    for name, given in ARGUMENTS.items():
        if name in state_dict:
            arguments |= given
    return (f"{family}-{size}" if size else None), arguments


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
