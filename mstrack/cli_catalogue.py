"""The commands on what there is: `list`, `config`, `info`, `convert`."""

from pathlib import Path
from typing import Annotated

import typer

from mstrack.cli_speed import Model, open_checkpoint
from mstrack.errors import UserError
from mstrack.registry import TABLES, summarise, unknown
from mstrack.terminal import say

catalogue_app = typer.Typer()
config_app = typer.Typer(no_args_is_help=True, help="Look at configurations.")
catalogue_app.add_typer(config_app, name="config")

Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, such as train.lr=3e-4.")]


@catalogue_app.command(name="list")
def list_names(kind: Annotated[str, typer.Argument(help="models, datasets, tunings, metrics, recipes or weights.")]) -> None:
    """What there is, and what it is: models, datasets, tunings, metrics, recipes, weights."""
    from mstrack.config import recipe_names, summarise_recipe

    if kind == "recipes":
        said = {name: summarise_recipe(name) for name in recipe_names()}
    elif kind == "weights":
        said = {f.stem: summarise_recipe(f.stem) for f in sorted((Path(__file__).parent / "weights").glob("*.safetensors"))}
    elif kind in TABLES:
        said = {name: summarise(kind, name) for name in sorted(TABLES[kind])}
    else:
        raise UserError(unknown("list", kind, [*TABLES, "recipes", "weights"]))
    width = max(map(len, said))
    for name, words in said.items():
        typer.echo(f"{name:<{width}}  {words}")


@config_app.command()
def show(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped recipe.")],
    overrides: Overrides = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say above each key what it means.")] = False,
) -> None:
    """Print the whole configuration that a recipe and overrides make, defaults included."""
    from mstrack.config import dump_config, load_config
    from mstrack.keys import explain_keys

    text = dump_config(load_config(recipe, overrides or ()))
    typer.echo(explain_keys(text) if explain else text, nl=False)


@catalogue_app.command()
def info(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint, a shipped weight, or the name of a model.")],
    model: Model = None,
) -> None:
    """Parameters, GFLOPs and provenance of a checkpoint or model."""
    from mstrack.description import describe

    for line in describe(open_checkpoint(checkpoint, model)):
        typer.echo(line)


@catalogue_app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A published .pth.tar or .pth file.")],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    model: Annotated[str | None, typer.Option(help="Which model it is for; default: recognised by its keys.")] = None,
) -> None:
    """Turn a published checkpoint into a self-describing .safetensors file."""
    from mstrack.checkpoint import convert as run

    network = run(source, target, model)
    arguments = ", ".join(f"{key}={value!r}" for key, value in network.arguments.items())
    say(f"checkpoint: {target}, {network.name}({arguments})")
    if "sha256" in network.provenance:
        say(f"made from:  {source.name}, sha256 {network.provenance['sha256']}")
