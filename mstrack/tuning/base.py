"""What a tuning method is: which parameters train, and what becomes of each step that AdamW proposes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mstrack.errors import UserError
from mstrack.tuning.chunks import Chunk
from mstrack.tuning.rules import Rule

BETAS = (0.9, 0.999)
"""The betas of `torch.optim.AdamW`."""

DECIDING = ("rule", "adjust", "apply", "begin_step")
"""What decides on a step."""


class Tuning:
    """A tuning method; unchanged, it is full fine-tuning.

    A subclass overrides what differs. Whatever it must remember of a parameter lives in that parameter's `state`, so that
    saving and resuming the optimizer saves and resumes the method.

    Attributes:
        batches: Over how many batches of training pairs the sensitivities are to be measured before training; 0: not at all.
        choices: Values among which the scores on validation data decide after training, such as the alpha of WiSE-FT.
        keeps: Names of tensors, of the parameter's shape, that a saved state must hold for the method.
    """

    batches: int = 0
    choices: tuple[float, ...] = ()
    keeps: tuple[str, ...] = ()

    def select(self, name: str) -> float:
        """Whether a parameter trains, and how fast.

        Args:
            name: Name of the parameter in the model.

        Returns:
            Its factor on the learning rate; 0 freezes it.
        """
        return 1.0

    def choose_betas(self, betas: Sequence[float] | None) -> tuple[float, float]:
        """The betas that AdamW runs with.

        Args:
            betas: What the user asked for; none: whatever suits the method.

        Raises:
            UserError: The method cannot run with them.
        """
        first, second = BETAS if betas is None else betas
        return float(first), float(second)

    def prepare(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Called once, before the first step, with the parameters that train."""

    def remember(self, parameter: Tensor, state: dict[str, Any]) -> None:
        """Called when the state of a parameter is made, before it first moves: here its pre-trained value can be kept.

        A resumed run does not come here; its states hold what was kept.

        Args:
            parameter: The parameter, as it was given.
            state: `optimizer.state[parameter]`; what is put here is saved with the run.
        """

    def receive(self, sensitivities: Sequence[Tensor], states: Sequence[dict[str, Any]]) -> None:
        """Called once before the first step, and never in a resumed run, where `batches` is above 0.

        Args:
            sensitivities: Mean squared gradient of each parameter that trains, of its shape; the same on all ranks.
            states: Their `optimizer.state[parameter]`, in the same order.
        """

    def change_gradient(self, gradient: Tensor, state: dict[str, Any]) -> None:
        """Change the gradient of one parameter in place, after it is summed over the ranks and before all are clipped.

        Args:
            gradient: Of the parameter.
            state: `optimizer.state[parameter]`.
        """

    def begin_step(self, groups: Sequence[Mapping[str, Any]], states: Mapping[Tensor, dict[str, Any]]) -> None:
        """Called at the start of every step, for methods that must see all gradients before they can adjust one step.

        Args:
            groups: The optimizer's parameter groups, the gradients in place.
            states: `optimizer.state`, as the step before left it.
        """

    def adjust(self, step: Tensor, gradient: Tensor, state: dict[str, Any]) -> Tensor:
        """Turn the step that AdamW proposes for one parameter into the step that is taken.

        Args:
            step: Bias-corrected Adam step and decoupled weight decay together, sign included: AdamW alone would add it to
                the parameter. May be changed in place.
            gradient: Gradient of the parameter, as clipped; not to be changed.
            state: `optimizer.state[parameter]`: AdamW's and whatever this method keeps; its tensors start at zero.

        Returns:
            What is added to the parameter, of the same shape.
        """
        return step

    def apply(self, chunk: Chunk) -> None:
        """Move the parameters of a chunk from where they are towards what AdamW proposes.

        Here `adjust` is called for one parameter after the other. A method that can do many at once overrides this too, and
        is tested to do the same. A method that pulls, masks or averages does it here, before or after the step is taken. Where
        `chunk.skip` is true, nothing may change.
        """
        if type(self).adjust is Tuning.adjust:
            torch._foreach_copy_(chunk.parameters, chunk.proposals)
            return
        for parameter, proposal, gradient, state in chunk.rows():
            if chunk.skip is None:
                parameter.copy_(self._move(parameter, proposal, gradient, state))
                continue
            before = {key: value.clone() for key, value in state.items() if torch.is_tensor(value)}
            after = self._move(parameter, proposal, gradient, state)
            torch.where(chunk.skip, parameter, after, out=parameter)
            for key, value in state.items():
                if torch.is_tensor(value):
                    value.copy_(torch.where(chunk.skip, before.get(key, torch.zeros_like(value)), value))

    def rule(self) -> Rule | None:
        """What a fused kernel may do in the place of `adjust` and `apply`; none where only they can.

        Asked for before a step and after `begin_step`. It counts only as long as no subclass overrides the others without it.
        """
        return Rule()

    def _move(self, parameter: Tensor, proposal: Tensor, gradient: Tensor, state: dict[str, Any]) -> Tensor:
        """Where one parameter goes; exactly to the proposal where `adjust` leaves the step as it is."""
        step = proposal - parameter
        version = step._version
        adjusted = self.adjust(step, gradient, state)
        if adjusted is None:
            raise UserError(f"{type(self).__name__}.adjust returned nothing: expected the step that is taken.")
        untouched = adjusted is step and step._version == version
        return proposal if untouched else parameter + adjusted

    def mean_step(self) -> float:
        """Size of the steps that are taken over that of the steps AdamW proposes, on average over parameters."""
        return 1.0

    def evaluation_weight(self, weight: Tensor, state: dict[str, Any], choice: float | None) -> Tensor:
        """What is evaluated and shipped in the place of a trained weight.

        Args:
            weight: The trained parameter, or what a method inside makes of it; not to be changed.
            state: `optimizer.state[parameter]`.
            choice: One of `choices`; none: before the end of training, when nothing is chosen yet.

        Returns:
            A tensor of its shape, or `weight` itself where it is evaluated as it is.
        """
        return weight


class FullFineTuning(Tuning):
    """Full fine-tuning: every step is taken as AdamW proposes it (Table 3, row b)."""


def kernel_rule(tuning: Tuning) -> Rule | None:
    """The rule of a method, where it holds: where nothing that decides on a step is overridden below it."""
    order = [vars(kind) for kind in type(tuning).__mro__]
    place = {name: i for i, names in reversed(list(enumerate(order))) for name in names if name in DECIDING}
    return tuning.rule() if place["rule"] <= min(place.values()) else None


def effective_rate(tuning: Tuning) -> float:
    """Factor at which plain fine-tuning takes steps of the same mean size.

    The control of every comparison is "full fine-tuning at the learning rate x this": for `interpolate` mean(1 - m), for
    `velocity` 1, since rho averages the proposed steps and adds up to all of them.

    Raises:
        UserError: Not a tuning method.
    """
    if not isinstance(tuning, Tuning):
        raise UserError(f"expected a tuning method (a mstrack.tuning.Tuning), got {tuning!r}.")
    return tuning.mean_step()
