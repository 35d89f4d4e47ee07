# Orders the notebooks: data -> runs -> figures -> manifest. `make figures` calls it; `snakemake -n` shows what it would do.
# Every rule runs one notebook through wiseale-run. Settings come from config/<profile>.yaml and are given to `params`,
# so that a changed setting re-runs what depends on it and nothing else.
import os
from pathlib import Path
from wiseale_nb import experiment

ROOT = Path(workflow.basedir)
PROFILE = config.get("profile", "quick")
DATASETS = config.get("datasets") or ""  # "" means all but those that the user has to bring
SETTINGS = experiment.select(experiment.load_config(PROFILE, ROOT / "config"), DATASETS)
FIGURES = experiment.profile_figures(SETTINGS)
DATA = Path(os.environ.get("WISEALE_DATA") or ROOT / "data")
RUNS, OUT = experiment.runs_folder("", PROFILE), f"figures/{PROFILE}"
FILES = {  # of each data set that is read from files
    "mnist": [DATA / "mnist" / f"{part}-ubyte.gz" for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")],
    "celeba": [DATA / "celeba" / name for name in ("images.npy", "partition.npy")],  # no rule makes them
}
if "teapot" in SETTINGS:  # the script keeps a larger set, which serves as well; so there is a mark for each size that was asked for
    TEAPOT = {key: SETTINGS["teapot"][key] for key in ("n_train", "n_test")}
    FILES["teapot"] = [DATA / "teapot" / "{n_train}_train_{n_test}_test".format(**TEAPOT)]
RUN = "exec wiseale-run --quiet --parent $PPID"  # `exec`, so that the runner's parent is Snakemake itself


def modules(*names):
    return [f"wiseale_nb/{name}.py" for name in names]


def run_files(*runs):
    "All files of some runs, each a data set, a method and a seed."
    return [experiment.run_folder(RUNS, *run) / name for run in runs for name in experiment.RUN_FILES]


def drawn(name):
    "The files of a figure and those that it is drawn from."
    out = experiment.figures_folder("", PROFILE, FIGURES[name].dataset)
    return [out / f"{name}.{ext}" for ext in experiment.FORMATS] + [out / "data" / f for f in FIGURES[name].data]


localrules: all, manifest


rule all:  # names every file, so that one that was deleted is made again
    input:
        [] if DATASETS else f"{OUT}/MANIFEST.json",  # it is about the whole profile
        [drawn(name) for name in FIGURES],
        run_files(*experiment.profile_runs(SETTINGS)),


rule manifest:
    input:
        [drawn(name) for name in FIGURES],
        run_files(*experiment.profile_runs(SETTINGS)),
        modules=modules("experiment", "pipeline"),
    output:
        f"{OUT}/MANIFEST.json",
        f"{OUT}/data/metrics.csv",
    params:
        settings=SETTINGS,
    shell:
        "wiseale-pipeline manifest {PROFILE}"


rule mnist:
    output:
        FILES["mnist"],
    shell:
        "python data_scripts/mnist.py"


if "teapot" in SETTINGS:
    rule teapot:
        output:
            touch(FILES["teapot"]),
        shell:
            "python data_scripts/teapot.py --n {TEAPOT[n_train]} --held-out {TEAPOT[n_test]}"


for dataset, settings in SETTINGS.items():
    for method in settings["methods"]:
        rule:
            name:
                f"train_{dataset}_{method}"
            input:
                notebook="nbs/10_train.ipynb",
                modules=modules("aggregate", "loss", "models", "data", "training", "evaluation", "experiment"),
                data=FILES.get(dataset, []),
            output:
                run_files(*((dataset, method, seed) for seed in settings["seeds"])),
                executed=experiment.run_folder(RUNS, dataset, method, 0).parent / "notebook.ipynb",
            params:  # the other methods are not among them
                settings={key: value for key, value in settings.items() if key != "methods"} | {"objective": settings["methods"][method]},
                given=f"-p dataset {dataset} -p method {method} -p seeds '{settings['seeds']}'",
            shell:
                "{RUN} {input.notebook} {output.executed} {params.given} -p profile {PROFILE} -p progress false"


for name, figure in FIGURES.items():
    rule:
        name:
            name
        input:
            notebook=f"nbs/{figure.notebook}",
            modules=modules("aggregate", "plotting", "experiment", *(("data", "models", "evaluation") if figure.dataset or figure.every else ()),
                            *(("representation",) if figure.every else ())),
            runs=run_files(*experiment.figure_runs(name, SETTINGS)),
            data=[path for dataset in (figure.dataset, *figure.every) for path in FILES.get(dataset, []) if dataset in SETTINGS],
        output:
            drawn(name),
            executed=RUNS / "figures" / f"{name}.ipynb",
        params:
            given=f"-p dataset {figure.dataset}" if figure.shared else "",
        shell:
            "{RUN} {input.notebook} {output.executed} -p profile {PROFILE} -p redraw false {params.given}"
