"""Networks: tensors in, `Prediction` out. `create_model` builds any of them by name."""

import inspect
from typing import Any

from mstrack.errors import UserError
from mstrack.models.network import Network
from mstrack.registry import resolve, unknown

__all__ = ["Network", "create_model"]


def create_model(name: str, **kwargs: Any) -> Network:
    """Build a freshly initialised tracker network.

    Args:
        name: A name of `mst list models`, or `module:object` of your own.
        **kwargs: Arguments of that model, such as `droptrack=True`, `drop_path=0.1` or `width=192`.

    Returns:
        The network, with `name` and `arguments` set to what was given here, so that a checkpoint can rebuild it.

    Raises:
        UserError: No such model, no such argument (with the nearest name and the list), or a value that cannot be.
    """
    factory = resolve("models", name)
    known = inspect.signature(factory).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        for given in kwargs:
            if given not in known:
                raise UserError(unknown(f"argument of model '{name}'", given, known))
    try:
        model: Network = factory(**kwargs)
    except UserError:
        raise
    except (TypeError, ValueError, ArithmeticError, RuntimeError, MemoryError, IndexError) as error:
        if not kwargs:
            raise
        given = ", ".join(f"{key}={value!r}" for key, value in kwargs.items())
        takes = ", ".join(str(parameter) for parameter in known.values())
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"model '{name}' cannot be made with {given} ({reason}). It takes: {takes}.") from error
    if not isinstance(model, Network):
        raise UserError(f"model '{name}' makes a {type(model).__name__}, expected a mstrack.models.network.Network.")
    model.name = name
    model.arguments = dict(kwargs)
    return model
