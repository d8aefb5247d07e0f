"""The table of `docs/design.md`: imports go one way, and importing is cheap."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mstrack"
FOLDERS = ("data", "models", "tuning", "metrics")
LAYERS = {
    0: ("boxes", "registry", "results", "claims", "errors", "filetree", "machine", "yamltext"),
    1: (*FOLDERS, "config", "capture"),
    2: (
        "keys",
        "losses",
        "checkpoint",
        "published",
        "tensorfile",
        "unpickling",
        "backends",
        "inputs",
        "plain",
        "tracker",
        "lockstep",
        "distributed",
        "recorded",
        "charts",
        "pictures",
        "comparison",
        "rawresults",
        "trax",
        "foreign",
        "provenance",
    ),
    3: (
        "assembly",
        "journal",
        "joining",
        "footprint",
        "validation",
        "sensitivity",
        "runfiles",
        "training",
        "following",
        "evaluation",
        "report",
        "clip",
        "export",
        "measuring",
        "bench",
        "description",
        "scoring",
    ),
    4: ("quickstart", "terminal", "compare", "vot", "reproduce"),
    5: ("cli", "cli_catalogue", "cli_data", "cli_results", "cli_vot", "cli_reproduce", "cli_speed"),
    6: ("__main__",),
}
LAYER = {name: layer for layer, names in LAYERS.items() for name in names}
SIDEWAYS = {
    ("registry", "errors"),
    ("results", "errors"),
    ("claims", "errors"),
    ("yamltext", "errors"),
    ("filetree", "errors"),
    ("machine", "errors"),
    ("checkpoint", "published"),
    ("checkpoint", "tensorfile"),
    ("published", "unpickling"),
    ("backends", "checkpoint"),
    ("tracker", "backends"),
    ("tracker", "inputs"),
    ("lockstep", "backends"),
    ("lockstep", "tracker"),
    ("bench", "measuring"),
    ("training", "assembly"),
    ("training", "joining"),
    ("training", "footprint"),
    ("joining", "assembly"),
    ("training", "journal"),
    ("training", "runfiles"),
    ("training", "sensitivity"),
    ("training", "validation"),
    ("validation", "assembly"),
    ("sensitivity", "assembly"),
    ("foreign", "trax"),
    ("evaluation", "following"),
    ("evaluation", "report"),
    ("evaluation", "scoring"),
    ("cli", "cli_catalogue"),
    ("cli_catalogue", "cli_speed"),
    ("cli", "cli_data"),
    ("cli", "cli_results"),
    ("cli", "cli_vot"),
    ("cli", "cli_reproduce"),
    ("cli", "cli_speed"),
    ("cli_results", "cli_data"),
    ("cli_vot", "cli_data"),
    ("cli_reproduce", "cli_data"),
    ("reproduce", "compare"),
    ("quickstart", "reproduce"),
}
TORCH_FREE = (
    "boxes",
    "registry",
    "results",
    "errors",
    "config",
    "terminal",
    "cli",
    "cli_catalogue",
    "cli_data",
    "cli_results",
    "cli_vot",
    "cli_reproduce",
    "cli_speed",
    "filetree",
    "yamltext",
    "rawresults",
    "scoring",
    "compare",
    "trax",
    "foreign",
    "data",
    "metrics",
)


def imports(path: Path) -> list[tuple[str, bool]]:
    """(module, whether at the top level) of every import in a file."""
    tree = ast.parse(path.read_text())
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
        found += [(name, node in tree.body) for name in names]
    return found


def unit(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    own = unit(path)
    assert own in LAYER, f"{own} has no place in the table"
    for name, _ in imports(path):
        parts = name.split(".")
        other = parts[1] if parts[0] == "mstrack" and len(parts) > 1 else None
        if other is None or other == own or other == "__version__":
            continue
        assert other in LAYER, f"{own} imports {name}, which has no place in the table"
        assert LAYER[other] < LAYER[own] or (own, other) in SIDEWAYS, f"{own} imports {other}"


@pytest.mark.parametrize("path", [p for p in FILES if unit(p) in TORCH_FREE and p.name != "sampling.py"], ids=lambda p: p.name)
def test_these_do_not_import_torch(path: Path) -> None:
    assert not any(name.split(".")[0] == "torch" for name, _ in imports(path))


def test_the_page_on_design_has_the_same_table() -> None:
    page = (PACKAGE.parent / "docs" / "design.md").read_text(encoding="utf-8")
    tree, table = (page.partition(heading)[2].split("```")[1] for heading in ("## The tree", "## Imports go one way"))
    rows = re.split(r"^layer \d", table, flags=re.MULTILINE)[1:]
    for number, row in enumerate(rows):
        assert set(LAYERS[number]) <= set(re.findall(r"\w+", row))
    assert not {path.name for path in FILES if not path.name.startswith("__")} - set(re.findall(r"\w+\.py", tree))


def test_importing_the_package_or_the_command_loads_no_torch() -> None:
    code = "import sys, mstrack, mstrack.cli; sys.exit('torch' in sys.modules or 'cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_public_name_can_be_imported() -> None:
    import mstrack

    for name in mstrack.__all__:
        assert callable(getattr(mstrack, name))
    with pytest.raises(AttributeError):
        _ = mstrack.no_such_name
