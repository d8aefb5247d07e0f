"""What a study needs on the paper's own data and does not find: data sets, weights, where they belong and are published."""

from pathlib import Path

from mstrack.data.doctor.survey import count_sequences, tree_of
from mstrack.data.layout import describe_tree
from mstrack.data.roots import data_roots, locate
from mstrack.data.splits import read_list
from mstrack.reproduce.agenda import Agenda
from mstrack.reproduce.jobs import trains
from mstrack.reproduce.table import spelled
from mstrack.reproduce.weights import weights_file
from mstrack.results import read_json


def find_missing(agenda: Agenda) -> list[str]:
    """A paragraph for each data set and each file of weights that is not there."""
    lines = [_describe_data(agenda, ground.name) for ground in agenda.grounds if not locate(ground.name, agenda.site.data_root)]
    for name in wanted_weights(agenda):
        file = weights_file(name, agenda.site.weights)
        if not file.is_file():
            lines.append(
                f"weights {name}: expected at {file}. docs/weights.md says where they are published;"
                f" then `mst convert FILE {file}`."
            )
    return lines


def find_incomplete(agenda: Agenda) -> list[str]:
    """A sentence for each split that is not all there, without its full stop."""
    lines = []
    for ground in agenda.grounds:
        place = agenda.site.scale.data[ground.name]
        for folder in locate(ground.name, agenda.site.data_root)[:1]:
            counts = count_sequences(ground.name, folder)
            for split in (place.train, place.test):
                listed = len(read_list(ground.name, split).names)
                if counts.get(split, 0) < listed:
                    lines.append(
                        f"{spelled(ground.name)}: {counts.get(split, 0)} of {listed} sequences of '{split}' are in {folder}"
                    )
    return lines


def find_partial_runs(agenda: Agenda) -> list[str]:
    """A sentence for each run that was tested on a part of the list, now or before the rest came, without its full stop."""
    lines = []
    for job in agenda.row_jobs(listing=True):
        ran = job.folder / "results" / "run.json"
        tested = read_json(ran)["list"] if ran.is_file() else {}
        if "of" in tested:
            lines.append(
                f"{job.folder} was tested on {tested['sequences']} of {tested['of']} sequences; where there are more, remove"
                " that folder, and it is made again"
            )
    return lines


def wanted_weights(agenda: Agenda) -> list[str]:
    """Names of the published weights that the rows start from or are tracked with."""
    site = agenda.site
    names: dict[str, None] = {}
    for row in agenda.rows:
        for ground in agenda.grounds:
            started = site.scale.foundations[site.plan.rows[row].base].weights
            released = site.plan.rows[row].released.get(ground.name)
            name = released if released and not trains(site, row, ground.name) else started
            if name is not None:
                names[name] = None
    return list(names)


def _describe_data(agenda: Agenda, dataset: str) -> str:
    place = agenda.site.scale.data[dataset]
    folders = " or ".join(str(root / spelled(dataset)) for root in data_roots(agenda.site.data_root))
    counts = [f"{len(read_list(dataset, split).names)} sequences of '{split}'" for split in (place.train, place.test)]
    return (
        f"data set {spelled(dataset)}: expected at {folders}, with {' and '.join(counts)}, in any of these layouts\n"
        f"{describe_tree(tree_of(dataset))}\n  published at {place.source}; `mst data list` shows what is found."
    )


def say_where(data_root: Path | None, weights: Path | None) -> str:
    """Where data and weights were looked for."""
    roots = ", ".join(map(str, data_roots(data_root)))
    return f"data in {roots} (--data-root, $MST_DATA), weights in {weights_file('x', weights).parent} (--weights, $MST_WEIGHTS)"
