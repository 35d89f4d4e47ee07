"""MANIFEST.json: what lies in a folder of figures, what each figure was drawn from, and by whom.

It stands in every folder below figures/, and holds the settings, each figure with its notebook, files and
runs, every file with its SHA-256, and for every run its machine, versions, commit, wall time and the seeds it
was trained with. So a number in a figure can be followed to the machine that produced it.
"""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from wiseale_nb.config import load_config, load_sizes, profile_runs, select
from wiseale_nb.core import atomic_write, read_json, write_csv
from wiseale_nb.figures import Figure, figure_runs, load_figures, profile_figures
from wiseale_nb.runs import load_run, run_folder, runs_folder, versions
from wiseale_nb.style import FORMATS
from wiseale_tools import CallError

NAME = "MANIFEST.json"
KEYS = {"profile", "runs", "figures", "files"}


class Entry(NamedTuple):
    """One figure, or one table, of a folder."""

    name: str  # in figures.yaml
    figure: Figure
    profile: str  # whose runs it shows, or whose settings a study starts from
    size: str  # of a study; "" for others

    @property
    def stem(self):
        return self.figure.stem_at(self.name, self.size)

    @property
    def pictures(self):
        """Names of the files that are drawn."""
        if self.figure.page:
            return [f"{self.stem}.html"]
        return [f"{self.stem}.{form}" for form in FORMATS] if self.figure.picture else []

    @property
    def data(self):
        """Names of the files that it is drawn from."""
        return [f"data/{file}" for file in self.figure.data_files(self.name, self.size or "quick")]

    def made_in(self, root=""):
        """The folder where it is drawn."""
        return self.figure.made_in(root, self.profile)

    def folder_in(self, root=""):
        """The folder where it is committed, see `publish`."""
        return self.figure.folder_in(root, self.profile)


def checksum(path):
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_name(dataset, method, seed):
    """What the manifest calls a run: its folder below the profile's."""
    return run_folder(Path(), dataset, method, seed).as_posix()


def own_figures(folder):
    """The figures of figures/<folder>, by name, if that is a folder of no profile; else none."""
    place = Path("figures", folder)
    return {name: f for name, f in load_figures().items() if f.folder_in("", "any profile") == place}


def is_profile(folder):
    """Whether the figures in figures/<folder> are those of a profile."""
    return not own_figures(folder)


def folder_entries(folder, datasets=""):
    """The figures that belong into figures/<folder>; of a profile those of some data sets, see `select`."""
    if is_profile(folder):
        figures = profile_figures(select(load_config(folder), datasets)).items()
        place = Path("figures", folder)
        return [Entry(name, f, folder, "") for name, f in figures if f.folder_in("", folder) == place]
    entries = []
    for name, figure in own_figures(folder).items():
        if figure.study:
            profiles = {size: load_sizes(name, size).get("profile", "quick") for size in figure.sizes}
            entries += [Entry(name, figure, profile, size) for size, profile in profiles.items()]
        else:
            entries.append(Entry(name, figure, "quick", ""))
    return entries


def folder_files(folder):
    """The files of a folder of figures, relative to it, without the manifest."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
    return sorted(path.relative_to(folder).as_posix() for path in files if not path.name.startswith("."))


def record(entry, config):
    """What the manifest says of a figure."""
    sizes = load_sizes(entry.name, entry.size) if entry.size else None
    runs = [] if entry.figure.analytic else figure_runs(entry.name, config, sizes)
    return {
        "name": entry.name,
        "profile": entry.profile,
        "size": entry.size,
        "notebook": f"nbs/{entry.figure.notebook}.ipynb",
        "files": entry.pictures,
        "data": entry.data,
        "runs": [run_name(*run) for run in runs],
    }


def folder_config(folder, entries, datasets=""):
    """The settings behind a folder's figures: those of its profile, or the sizes of each study."""
    if is_profile(folder):
        return select(load_config(folder), datasets)
    return {entry.stem: load_sizes(entry.name, entry.size) for entry in entries if entry.size}


def metrics_table(runs):
    """The held-out metrics of all runs, given by data set, method and seed, as one tidy table."""
    table = pd.concat({key: run.metrics for key, run in runs.items()}, names=["dataset", "method", "seed"])
    return table.droplevel(-1).reset_index()


def file_sums(folder, entries):
    """The SHA-256 of every file; `CallError` if a figure has not been drawn."""
    known = read_manifest(folder)["files"] if (folder / NAME).is_file() else {}
    sums = {file: checksum(folder / file) for file in folder_files(folder)}
    for entry in entries:
        sums |= kept_sums(folder, entry, sums, known)
    return sums


def kept_sums(folder, entry, sums, known):
    """The known checksum of a figure's PDF, which a clone does not have, if its other files are as before."""
    missing = [file for file in entry.pictures if file not in sums]
    others = [file for file in entry.pictures + entry.data if file not in missing]
    pdfs = all(file.endswith(".pdf") and file in known for file in missing)
    if missing and not (pdfs and all(sums.get(file) == known.get(file) for file in others)):
        raise CallError(f"{folder} lacks {', '.join(missing)}; `make redraw` draws what is committed")
    return {file: known[file] for file in missing}


def manifest_of(folder, root, runs, datasets=""):
    """The content of a folder's manifest; `runs` are the records of its runs, by name."""
    entries = folder_entries(folder, datasets)
    configs = {entry.profile: load_config(entry.profile) for entry in entries}
    if is_profile(folder):
        configs[folder] = select(load_config(folder), datasets)
    return {
        "profile": folder,
        "config": folder_config(folder, entries, datasets),
        "versions": versions(),
        "runs": runs,
        "figures": {entry.stem: record(entry, configs[entry.profile]) for entry in entries},
        "files": file_sums(root / "figures" / folder, entries),
    }


def write_manifest(folder, root, datasets=""):
    """Write figures/<folder>/MANIFEST.json, and of a profile the metrics of all its runs.

    Errors: `ParameterError` if a run is not finished, `CallError` if a figure has not been drawn.
    """
    keys = profile_runs(select(load_config(folder), datasets)) if is_profile(folder) else []
    runs = {key: load_run(run_folder(runs_folder(root, folder), *key)) for key in keys}
    if runs:
        write_csv(root / "figures" / folder / "data" / "metrics.csv", metrics_table(runs))
    infos = {}
    for key, run in runs.items():
        infos[run_name(*key)] = {name: value for name, value in run.info.items() if name != "settings"}
    return save_manifest(root / "figures" / folder, manifest_of(folder, root, infos, datasets))


def save_manifest(folder, manifest):
    """Write a manifest; returns its path."""
    return atomic_write(folder / NAME, json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def read_manifest(folder):
    """Read the manifest of a folder; `ParameterError` if there is none or it is damaged."""
    return read_json(folder / NAME, dict, KEYS)


def all_manifests(root):
    """The manifests of all folders of figures, by folder name."""
    return {path.parent.name: read_manifest(path.parent) for path in sorted(root.glob(f"figures/*/{NAME}"))}
