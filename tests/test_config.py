import sys
from pathlib import Path

import pytest
import yaml

from mstrack.config import Config, dump_config, load_config, recipe_names
from mstrack.data.roots import data_roots
from mstrack.errors import UserError
from mstrack.registry import TUNINGS, resolve
from mstrack.yamltext import parse_yaml

SMALL = {
    "model": {"name": "mst-tiny"},
    "data": {"modality": "depth", "train": [{"name": "synthetic", "split": "train"}]},
    "train": {"lr": "3e-4", "epochs": 1, "samples": 8, "batch": 4},
}


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_are_valid_and_survive_a_round_trip(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_config(config))
    assert load_config(copy) == config


@pytest.mark.parametrize("recipe", ["paper", "default"])
@pytest.mark.parametrize("method", TUNINGS)
def test_another_method_takes_nothing_of_the_recipes(recipe: str, method: str) -> None:
    config = load_config(recipe, [f"tuning.name={method}"])
    same = method == load_config(recipe).tuning.name
    assert config.tuning.arguments == (load_config(recipe).tuning.arguments if same else {})
    resolve("tunings", method)(**config.tuning.arguments)
    assert config.tuning.parameters == load_config(recipe).tuning.parameters
    given = load_config(recipe, ["tuning.arguments.share=0.5", "tuning.name=sparse", "tuning.arguments.batches=3"])
    assert given.tuning.arguments == {"share": 0.5, "batches": 3}
    whole = load_config(recipe, ["tuning={name: sparse, arguments: {share: 0.1}}"])
    assert whole.tuning.arguments == {"share": 0.1}


def test_precedence_defaults_recipe_overrides() -> None:
    config = load_config(SMALL, ["train.batch=2", "data.train.0.split=val", "tuning.arguments.momentum=[0.7, 0.9]"])
    assert config.train.batch == 2
    assert config.train.lr == pytest.approx(3e-4)  # YAML 1.1 reads 3e-4 as text
    assert config.train.clip == Config.model_fields["train"].annotation.model_fields["clip"].default
    assert config.data.train[0].split == "val"
    assert config.tuning.arguments == {"momentum": [0.7, 0.9]}


def test_patterns_keep_their_order() -> None:
    patterns = {"head.*": 0.0, "cross.*": 0.5, "*": 1.0, "a*": 2.0}
    config = load_config({**SMALL, "tuning": {"parameters": patterns}})
    assert list(config.tuning.parameters.items()) == list(patterns.items())


@pytest.mark.parametrize(
    ("override", "fragments"),
    [
        ("train.bacth=3", ["train.bacth", "Did you mean 'batch'"]),
        ("tunning.name=mst", ["Did you mean 'tuning'"]),
        ("data.train.0.rot=x", ["data.train.0.rot", "Did you mean 'root'"]),
        ("train.epochs=0", ["train.epochs", "given 0"]),
        ("data.modality=sonar", ["data.modality", "sonar"]),
        ("train.seed=18446744073709551616", ["train.seed", "less than"]),
        ("train.samples=100000000000000000000", ["train.samples", "less than"]),
        ("train.lr", ["section.key=value"]),
        ("train.lr.x=1", ["leads through a value"]),
    ],
)
def test_mistakes_are_named(override: str, fragments: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load_config(SMALL, [override])
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_all_mistakes_are_listed_at_once() -> None:
    with pytest.raises(UserError, match=r"3 problem\(s\)"):
        load_config(SMALL, ["train.bacth=3", "train.epochs=0", "model.wieghts=x"])


def test_missing_recipe_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'quickstart'"):
        load_config(tmp_path / "quikstart.yaml")


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("train:\n  lr: 1e-4\n  epochs: 1\n  lr: 1e-3\n", "the key 'lr' of line 2 is there again in line 4"),
        ("run: {}\ndata: {}\nrun: {}\n", "the key 'run' of line 1 is there again in line 3"),
        ("train: {seed: 2001-13-45}", "value that cannot be"),
        ("train: {seed: !!timestamp no}", "value that cannot be"),
        ("[" * 3000, "nested too deeply"),
    ],
)
def test_yaml_that_says_two_things_or_none(tmp_path: Path, text: str, fragment: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=f"recipe .*recipe.yaml is not YAML.*{fragment}"):
        load_config(path)
    with pytest.raises(UserError, match=f"the value is not YAML.*{fragment}"):
        load_config(SMALL, [f"model={text}"])


def test_merged_keys_may_be_said_again() -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: [*a, {<<: *a}]\n"
    a = {"x": 1, "y": 2}
    assert parse_yaml(text, "this") == {"a": a, "b": {"x": 1, "y": 3}, "c": [a, a]}


def test_a_recipe_that_is_not_yaml(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("model: [")
    with pytest.raises(UserError, match="is not YAML"):
        load_config(path)
    path.write_text(yaml.safe_dump([1, 2]))
    with pytest.raises(UserError, match="holds list"):
        load_config(path)


def test_modules_of_the_current_folder_are_found_by_mst_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lies_here.py").write_text("class Method: ...\n")
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder and Path(folder).resolve() != Path.cwd()])
    with pytest.raises(UserError, match="tuning 'lies_here:Method' cannot be imported"):
        resolve("tunings", "lies_here:Method")
    monkeypatch.chdir(tmp_path)
    assert resolve("tunings", "lies_here:Method").__name__ == "Method"


def test_the_home_folder_is_known_where_no_shell_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MST_DATA", "~/sets")
    config = load_config("paper", ["data.train=[{name: lasher, split: train, root: ~/LasHeR}]", "run.out=~/runs/a"])
    assert config.data.train[0].root == tmp_path / "LasHeR"
    assert config.run.out == tmp_path / "runs" / "a"
    assert data_roots() == [tmp_path / "sets"]


def test_a_mapping_may_hold_paths_and_tuples_and_is_copied() -> None:
    given = {**SMALL, "run": {"out": Path("runs/x")}, "tuning": {"name": "mst", "arguments": {"momentum": (0.7, 0.9)}}}
    config = load_config(given, ["tuning.arguments.scope=network"])
    assert config.run.out == Path("runs/x")
    assert config.tuning.arguments == {"momentum": [0.7, 0.9], "scope": "network"}
    assert given["tuning"]["arguments"] == {"momentum": (0.7, 0.9)}
    assert load_config(yaml.safe_load(dump_config(config))) == config
