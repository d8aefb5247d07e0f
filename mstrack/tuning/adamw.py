"""`TunedAdamW`: AdamW whose steps pass through a tuning method."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mstrack.errors import UserError
from mstrack.tuning.base import Tuning, kernel_rule
from mstrack.tuning.batches import Batch, Kernel, check_kernel, choose_batch
from mstrack.tuning.chunks import Chunk, Scratch, split_runs
from mstrack.tuning.combination import check_method
from mstrack.tuning.patterns import Pattern, select_parameters
from mstrack.tuning.proposals import propose, propose_fused
from mstrack.tuning.rules import Rule
from mstrack.tuning.states import align_state, begin_state, check_states, restore_types, take_gradient


class TunedAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter 2019, decoupled weight decay) whose steps pass through a tuning method.

    With `FullFineTuning` every number equals that of `torch.optim.AdamW` bit for bit: with `fused=True`, or with `foreach=True`
    where not `fused`. (Torch's default on a CPU, a loop, gives the bits of `foreach` in float32 and float64.) The states have
    the same keys.

    Args:
        named_parameters: As of `nn.Module.named_parameters()`.
        tuning: The method.
        lr: Learning rate; a parameter group's is this times its factor. A tensor too, on the parameters' device.
        weight_decay: Decoupled; part of the step that the method adjusts.
        betas: Of the moment averages; none: what the method asks for, (0.9, 0.999) as a rule.
        eps: Added to the root of the second moment.
        patterns: (glob pattern over names, factor of the learning rate, 0 or none to freeze); the first that matches counts,
            and every name must match. Without it everything that requires a gradient trains at factor 1.
        fused: Compute steps by fused kernels: a step never waits for the device, and is fast. Without, by plain operations
            of torch: the reference.
        kernel: Which kernel takes a step and a rule of `MST` at once: `native` on a CPU, `triton` on a GPU, `torch` for
            neither, where the method comes after torch's fused AdamW. None: the one for the device, where it can be used.

    Attributes:
        tuning: The method.
        frozen: Names of the parameters that do not train; `requires_grad` is off.

    Raises:
        UserError: Names that no pattern covers, nothing to train, a hyperparameter out of range, or one that the method
            cannot run with; a kernel that is not there; complex parameters, or such without names; no tuning method.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, nn.Parameter]],
        tuning: Tuning,
        lr: float | Tensor,
        weight_decay: float = 1e-4,
        betas: Sequence[float] | None = None,
        eps: float = 1e-8,
        patterns: Sequence[Pattern] | None = None,
        fused: bool = True,
        kernel: Kernel | None = None,
    ) -> None:
        if not isinstance(tuning, Tuning):
            raise UserError(f"tuning = {tuning!r}: expected a tuning method, such as MST() or build_tuning('mst').")
        for name, value in (("lr", lr), ("weight_decay", weight_decay), ("eps", eps)):
            if not value >= 0:
                raise UserError(f"{name} = {value}: expected a number of at least 0.")
        if betas is not None and (len(betas) != 2 or not all(0 <= beta < 1 for beta in betas)):
            raise UserError(f"betas = {tuple(betas)}: expected two numbers of at least 0 and below 1.")
        check_method(tuning)
        selection = select_parameters(named_parameters, tuning.select, patterns)
        check_kernel(kernel)
        self.tuning = tuning
        self.frozen = selection.frozen
        self.kernel = kernel
        self._parts: list[tuple[list[Batch], list[Chunk]]] = []
        self._key: list[list[tuple[Any, ...]]] | None = None
        self._betas: list[Any] | None = None
        self._changed = False
        groups = [{"params": rows, "lr": lr * factor} for factor, rows in selection.trained.items()]
        defaults = {"lr": lr, "betas": tuning.choose_betas(betas), "eps": eps, "weight_decay": weight_decay, "fused": fused}
        super().__init__(groups, defaults)
        tuning.prepare({name: p for rows in selection.trained.values() for name, p in rows})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Train further parameters, as in torch; `params` are pairs of a name and a parameter.

        Raises:
            UserError: A complex parameter.
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        wrong = [name for name, p in zip(group["param_names"], group["params"], strict=True) if p.is_complex()]
        if wrong:
            self.param_groups.pop()
            raise UserError(f"'{wrong[0]}': complex; only real parameters train. Freeze it, or keep torch.view_as_real of it.")

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._parts, self._key, self._betas, self._changed = [], None, None, False

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"tuning": self.tuning, "frozen": self.frozen, "kernel": self.kernel}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state, as in torch; what the method keeps stays in the type it was saved in.

        Raises:
            UserError: A state of another network, or another method; hyperparameters that the method cannot run with. Nothing
                has changed then.
        """
        before = {"state": self.state, "param_groups": self.param_groups}
        super().load_state_dict(state_dict)
        try:
            restore_types(state_dict, self.param_groups, self.state, self._fused)
            check_states(self._named(), self.state, self._fused, self.tuning.keeps)
            self._check_betas()
        except UserError:
            self.__setstate__(before)
            raise

    @torch._disable_dynamo  # as torch marks its own: `torch.compiler.disable` that loads nothing before it is used
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, *, skip: Tensor | None = None) -> Any:
        """Take one step; a parameter without a gradient stays as it is.

        Args:
            closure: Computes the loss and the gradients anew (as in torch).
            skip: 0-dim bool tensor on the parameters' device. When it is true nothing changes: no parameter, no moment, no
                count, no state of the method, whatever the gradients hold. The fused step leaves the reading of it to the
                device; the other reads it on the host, which costs nothing on a CPU.

        Returns:
            What the closure returned, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
            self._changed = False
        if not self._changed:
            self.change_gradients()
        self._changed = False
        if skip is not None and not self._fused and bool(skip):
            return loss
        self._check_betas()
        parts = self._plan()
        self.tuning.begin_step(self.param_groups, self.state)
        rule = self._rule()
        for group, (batches, chunks) in zip(self.param_groups, parts, strict=True):
            for batch in batches:
                assert rule is not None
                gradients = [take_gradient(p, p) for p in batch.parameters]
                batch.step(gradients, [self.state[p] for p in batch.parameters], group, rule, skip)
            for chunk in chunks:
                self._move(chunk, group, skip)
        return loss

    def _move(self, chunk: Chunk, group: dict[str, Any], skip: Tensor | None) -> None:
        """Let AdamW propose, then the method decide."""
        alike = zip(chunk.parameters, chunk.proposals, strict=True)
        chunk.gradients = [take_gradient(p, like).to(like.dtype) for p, like in alike]
        chunk.states = [self.state[p] for p in chunk.parameters]
        chunk.skip = skip if self._fused else None
        chunk.lr = group["lr"]
        (propose_fused if self._fused else propose)(chunk, group)
        self.tuning.apply(chunk)
        chunk.gradients, chunk.states = [], []

    # ---------------------------------------------------------------- what the method does besides steps
    @torch.no_grad()
    def change_gradients(self) -> None:
        """Let the method change the gradients: before they are clipped, so that the norm is of what trains.

        A step whose gradients did not pass here lets them pass first, unclipped: no method is ever left out.
        """
        if type(self.tuning).change_gradient is not Tuning.change_gradient:
            self._begin_new()
            change: Callable[..., Any] = self.tuning.change_gradient
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        returned = change(parameter.grad, self.state[parameter])
                        if returned is not None and returned is not parameter.grad:
                            raise UserError(
                                f"{type(self.tuning).__name__}.change_gradient returned a {type(returned).__name__}, which"
                                " would be lost: it changes the gradient in place, as gradient.mul_(mask) does."
                            )
        self._changed = True

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that train, by name."""
        return dict(self._named())

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        return (row for group in self.param_groups for row in zip(group["param_names"], group["params"], strict=True))

    @property
    def unmeasured(self) -> bool:
        """Whether the method waits for sensitivities (`receive`); a resumed run holds what was made of them."""
        return self.tuning.batches > 0 and any(p not in self.state for group in self.param_groups for p in group["params"])

    @torch.no_grad()
    def receive(self, sensitivities: Mapping[str, Tensor]) -> None:
        """Hand over the sensitivity of every parameter in `trained`, before the first step; the same on all ranks.

        Again where a group is added: the moments of the others stay as they are.

        Raises:
            UserError: One is missing.
        """
        trained = self.trained
        missing = [name for name in trained if name not in sensitivities]
        if missing:
            raise UserError(f"sensitivities of {', '.join(missing)} are missing: all in optimizer.trained are expected.")
        for parameter in trained.values():
            if parameter not in self.state:
                self._begin(parameter)
        rows = [sensitivities[name].to(parameter) for name, parameter in trained.items()]
        self.tuning.receive(rows, [self.state[parameter] for parameter in trained.values()])

    @contextmanager
    def evaluation_weights(self, choice: float | None = None) -> Iterator[None]:
        """Inside, the parameters hold what the method evaluates and ships; afterwards exactly what was trained.

        Args:
            choice: One of the method's choices; none: what it evaluates before one is made.
        """
        trained: dict[Tensor, Tensor] = {}
        with torch.no_grad():
            for parameter, state in self.state.items():
                weight = self.tuning.evaluation_weight(parameter, state, choice)
                if weight is not parameter:
                    trained[parameter] = parameter.clone()
                    parameter.copy_(weight)
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, weight in trained.items():
                    parameter.copy_(weight)

    def _check_betas(self) -> None:
        """Whether the method can run with betas that somebody has changed."""
        betas = [group["betas"] for group in self.param_groups]
        if betas != self._betas:
            for pair in betas:
                self.tuning.choose_betas(pair)
            self._betas = betas

    @property
    def _fused(self) -> bool:
        return bool(self.param_groups[0].get("fused"))

    def _rule(self) -> Rule | None:
        """What a fused kernel may do; none: only the method itself."""
        return kernel_rule(self.tuning) if self._fused else None

    # ---------------------------------------------------------------- which parameters go together
    def _plan(self) -> list[tuple[list[Batch], list[Chunk]]]:
        """The batches and chunks of each group, over the parameters that have a gradient; kept while those stay as they are.

        A network may be converted, or given other memory, between two steps: its parameters are then the same objects.
        """
        present = [[p for p in group["params"] if p.grad is not None] for group in self.param_groups]
        key = [[(id(p), p.dtype, p.device, p.shape, p.stride()) for p in row] for row in present]
        if key != self._key:
            self._begin_new()
            check_states(((n, p) for n, p in self._named() if p.grad is not None), self.state, self._fused)
            self._parts = self._divide(present)
            self._key = key
        return self._parts

    def _begin_new(self) -> None:
        """Make the states of parameters that have their first gradient."""
        new = [(name, p) for name, p in self._named() if p.grad is not None and p not in self.state]
        if new and self.tuning.batches:
            names = ", ".join(name for name, _ in new)
            raise UserError(
                f"{type(self.tuning).__name__} needs sensitivities before the first step of {names}:"
                " optimizer.receive(...) takes the mean squared gradient of all in optimizer.trained, by name."
            )
        for _, parameter in new:
            self._begin(parameter)

    def _divide(self, present: list[list[nn.Parameter]]) -> list[tuple[list[Batch], list[Chunk]]]:
        """Batches, and chunks, of parameters of one group, device, type and step count; their states get their memory order."""
        rule, scratch = self._rule(), Scratch()
        batches: list[list[Batch]] = []
        runs: list[list[list[nn.Parameter]]] = []
        for row in present:
            alike: dict[tuple[Any, ...], list[nn.Parameter]] = {}
            for parameter in row:
                kind = choose_batch(parameter, rule, self.kernel)
                alike.setdefault((kind, self._count(parameter), parameter.dtype, parameter.device), []).append(parameter)
            batches.append([kind(parameters) for (kind, *_), parameters in alike.items() if kind is not None])
            runs.append([run for (kind, *_), rest in alike.items() if kind is None for run in split_runs(rest)])
        scratch.reserve([run for row in runs for run in row])
        chunks = [[Chunk(run, scratch) for run in row] for row in runs]
        for moved in (p for row in batches for batch in row for p in batch.parameters):
            if rule is not None and rule.velocity:
                self.state[moved].setdefault("rho", torch.zeros_like(moved))
            align_state(self.state[moved], moved)
        for chunk in (chunk for row in chunks for chunk in row):
            for moved, like in zip(chunk.parameters, chunk.proposals, strict=True):
                align_state(self.state[moved], like)
        return list(zip(batches, chunks, strict=True))

    def _begin(self, parameter: nn.Parameter) -> None:
        """The state of a parameter before its first step: AdamW's, and what the method keeps."""
        self.state[parameter] = begin_state(parameter, self._fused)
        self.tuning.remember(parameter.detach(), self.state[parameter])

    def _count(self, parameter: nn.Parameter) -> float:
        """Steps a parameter has taken; 0 where only the device knows, and each parameter is corrected by its own."""
        return 0.0 if self._fused else self.state[parameter]["step"].item()
