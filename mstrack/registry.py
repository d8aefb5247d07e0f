"""The catalogue: four tables of `name: "module:object"`, and the one function that reads them.

A name that holds a colon is imported directly (`my_package.data:my_set`), so third parties need no line here. Their modules
may be installed, or lie in the current folder. Metrics are listed, and no job takes the name of another: which of them a data
set is scored by is said by `metrics.protocols.metrics_of`.
"""

import difflib
import functools
import importlib
import sys
from pathlib import Path
from typing import Any

from mstrack.errors import UserError

MODELS = {
    "ceutrack-b256": "mstrack.models.ceutrack:ceutrack_b256",
    "ceutrack-b384": "mstrack.models.ceutrack:ceutrack_b384",
    "ceutrack-tiny": "mstrack.models.ceutrack:ceutrack_tiny",
    "mst-b256": "mstrack.models.mst:mst_b256",
    "mst-b384": "mstrack.models.mst:mst_b384",
    "mst-tiny": "mstrack.models.mst:mst_tiny",
    "ostrack-b256": "mstrack.models.ostrack:ostrack_b256",
    "ostrack-b384": "mstrack.models.ostrack:ostrack_b384",
    "ostrack-tiny": "mstrack.models.ostrack:ostrack_tiny",
    "protrack-b256": "mstrack.models.protrack:protrack_b256",
    "protrack-b384": "mstrack.models.protrack:protrack_b384",
    "protrack-tiny": "mstrack.models.protrack:protrack_tiny",
    "sdstrack-b256": "mstrack.models.sdstrack:sdstrack_b256",
    "sdstrack-b384": "mstrack.models.sdstrack:sdstrack_b384",
    "sdstrack-tiny": "mstrack.models.sdstrack:sdstrack_tiny",
    "vipt-b256": "mstrack.models.vipt:vipt_b256",
    "vipt-b384": "mstrack.models.vipt:vipt_b384",
    "vipt-shallow-b256": "mstrack.models.vipt:vipt_shallow_b256",
    "vipt-shallow-b384": "mstrack.models.vipt:vipt_shallow_b384",
    "vipt-shallow-tiny": "mstrack.models.vipt:vipt_shallow_tiny",
    "vipt-tiny": "mstrack.models.vipt:vipt_tiny",
}

DATASETS = {
    "coco": "mstrack.data.rgb:coco",
    "coesot": "mstrack.data.rgbe:coesot",
    "depthtrack": "mstrack.data.rgbd:depthtrack",
    "fe108": "mstrack.data.rgbe:fe108",
    "got10k": "mstrack.data.rgb:got10k",
    "lasher": "mstrack.data.rgbt:lasher",
    "lasot": "mstrack.data.rgb:lasot",
    "own": "mstrack.data.own:own",
    "rgbt234": "mstrack.data.rgbt:rgbt234",
    "synthetic": "mstrack.data.synthetic:load",
    "trackingnet": "mstrack.data.rgb:trackingnet",
    "visevent": "mstrack.data.rgbe:visevent",
    "vot-rgbd": "mstrack.data.rgbd:vot_rgbd",
}

TUNINGS = {
    "ema": "mstrack.tuning.averages:EMA",
    "fisher": "mstrack.tuning.anchors:FisherL2SP",
    "full": "mstrack.tuning.base:FullFineTuning",
    "l2sp": "mstrack.tuning.anchors:L2SP",
    "momentum": "mstrack.tuning.momentum:ScalarMomentum",
    "mst": "mstrack.tuning.momentum:MST",
    "sensitivity": "mstrack.tuning.momentum:SensitivityOnly",
    "sparse": "mstrack.tuning.sparse:SparseTuning",
    "srft": "mstrack.tuning.anchors:SRFT",
    "wise": "mstrack.tuning.averages:WiSE",
}

METRICS = {
    "longterm": "mstrack.metrics.longterm",
    "ope": "mstrack.metrics.ope",
}

TABLES = {"models": MODELS, "datasets": DATASETS, "tunings": TUNINGS, "metrics": METRICS}


def resolve(kind: str, name: str) -> Any:
    """Import the object that `name` stands for.

    Args:
        kind: One of the tables: `models`, `datasets`, `tunings`, `metrics`.
        name: A name in that table, or `module:object` of your own; the module is also looked for in the current folder.

    Raises:
        UserError: No such name (with the nearest name and the list), or nothing importable there.
    """
    table = TABLES[kind]
    target = table.get(name, name if ":" in name else None)
    if target is None:
        raise UserError(unknown(kind.removesuffix("s"), name, table) + " `module:object` of your own works too.")
    module, _, attribute = target.partition(":")
    if name not in table:
        look_here()
    try:
        found = importlib.import_module(module)
        return getattr(found, attribute) if attribute else found
    except (ImportError, AttributeError) as error:
        if name in table:
            raise
        raise UserError(f"{kind.removesuffix('s')} '{name}' cannot be imported: {error}") from error


def look_here() -> None:
    """Let modules of the current folder be imported, as with `python -m mstrack`: the command `mst` starts without it."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def summarise(kind: str, name: str) -> str:
    """What a name of a table stands for, in a line: the first one of its docstring, and the arguments that are fixed."""
    found = resolve(kind, name)
    fixed = ""
    if isinstance(found, functools.partial):
        fixed = ", ".join(f"{key}={value}" for key, value in found.keywords.items())
        found = found.func
    line = (found.__doc__ or "").strip().partition("\n")[0]
    return f"{line} With {fixed}." if fixed else line


def unknown(what: str, given: str, known: Any) -> str:
    """The sentence for an unknown name: what was given, the nearest, and the list."""
    names = sorted(known)
    close = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    nearest = f" Did you mean '{close[0]}'?" if close else ""
    return f"unknown {what} '{given}'.{nearest} Known: {', '.join(names)}."
