# Orders the notebooks: data -> runs -> figures -> manifest. `make figures` calls it; `snakemake -n` shows what it would do.
# Every rule runs one notebook through wiseale-run. Settings come from config/<profile>.yaml and are given to `params`,
# so that a changed setting re-runs what depends on it and nothing else.
import os
from pathlib import Path
from wiseale_nb import experiment

ROOT = Path(workflow.basedir)
PROFILE = config.get("profile", "quick")
SETTINGS = experiment.load_config(PROFILE, ROOT / "config")
DATA = Path(os.environ.get("WISEALE_DATA") or ROOT / "data")
RUNS, OUT = f"runs/{PROFILE}", f"figures/{PROFILE}"
MNIST = [DATA / "mnist" / f"{part}-ubyte.gz" for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")]
RUN_FILES = (*experiment.RUN_FILES, "notebook.ipynb")
FORMATS = ("pdf", "png", "svg")
SCHEMATIC, TRAINED = ("2", "3", "4"), {"1": "mnist", "5a": "sine", "6": "sine"}
FIGURES = [*SCHEMATIC, *TRAINED]
NOTEBOOK = {name: f"nbs/2{name[0]}_figure_{name[0]}.ipynb" for name in FIGURES}
DATA_FILES = {
    "1": ["figure_1_posteriors.csv", "figure_1_density.npz"], "2": [], "3": ["figure_3_curves.csv", "figure_3_kl.csv"],
    "4": ["figure_4_curves.csv", "figure_4_kl.csv", "figure_4_minima.csv"], "5a": ["figure_5a.csv"], "6": ["figure_6.csv"],
}


def modules(*names):
    return [f"wiseale_nb/{name}.py" for name in names]


def runs_of(dataset):
    "All run folders a figure of this data set reads."
    return [f"{RUNS}/{dataset}/{m}/seed{k}/{f}" for m in SETTINGS[dataset]["methods"] for k in SETTINGS[dataset]["seeds"] for f in RUN_FILES]


def drawn(name):
    return [f"{OUT}/figure_{name}.{ext}" for ext in FORMATS] + [f"{OUT}/data/{f}" for f in DATA_FILES[name]]


def settings_of(wildcards):
    "The settings one run depends on; seeds and the other methods are not among them."
    return {k: v for k, v in SETTINGS[wildcards.dataset].items() if k not in ("seeds", "methods")} | SETTINGS[wildcards.dataset]["methods"][wildcards.method]


wildcard_constraints:
    dataset="|".join(SETTINGS),
    seed=r"\d+",


localrules: manifest


rule manifest:
    input:
        [drawn(name) for name in FIGURES],
        [runs_of(dataset) for dataset in SETTINGS],
    output:
        f"{OUT}/MANIFEST.json",
    params:
        settings=SETTINGS,
    shell:
        "python -c \"from wiseale_nb.experiment import write_manifest; write_manifest('{PROFILE}')\""


rule mnist:
    output:
        MNIST,
    shell:
        "python data_scripts/mnist.py"


rule train:
    input:
        notebook="nbs/10_train.ipynb",
        modules=modules("aggregate", "loss", "models", "data", "training", "evaluation", "experiment"),
        data=lambda wildcards: MNIST if wildcards.dataset == "mnist" else [],
    output:
        [f"{RUNS}/{{dataset}}/{{method}}/seed{{seed}}/{f}" for f in RUN_FILES],
    params:
        settings=settings_of,
    shell:
        "wiseale-run --quiet {input.notebook} {RUNS}/{wildcards.dataset}/{wildcards.method}/seed{wildcards.seed}/notebook.ipynb"
        " -p dataset {wildcards.dataset} -p method {wildcards.method} -p seed {wildcards.seed} -p profile {PROFILE} -p progress false"


for name in FIGURES:
    rule:
        name:
            f"figure_{name}"
        input:
            notebook=NOTEBOOK[name],
            modules=modules("aggregate", "plotting", "experiment", *(("data", "models", "evaluation") if name in TRAINED else ())),
            runs=runs_of(TRAINED[name]) if name in TRAINED else [],
            data=MNIST if TRAINED.get(name) == "mnist" else [],
        output:
            drawn(name),
            executed=f"{RUNS}/figures/figure_{name}.ipynb",
        shell:
            "wiseale-run --quiet {input.notebook} {output.executed} -p profile {PROFILE} -p redraw false"
