"""What the Snakefile asks, and that its rules ask it: each answer follows the contents that it stands for."""

from pathlib import Path

import pytest
from conftest import ROOT
from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, OutputSettings, Quietness, ResourceSettings

from wiseale_nb.config import load_config
from wiseale_nb.data import DATASETS
from wiseale_nb.figures import figure_runs, load_figures
from wiseale_tools import rules
from wiseale_tools.manifest import Entry, folder_entries


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """A project without runs, data and committed figures, and the call that writes one of its files."""
    for name in ("settings.ini", "figures.yaml", "config"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WISEALE_DATA", "data")

    def write(name, text):
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return write


def test_state_of_data_follows_code_runs_and_samples(scratch, monkeypatch):
    """But not the runs of other seeds, which the figure does not show."""
    figure = Entry("figure_1", load_figures()["figure_1"], "quick", "")
    monkeypatch.setattr(rules, "data_key", lambda *names: "code")
    before = rules.data_state(figure)
    scratch("runs/quick/mnist/aevb/seed1/run.json", "a")
    assert rules.data_state(figure) == before
    states = [before]
    for name in ("runs/quick/mnist/aevb/seed0/run.json", str(DATASETS["mnist"].files()[-1])):
        for text in ("a", "b"):
            scratch(name, text)
            states.append(rules.data_state(figure))
    monkeypatch.setattr(rules, "data_key", lambda *names: "other code")
    assert len({*states, rules.data_state(figure)}) == 6


def test_inputs_are_the_tables_of_others(scratch):
    claims = Entry("claims", load_figures()["claims"], "quick", "")
    before = rules.inputs_key(claims)
    scratch("figures/quick/data/claims_values.csv", "a")  # its own
    assert rules.inputs_key(claims) == before
    keys = set()
    for text in ("a", "b"):
        scratch("figures/studies/data/cited_methods_longer.csv", text)
        keys.add(rules.inputs_key(claims))
    assert len(keys | {before}) == 3


def test_script_that_renders_is_followed_by_its_code(monkeypatch):
    monkeypatch.setattr(rules, "code_fingerprint", lambda *roots: repr(roots))
    keys = {name: rules.script_key(name) for name in DATASETS if DATASETS[name].script}
    assert keys == {"mnist": "", "celeba": "", "teapot": repr(DATASETS["teapot"].renderer)}


ANSWERS = {  # function of `rules` -> what it answers here
    "content": lambda files: f"content of {files}",
    "script_key": lambda dataset: f"script of {dataset}",
    "runs_key": lambda profile, dataset, method, seeds: f"runs of {dataset} {method}",
    "picture_and_data_key": lambda entry: f"code of {entry.stem}",
    "inputs_key": lambda entry: f"inputs of {entry.stem}",
    "data_state": lambda entry, datasets: f"state of {entry.stem}",
}


@pytest.fixture
def asked(scratch, monkeypatch):
    """The parameters of each rule of the Snakefile, by its name."""
    for name, answer in ANSWERS.items():
        monkeypatch.setattr(rules, name, answer)
    config = ConfigSettings(config={"profile": "quick", "size": "quick"})
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        loaded = api.workflow(ResourceSettings(cores=1), config, snakefile=ROOT / "Snakefile")
        found = {rule.name: list(rule.params) for rule in loaded._workflow.rules}
    return {
        name: [part(None, None) if callable(part) else part for part in parts]
        for name, parts in found.items()
    }


def test_every_rule_depends_on_code_and_contents(asked):
    data = {name: ANSWERS["content"](rules.data_files(name)) for name in ("sine", "mnist", "teapot")}
    needed = {"fetch_teapot": ["script of teapot"]}
    for run, name in (("sine_aevb", "sine"), ("mnist_wae_mmd", "mnist"), ("teapot_wiseale", "teapot")):
        needed[f"train_{run}"] = [f"runs of {run.replace('_', ' ', 1)}", data[name]]
    for stem, name in (("figure_1", "mnist"), ("figure_5b_teapot", "teapot"), ("cited_methods", "mnist")):
        questions = ("code", "inputs", "state")
        needed[stem] = [*(f"{question} of {stem}" for question in questions), data[name]]
    missing = {(rule, part) for rule, parts in needed.items() for part in parts if part not in asked[rule]}
    assert missing == set()


def test_a_figure_shows_those_of_its_methods_that_the_profile_trains():
    """None is misspelt: each is a method of `paper`, and `quick` leaves one of the teapots out."""
    paper = load_config("paper")
    shown = {name: figure for name, figure in load_figures().items() if figure.dataset}
    assert all(set(figure.methods) <= set(paper[figure.dataset]["methods"]) for figure in shown.values())
    name, methods = "figure_5b_teapot", shown["figure_5b_teapot"].methods
    for profile, left_out in (("paper", ""), ("quick", "wiseale_per_sample")):
        drawn = [method for _, method, _ in figure_runs(name, load_config(profile))]
        assert drawn == [method for method in methods if method != left_out]


def test_claims_are_about_photographs_only_if_these_were_asked_for():
    """Numbers of them may be committed, pictures may not; without a name they are left out."""
    claims = Entry("claims", load_figures()["claims"], "images", "")
    assert {dataset for dataset, *_ in rules.shown_runs(claims)} == {"sine", "mnist", "teapot"}
    assert {dataset for dataset, *_ in rules.shown_runs(claims, "teapot celeba")} == {"teapot", "celeba"}
    entries = {entry.name for entry in folder_entries("images", "teapot celeba")}
    assert entries == {"claims", "figure_5b_teapot", "figure_teapot_traversal"}
