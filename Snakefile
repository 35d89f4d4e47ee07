# Orders the notebooks: data, runs, figures and studies. `make figures` calls it; `snakemake -n` shows what it would do.
# All that it writes is in data/ and runs/; the committed figures/ are only read.
#
# What a job writes is flagged `update`: Snakemake removes other outputs before a job starts, and a figure must not be missing
# because its job was interrupted. The notebook writes each file whole, or not at all; run folders that are current stay as they are.
# A job is done when its executed notebook is there, or its mark, the one output that is removed.
#
# Contents decide what is done again, not times. `params` hold fingerprints of settings, code and data, and the executed notebooks
# that other jobs read are compared by checksum (profiles/default). All else is `ancient`: it has to be there, its time is not asked for.
from wiseale_nb.config import load_config, select
from wiseale_nb.data import DATASETS
from wiseale_tools import rules as ask

PROFILE = config.get("profile", "quick")
WANTED = str(config.get("datasets") or "")  # "" means all but those that the user has to bring
SIZE = config.get("size")  # of the studies; without one there are none
SETTINGS = select(load_config(PROFILE), WANTED)
FIGURES = ask.profile_entries(PROFILE, WANTED)
ANALYTIC = ask.analytic_entries()
STUDIES = ask.study_entries("studies", SIZE, str(config.get("studies") or "")) if SIZE else []
# `exec`, so that the runner's parent is Snakemake itself; it wants outputs that are newer than inputs, though they may stay as they are.
RUN = "touch -c {output:q} && exec wiseale-run --quiet --parent $PPID {input.notebook:q} {output.executed:q}"
TRAINED = [
    [ask.trained(PROFILE, dataset, method), *ask.run_files(PROFILE, dataset, method, settings["seeds"])]
    for dataset, settings in SETTINGS.items()
    for method in settings["methods"]
]


def fetched(names):
    "What is there once the scripts of some data sets have run."
    return [file for name in names if name in SETTINGS for file in ask.fetched(name, SETTINGS[name])]


def made(entries):
    "All files of some figures: naming each makes sure that one which was deleted is made again."
    return [[ask.executed(entry), *ask.out_files(entry)] for entry in entries]


localrules: all, studies


rule all:
    input:
        TRAINED,
        made(FIGURES),
        [] if WANTED else made(ANALYTIC),


rule studies:
    input:
        made(STUDIES),


for dataset, settings in SETTINGS.items():
    if DATASETS[dataset].script and not DATASETS[dataset].user_supplied:
        rule:
            name:
                f"fetch_{dataset}"
            localrule:
                True  # a cluster's nodes may have no network
            output:
                (touch if ask.is_rendered(dataset) else update)(ask.fetched(dataset, settings)),
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
            output:
                update(ask.run_files(PROFILE, dataset, method, settings["seeds"])),
                executed=ask.trained(PROFILE, dataset, method),
            params:
                key=ask.runs_key(PROFILE, dataset, method, settings["seeds"]),
                data=ask.content(ask.data_files(dataset)),
                words=["-p", "dataset", dataset, "-p", "method", method, "-p", "seeds", str(settings["seeds"])],
            shell:
                RUN + " {params.words:q} -p profile {PROFILE:q} -p progress false"


for entry in FIGURES + ANALYTIC + STUDIES:
    runs, datasets = ask.shown_runs(entry, WANTED), ask.shown_datasets(entry, WANTED)
    rule:
        name:
            entry.stem
        input:
            notebook=ancient(f"nbs/{entry.figure.notebook}.ipynb"),
            runs=sorted({ask.trained(entry.profile, *run[:2]) for run in runs}),
            data=ancient(fetched(datasets)),
        output:
            update(ask.out_files(entry)),
            executed=ask.executed(entry),
        params:
            key=ask.picture_and_data_key(entry),
            data=ask.content(ask.data_files(*datasets)),
            inputs=ask.inputs_key(entry),
            words=lambda wildcards, input, entry=entry: ask.parameters(entry),
            state=lambda wildcards, input, entry=entry: ask.data_state(entry, WANTED),
        shell:
            RUN + " {params.words:q} --key {params.state:q}"
