# Orders the notebooks: data -> runs -> figures -> manifest. `make figures` calls it; `snakemake -n` shows what it would do.
# Every rule runs one notebook through wiseale-run. Settings come from config/<profile>.yaml and are given to `params`,
# so that a changed setting re-runs what depends on it and nothing else.
import os
from pathlib import Path
from wiseale_nb import experiment

ROOT = Path(workflow.basedir)
PROFILE = config.get("profile", "quick")
SETTINGS = experiment.load_config(PROFILE, ROOT / "config")
FIGURES = experiment.profile_figures(SETTINGS)
DATA = Path(os.environ.get("WISEALE_DATA") or ROOT / "data")
RUNS, OUT = experiment.runs_folder("", PROFILE), f"figures/{PROFILE}"
MNIST = [DATA / "mnist" / f"{part}-ubyte.gz" for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")]
RUN = "exec wiseale-run --quiet --parent $PPID"  # `exec`, so that the runner's parent is Snakemake itself


def modules(*names):
    return [f"wiseale_nb/{name}.py" for name in names]


def run_files(*runs):
    "All files of some runs, each a data set, a method and a seed."
    return [experiment.run_folder(RUNS, *run) / name for run in runs for name in experiment.RUN_FILES]


def drawn(name):
    return [f"{OUT}/{name}.{ext}" for ext in experiment.FORMATS] + [f"{OUT}/data/{f}" for f in FIGURES[name].data]


localrules: all, manifest


rule all:  # names every file, so that one that was deleted is made again
    input:
        f"{OUT}/MANIFEST.json",
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
        MNIST,
    shell:
        "python data_scripts/mnist.py"


for dataset, settings in SETTINGS.items():
    for method in settings["methods"]:
        rule:
            name:
                f"train_{dataset}_{method}"
            input:
                notebook="nbs/10_train.ipynb",
                modules=modules("aggregate", "loss", "models", "data", "training", "evaluation", "experiment"),
                data=MNIST if dataset == "mnist" else [],
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
            data=MNIST if figure.dataset == "mnist" or "mnist" in figure.every and "mnist" in SETTINGS else [],
        output:
            drawn(name),
            executed=RUNS / "figures" / f"{name}.ipynb",
        shell:
            "{RUN} {input.notebook} {output.executed} -p profile {PROFILE} -p redraw false"
