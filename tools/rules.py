"""What the Snakefile asks: which files a job has, whether they are there, and what they hold."""

import functools
from pathlib import Path

from wiseale_nb.config import load_config, load_sizes, load_studies, resolve_settings, select
from wiseale_nb.core import data_root
from wiseale_nb.data import DATASETS
from wiseale_nb.figures import figure_runs, load_figures, profile_figures
from wiseale_nb.fingerprint import code_fingerprint
from wiseale_nb.keys import data_key, figure_key, hash_of, study_datasets
from wiseale_nb.recipe import run_key
from wiseale_nb.runs import RUN_FILES, run_folder, runs_folder
from wiseale_tools.manifest import Entry, checksum


def profile_entries(profile, datasets=""):
    """The figures of a profile, or of some of its data sets."""
    figures = profile_figures(select(load_config(profile), datasets))
    return [Entry(name, figure, profile, "") for name, figure in figures.items()]


def analytic_entries():
    """The figures that come from formulas alone."""
    return [Entry(name, figure, "quick", "") for name, figure in load_figures().items() if figure.analytic]


def study_entries(folder, size, wanted=""):
    """The studies of figures/<folder> that have a size, or some of them, by name."""
    sizes = load_studies().get(size, {})
    figures = {name: f for name, f in load_figures().items() if f.study and name in sizes}
    return [
        Entry(name, figure, load_sizes(name, size).get("profile", "quick"), size)
        for name, figure in figures.items()
        if figure.shared == folder and (not wanted or name in wanted.split())
    ]


def data_files(*datasets):
    """The files that data sets are read from."""
    return [str(path) for name in datasets if name for path in DATASETS[name].files()]


def is_rendered(dataset):
    """Whether the script of a data set renders it, and is told how many samples to make."""
    return bool(DATASETS[dataset].renderer)


def fetched(dataset, settings):
    """What is there once a data set's script has run: its files, or a mark if they depend on the sizes."""
    if not is_rendered(dataset):
        return data_files(dataset)
    mark = f"{settings['n_train']}_train_{settings['n_test']}_test"  # a larger set serves as well
    return [str(data_root() / dataset / mark)]


def script_words(dataset, settings):
    """The call of a data set's script."""
    sizes = ["--n", str(settings["n_train"]), "--held-out", str(settings["n_test"])]
    return [DATASETS[dataset].script, *(sizes if is_rendered(dataset) else [])]


def script_key(dataset):
    """Fingerprint of the code that renders a data set; that of nothing if it is downloaded."""
    return code_fingerprint(*DATASETS[dataset].renderer) if is_rendered(dataset) else ""


def run_files(profile, dataset, method, seeds):
    """All files of a method's runs."""
    folders = [run_folder(runs_folder("", profile), dataset, method, seed) for seed in seeds]
    return [str(folder / name) for folder in folders for name in RUN_FILES]


def trained(profile, dataset, method):
    """The executed notebook of a method's training."""
    return str(runs_folder("", profile) / dataset / method / "notebook.ipynb")


def out_files(entry):
    """The pictures and data of a figure."""
    return [str(entry.made_in() / name) for name in entry.pictures + entry.data]


def executed(entry):
    """The executed notebook of a figure, beside its pictures."""
    return str(entry.made_in() / f"{entry.stem}.ipynb")


def shown_runs(entry, datasets=""):
    """The runs that a figure reads, as data set, method and seed."""
    if entry.figure.analytic:
        return []
    if entry.size:
        return figure_runs(entry.name, load_config(entry.profile), load_sizes(entry.name, entry.size))
    return figure_runs(entry.name, select(load_config(entry.profile), datasets))


def shown_datasets(entry, datasets=""):
    """The data sets whose samples a figure may read."""
    if not entry.size:
        return sorted({dataset for dataset, _, _ in shown_runs(entry, datasets)})
    return study_datasets(load_sizes(entry.name, entry.size))


@functools.cache
def checksum_once(path, changed, size):
    """SHA-256 of a file, which many rules may read; it is read again only after a change."""
    return checksum(path)


def content(files):
    """A hash of what files hold; a file that is not there counts too."""
    files = list(files)
    states = [(file, Path(file).stat()) for file in files if Path(file).is_file()]
    sums = {str(file): checksum_once(file, state.st_mtime_ns, state.st_size) for file, state in states}
    return hash_of(*(sums.get(str(file), "") for file in files))


def runs_key(profile, dataset, method, seeds):
    """Fingerprint of the settings and the code of a method's runs."""
    keys = [run_key(resolve_settings(profile, dataset, method, seed)) for seed in seeds]
    return hash_of(*keys)


def inputs_key(entry):
    """A hash of the committed tables of others that a figure reads."""
    own = entry.folder_in()
    inputs = [Path("figures", name) for name in entry.figure.inputs]
    return content(path for path in inputs if own not in path.parents)


def picture_and_data_key(entry):
    """Fingerprint of the settings and the code of a figure."""
    return figure_key(entry.name, entry.profile, entry.size or "quick")


def data_state(entry, datasets=""):
    """What a figure's data depend on: settings, code, runs, samples. Known once the runs are there."""
    runs = [run_folder(runs_folder("", entry.profile), *run) for run in shown_runs(entry, datasets)]
    parts = [
        data_key(entry.name, entry.profile, entry.size or "quick"),
        content(folder / "run.json" for folder in runs),
        content(data_files(*shown_datasets(entry, datasets))),
    ]
    return "-".join(parts)


def parameters(entry):
    """The words that give a figure's notebook its parameters."""
    words = ["-p", "size", entry.size] if entry.size else ["-p", "profile", entry.profile]
    words += ["-p", "out", str(entry.made_in())]
    notebooks = [figure.notebook for figure in load_figures().values() if not figure.study]
    if notebooks.count(entry.figure.notebook) > 1:
        words += ["-p", "dataset", entry.figure.dataset]
    data = [file for file in out_files(entry) if "/data/" in file]
    return words if all(Path(file).is_file() for file in data) else [*words, "-p", "redraw", "false"]
