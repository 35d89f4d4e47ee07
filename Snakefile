# Orders the notebooks: data, runs, figures and studies, manifests. `make figures` calls it; `snakemake -n` shows what it would do.
#
# A job is done when its executed notebook is there: that is the output of its rule, which Snakemake removes before it starts.
# Run folders, figures and figure data are no outputs. The notebook writes each file whole, under its name or not at all, so a
# committed figure is never missing because a job was interrupted. If one is not there, `absent` makes its job run again.
#
# Contents decide what is done again, not times. `params` hold fingerprints of settings, code and data, and the executed notebooks
# that other jobs read are compared by checksum (profiles/default). All else is `ancient`: it has to be there, its time is not asked for.
from wiseale_nb.config import load_config, select
from wiseale_nb.data import DATASETS
from wiseale_tools import rules as ask

PROFILE = config.get("profile", "quick")
WANTED = str(config.get("datasets") or "")  # "" means all but those that the user has to bring
SIZE = config.get("size", "quick")  # of the studies
SETTINGS = select(load_config(PROFILE), WANTED)
FIGURES = ask.profile_entries(PROFILE, WANTED)
ANALYTIC = ask.analytic_entries()
STUDIES = ask.study_entries("studies", SIZE)
RUN = "exec wiseale-run --quiet --parent $PPID"  # `exec`, so that the runner's parent is Snakemake itself
TRAINED = [ask.trained(PROFILE, dataset, method) for dataset in SETTINGS for method in SETTINGS[dataset]["methods"]]


def fetched(names):
    "What is there once the scripts of some data sets have run."
    return [file for name in names if name in SETTINGS for file in ask.fetched(name, SETTINGS[name])]


localrules: all, data, studies, absent, manifest, manifest_analytic, manifest_studies


rule all:
    input:
        TRAINED,
        [ask.executed(entry) for entry in FIGURES],
        [] if WANTED else f"runs/{PROFILE}/figures/MANIFEST.json",  # it is about the whole profile
        [] if WANTED else "runs/analytic/MANIFEST.json",


rule studies:
    input:
        [ask.executed(entry) for entry in STUDIES],
        "runs/studies/MANIFEST.json",


rule data:
    input:
        fetched(SETTINGS),


rule absent:  # its content is never the same twice
    output:
        temp(ask.ABSENT),
    shell:
        "date +%s%N > {output:q}"


for dataset, settings in SETTINGS.items():
    if DATASETS[dataset].script and not DATASETS[dataset].user_supplied:
        rule:
            name:
                f"fetch_{dataset}"
            input:
                absent=ask.absent(ask.data_files(dataset)),
            output:
                touch(ask.fetched(dataset, settings)),
            params:
                key=ask.script_key(dataset),
                words=ask.script_words(dataset, settings),
            shell:
                "python {params.words:q}"


for dataset, settings in SETTINGS.items():
    for method in settings["methods"]:
        rule:
            name:
                f"train_{dataset}_{method}"
            input:
                notebook=ancient("nbs/10_train.ipynb"),
                data=ancient(ask.fetched(dataset, settings)),
                absent=ask.absent(ask.run_files(PROFILE, dataset, method, settings["seeds"])),
            output:
                ask.trained(PROFILE, dataset, method),
            params:
                key=ask.runs_key(PROFILE, dataset, method, settings["seeds"]),
                data=ask.content(ask.data_files(dataset)),
                words=["-p", "dataset", dataset, "-p", "method", method, "-p", "seeds", str(settings["seeds"])],
            shell:
                "{RUN} {input.notebook:q} {output:q} {params.words:q} -p profile {PROFILE:q} -p progress false"


for entry in FIGURES + ANALYTIC + STUDIES:
    rule:
        name:
            entry.stem
        input:
            notebook=ancient(f"nbs/{entry.figure.notebook}.ipynb"),
            runs=sorted({ask.trained(entry.profile, *run[:2]) for run in ask.shown_runs(entry, WANTED)}),
            data=ancient(fetched(ask.shown_datasets(entry, WANTED))),
            absent=ask.absent(ask.out_files(entry)),
        output:
            ask.executed(entry),
        params:
            key=ask.picture_and_data_key(entry),
            data=ask.content(ask.data_files(*ask.shown_datasets(entry, WANTED))),
            inputs=ask.inputs_key(entry),
            words=lambda wildcards, input, entry=entry: ask.parameters(entry),
            state=lambda wildcards, input, entry=entry: ask.data_state(entry, WANTED),
        shell:
            "{RUN} {input.notebook:q} {output:q} {params.words:q} --key {params.state:q}"


rule manifest:
    input:
        TRAINED,
        [ask.executed(entry) for entry in FIGURES],
        absent=ask.absent([f"figures/{PROFILE}/MANIFEST.json", f"figures/{PROFILE}/data/metrics.csv"]),
    output:
        f"runs/{PROFILE}/figures/MANIFEST.json",
    params:
        settings=SETTINGS,
    shell:
        "wiseale-pipeline manifest {PROFILE:q} && cp figures/{PROFILE:q}/MANIFEST.json {output:q}"


for folder, entries in {"analytic": ANALYTIC, "studies": STUDIES}.items():
    rule:
        name:
            f"manifest_{folder}"
        input:
            [ask.executed(entry) for entry in entries],
            absent=ask.absent([f"figures/{folder}/MANIFEST.json"]),
        output:
            f"runs/{folder}/MANIFEST.json",
        params:
            folder=folder,
        shell:
            "wiseale-pipeline manifest {params.folder} && cp figures/{params.folder}/MANIFEST.json {output:q}"
