"""What an optimizer keeps of a parameter: whether it is what the kernels take it for, and in the parameter's memory order."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mstrack.errors import UserError

MOMENTS = ("exp_avg", "exp_avg_sq", "rho")
"""What kernels read and write in place: of the parameter's shape, type and device; `rho` for the update `velocity` only."""


def begin_state(parameter: Tensor, fused: bool) -> dict[str, Any]:
    """The state of a parameter before its first step, as torch's AdamW has it; the count lies beside it if `fused`."""
    return {
        "step": torch.zeros((), dtype=torch.float32, device=parameter.device if fused else "cpu"),
        "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
        "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
    }


def check_states(
    named: Iterable[tuple[str, Tensor]], states: Mapping[Tensor, Mapping[str, Any]], fused: bool, keeps: Sequence[str] = ()
) -> None:
    """Whether what is kept of parameters, and their gradients, fit them: kernels would write past the end of what does not.

    Args:
        named: Names and parameters; those without a state are passed over.
        states: `optimizer.state`.
        fused: Whether counts of steps must lie on the parameters' device.
        keeps: What the tuning method keeps, beside the moments.

    Raises:
        UserError: Something is missing, or has another shape, type or device.
    """
    for name, parameter in named:
        state = states.get(parameter)
        if state is None:
            continue
        missing = [key for key in ("step", "exp_avg", "exp_avg_sq", *keeps) if not torch.is_tensor(state.get(key))]
        if missing:
            held = ", ".join(state) or "nothing"
            raise UserError(
                f"the state of '{name}' holds {held}; the tuning method needs {', '.join(missing)} too: it is of another"
                " optimizer, or another method. Load one that was saved under this method, or begin anew."
            )
        for key, value in state.items():
            trouble = _find_trouble(key, value, parameter, fused, key in MOMENTS or key in keeps)
            if trouble:
                raise UserError(f"the state of '{name}' does not fit it: {key} {trouble}")
        if parameter.grad is not None and parameter.grad.shape != parameter.shape:
            shapes = f"{tuple(parameter.grad.shape)}, the parameter {tuple(parameter.shape)}"
            raise UserError(f"the gradient of '{name}' has the shape {shapes}. Clear gradients where a shape changes.")


def _find_trouble(key: str, value: Any, parameter: Tensor, fused: bool, alike: bool) -> str | None:
    """What is wrong with one entry of a state, and what to do about it."""
    if key == "step":
        if value.numel() != 1 or value.dtype is not torch.float32 or (fused and value.device != parameter.device):
            given = f"{value.dtype} of {value.numel()} on {value.device}"
            return f"is {given}, expected one float32 on {parameter.device if fused else 'the CPU'}. {_CARRY}"
    elif not alike:
        return None
    elif value.shape != parameter.shape:
        return (
            f"has the shape {tuple(value.shape)}, the parameter {tuple(parameter.shape)}. A state is continued by the network"
            " it is of; make a new optimizer for another one."
        )
    elif value.device != parameter.device or (key in MOMENTS and value.dtype != parameter.dtype):
        return (
            f"is {value.dtype} on {value.device}, the parameter {parameter.dtype} on {parameter.device}. Convert a network"
            f" before its optimizer is made, or then {_CARRY}"
        )
    return None


_CARRY = "carry the state over: optimizer.load_state_dict(optimizer.state_dict())."


def restore_types(
    saved: Mapping[str, Any], groups: Sequence[Mapping[str, Any]], states: Mapping[Tensor, dict[str, Any]], fused: bool
) -> None:
    """What torch has converted to the types of parameters when it loaded a state, and was not in them when it was saved.

    Args:
        saved: What was loaded.
        groups: Of the optimizer.
        states: As torch left them; changed in place.
        fused: Whether counts of steps lie on the parameters' device.

    Raises:
        UserError: Hyperparameters of another optimizer.
    """
    for group, was in zip(groups, saved["param_groups"], strict=True):
        missing = [key for key in ("lr", "betas", "eps", "weight_decay", "fused") if key not in group]
        if missing:
            raise UserError(f"the state that was loaded has no {', '.join(missing)}: expected one of TunedAdamW or AdamW.")
        for parameter, index in zip(group["params"], was["params"], strict=True):
            state, old = states.get(parameter, {}), saved["state"].get(index, {})
            if "step" in state:  # of old versions of torch: numbers
                state["step"] = torch.as_tensor(state["step"], dtype=torch.float32, device=parameter.device if fused else "cpu")
            common = getattr(old.get("exp_avg"), "dtype", None)
            for key in state.keys() & old.keys() - {"step", *MOMENTS}:
                if torch.is_tensor(old[key]) and old[key].dtype not in (common, state[key].dtype):
                    state[key] = old[key].to(parameter.device)


def align_state(state: dict[str, Any], like: Tensor) -> None:
    """Give what is kept of a parameter the memory order of another tensor of its shape."""
    for name, value in state.items():
        if torch.is_tensor(value) and value.shape == like.shape and value.stride() != like.stride():
            state[name] = torch.empty_like(like, dtype=value.dtype).copy_(value)


def take_gradient(parameter: Tensor, like: Tensor) -> Tensor:
    """The gradient of a parameter, in its own type, in the memory order of another tensor of its shape.

    Raises:
        UserError: A sparse gradient.
    """
    gradient = parameter.grad
    if gradient is None or gradient.is_sparse:
        raise UserError("a sparse gradient was given; TunedAdamW takes dense ones.")
    return gradient if gradient.stride() == like.stride() else torch.empty_like(like, dtype=gradient.dtype).copy_(gradient)
