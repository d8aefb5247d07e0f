"""Trackers of a user's own checkout of pytracking, and of what is built on it, as a class for `mst eval --tracker`.

Calling conventions, of `evaluation/tracker.py` in each: pytracking (`run_sequence`: fresh parameters and a fresh tracker for
each sequence, RGB images, `init_bbox` x, y, w, h as a list, the last output as `previous_output`); the line of STARK and
OSTrack, the same in `lib/test`; FENet and AFNet, forks of pytracking that pass event images as a second argument.
"""

import importlib
import inspect
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mstrack.data.sequence import Frame
from mstrack.errors import UserError
from mstrack.registry import unknown

PACKAGES = ("pytracking", "lib.test")
"""Where a checkout has `tracker`, `parameter` and `evaluation`."""


class Found(NamedTuple):
    """What a tracker sees, and how sure it is."""

    box: NDArray[np.float64] | None
    """(4,) x, y, w, h in pixels; None where it says that it has lost the target."""
    score: float


def _repeat_parts(image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Three images of three equal channels, one for each channel: the thirds of FE108's interval, as they lie on disk."""
    return [np.repeat(image[..., part : part + 1], 3, axis=2) for part in range(3)]


FEEDS: dict[str, Callable[[Any, Any], list[Any]]] = {
    "none": lambda rgb, aux: [rgb],
    "image": lambda rgb, aux: [rgb, aux],
    "parts": lambda rgb, aux: [rgb, _repeat_parts(aux)],
    "channels": lambda rgb, aux: [np.concatenate([rgb, aux], axis=2)],
}
"""What the second modality becomes: nothing; a second argument (AFNet); three of them in a list (FENet); three more channels of
the image (ViPT, SDSTrack and others in `lib/test`)."""


SCORES = ("object_presence_score", "best_score", "max_score")
"""What trackers call how sure they are, in what they return or in their debug information."""


class Pytracking:
    """A tracker of a checkout.

    Args:
        checkout: The folder that holds `pytracking` and `ltr`, or `lib`.
        tracker: A name in its `tracker` folder: `dimp` (DiMP, PrDiMP, FENet, AFNet), `tomp`, `stark_s`.
        parameter: The parameters: `dimp50`, `prdimp50`, `tomp50`; in `lib/test` a file of `experiments`, such as `baseline`.
        networks: Folder of its networks; None: where the checkout's own `evaluation/local.py` says. Of `lib/test` it is the
            folder that has `checkpoints/`.
        aux: What the second modality becomes, a key of `FEEDS`.
        device: `cpu` for a machine without a GPU; None: as the parameters have it. Not in `lib/test`.
        parameters: Arguments of its function `parameters()`, such as `netepoch` of AFNet.

    Raises:
        UserError: No such checkout, tracker or parameters, or they cannot be imported here.
    """

    def __init__(
        self,
        checkout: str,
        tracker: str = "dimp",
        parameter: str = "dimp50",
        networks: str | None = None,
        aux: str = "none",
        device: str | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        if aux not in FEEDS:
            raise UserError(unknown("use of the second modality", aux, FEEDS))
        self._aux, self._device = aux, device
        root = Path(checkout).expanduser().absolute()
        self._package = next((name for name in PACKAGES if (root / name.replace(".", "/") / "tracker").is_dir()), "")
        if not self._package:
            raise UserError(f"{root} is no checkout of pytracking: expected pytracking/tracker or lib/test/tracker in it.")
        home = root / self._package.replace(".", "/")
        _check_name("tracker", tracker, home / "tracker")
        _import_from(root, self._package)
        _provide_settings(self._package, home, root, networks)
        if self._package == "pytracking":
            _check_name("parameter", parameter, home / "parameter" / tracker)
            given, module = dict(parameters or {}), _load(f"pytracking.parameter.{tracker}.{parameter}", root)
            self._parameters: Callable[[], Any] = lambda: module.parameters(**given)
            self._others: tuple[str, ...] = ()
        else:
            given, module = dict(parameters or {}), _load(f"lib.test.parameter.{tracker}", root)
            self._parameters = lambda: module.parameters(parameter, **given)
            self._others = ("mstrack",)
        self._class = _load(f"{self._package}.tracker.{tracker}", root).get_tracker_class()
        if len(inspect.signature(self._class).parameters) == 1:  # those of ViPT and SDSTrack ask for no data set
            self._others = ()
        self._tracker: Any = None
        self._last: OrderedDict[str, Any] = OrderedDict()

    def init(self, frame: Frame, box: ArrayLike) -> None:
        """Start a fresh tracker with fresh parameters, as `run_sequence` does."""
        parameters = self._parameters()
        parameters.visualization, parameters.debug = False, 0
        if self._device == "cpu":
            _leave_gpu(parameters)
        self._tracker = self._class(parameters, *self._others)
        self._tracker.visdom = None
        images = self._feed(frame)
        _check_images(self._tracker.initialize, len(images), self._aux)
        started = self._tracker.initialize(*images, {"init_bbox": np.asarray(box, dtype=float).tolist()})
        self._last = OrderedDict(started or {})

    def update(self, frame: Frame) -> Found:
        """Find the target in the next frame."""
        out = self._tracker.track(*self._feed(frame), {"previous_output": self._last})
        self._last = OrderedDict(out)
        box = np.array([float(value) for value in out["target_bbox"]])
        scores = {**getattr(self._tracker, "debug_info", {}), **out}
        score: Any = next((scores[name] for name in SCORES if name in scores), None)
        lost = bool((box[2:] <= 0).any())
        sure = float(score) if np.ndim(score) == 0 and score is not None else 1.0 - lost
        return Found(None if lost else box, sure)

    def _feed(self, frame: Frame) -> list[Any]:
        if self._aux != "none" and frame.aux is None:
            raise UserError(
                f"aux={self._aux} needs a second modality, and this data has none. Leave it out, or choose other data."
            )
        return FEEDS[self._aux](frame.rgb, frame.aux)


def _check_name(what: str, name: str, folder: Path) -> None:
    """Whether a folder has a module of that name."""
    there = {entry.stem for entry in folder.iterdir() if not entry.name.startswith(("_", "."))} if folder.is_dir() else set()
    if name not in there:
        raise UserError(unknown(f"{what} in {folder}", name, there))


def _import_from(root: Path, package: str) -> None:
    """Let modules be imported from a checkout.

    Raises:
        UserError: One of that name was imported from elsewhere before.
    """
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    for name in {"pytracking", "ltr"} if package == "pytracking" else {"lib"}:
        before = sys.modules.get(name)
        places = [Path(place) for place in getattr(before, "__path__", ())]
        if places and not any(place.is_relative_to(root) for place in places):
            raise UserError(f"a package '{name}' of {places[0]} is in use already; one process has one checkout.")


def _load(module: str, root: Path) -> ModuleType:
    """Import a module of the checkout.

    Raises:
        UserError: A package that it needs is not installed here.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{module} of {root} needs the module '{error.name}'. Install it here; or run the tracker in an environment of its"
            " own over TraX, see docs/trackers.md."
        ) from error


def _provide_settings(package: str, home: Path, root: Path, networks: str | None) -> None:
    """Say where the networks are without touching the checkout: its `env_settings()` would write a `local.py` into it.

    Raises:
        UserError: Nobody says where.
    """
    name, own = f"{package}.evaluation.local", home / "evaluation" / "local.py"
    if networks is None:
        if not own.is_file():
            raise UserError(
                f"there is no {own}, which says where the networks are: --tracker-argument networks=DIR says it too."
            )
        return
    folder = Path(networks).expanduser().absolute()
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}. Expected the networks of {home}.")
    known = getattr(importlib.import_module(name), "local_env_settings") if own.is_file() else None  # noqa: B009

    def local_env_settings() -> Any:
        made = known() if known is not None else importlib.import_module(f"{package}.evaluation.environment").EnvSettings()
        made.network_path = f"{folder}/"
        if package == "lib.test":
            made.prj_dir, made.save_dir = str(root), str(folder)
        return made

    _make_module(name, local_env_settings=local_env_settings)
    if package == "pytracking" and not (root / "ltr" / "admin" / "local.py").is_file():  # `torch_load_legacy` imports it
        _make_module("ltr.admin.local", EnvironmentSettings=type("EnvironmentSettings", (), {"workspace_dir": str(folder)}))


def _make_module(name: str, **content: Any) -> None:
    module = ModuleType(name)
    module.__dict__.update(content)
    sys.modules[name] = module


def _leave_gpu(parameters: Any) -> None:
    """Have the parameters, and the networks among them, use the CPU."""
    for owner in (parameters, *vars(parameters).values()):
        if "use_gpu" in getattr(owner, "__dict__", {}):
            owner.use_gpu = False
    parameters.device = "cpu"


def _check_images(initialize: Callable[..., Any], given: int, aux: str) -> None:
    """Whether `initialize` takes as many images as it is given.

    Raises:
        UserError: It does not; with what to say.
    """
    names = list(inspect.signature(initialize).parameters)
    if len(names) != given + 1:
        raise UserError(
            f"initialize({', '.join(names)}) takes {len(names) - 1} image(s), and aux={aux} gives {given}. For event images it"
            " is aux=parts (FENet, on FE108's stacks) or aux=image (AFNet)."
        )
