"""Between formulas and results: profiles, random streams, held-out data, means, intervals, autocast."""

import copy
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from wiseale_nb import claims_measure, claims_tables, recipe
from wiseale_nb.algorithm import batch_terms, prepare_objective, step_noise
from wiseale_nb.claims_text import in_words
from wiseale_nb.comparison import half_width, level, paired_test
from wiseale_nb.config import load_config, resolve_settings
from wiseale_nb.core import digest, random_stream
from wiseale_nb.data import Split, build, load
from wiseale_nb.evaluation import evaluate, reconstruct, sample_metrics
from wiseale_nb.fast_step import build_stacks, held_out_terms, train_epoch
from wiseale_nb.likelihood import mutual_information
from wiseale_nb.loss import make_objective
from wiseale_nb.models import reparameterize
from wiseale_nb.training import fit, fit_stack, prepare_objectives

TOGETHER = pytest.mark.parametrize("together", [True, False])


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


# The profile `paper` against Appendix D, which tests/appendix_d.csv holds in its own words

OURS = {"compiled", "n_importance", "n_posteriors", "seeds"}  # how, how much is measured, and how often


def leaves(value, path=""):
    """All values of nested dictionaries, by their dotted path; empty dictionaries have none."""
    if not isinstance(value, dict):
        return {path: value}
    parts = [leaves(v, f"{path}.{key}" if path else key) for key, v in value.items()]
    return {key: v for part in parts for key, v in part.items()}


def test_paper_profile_is_appendix_d():
    """Every value of the profile, and no other; the factor of a schedule only where there is a schedule."""
    table = pd.read_csv(Path(__file__).with_name("appendix_d.csv"), dtype=str, keep_default_na=False)
    expected = {(r.dataset, r.setting): yaml.safe_load(r.value) for r in table.itertuples()}
    found = {}
    for dataset, block in load_config("paper").items():
        unused = OURS | (set() if block["milestones"] else {"gamma"})
        found |= {(dataset, key): v for key, v in leaves(block).items() if key not in unused}
    assert found == expected


def test_defaults_of_the_methods_are_the_papers():
    """For those who make an objective by hand."""
    weights = {name: make_objective(name).weight for name in ("aevb", "beta_vae", "wiseale", "wae_mmd")}
    assert weights == {"aevb": 1.0, "beta_vae": 4.0, "wiseale": "1/M", "wae_mmd": 10.0}
    assert {make_objective(name).reconstruction for name in weights} == {"own"}
    assert make_objective("wiseale").bound == "upper"


# Random streams


class Tiny(nn.Module):
    """A linear autoencoder of four numbers, whose posteriors have a fixed width."""

    d_z = 2

    def __init__(self, log_var=0.0, seed=0):
        super().__init__()
        self.encoder, self.decoder, self.log_var = nn.Linear(4, 2), nn.Linear(2, 4), log_var
        with torch.no_grad():
            for p in self.parameters():
                p.normal_(generator=stream(seed))

    def encode(self, x):
        mu = self.encoder(x)
        return mu, torch.full_like(mu, self.log_var)

    def decode(self, z):
        return self.decoder(z)

    def forward(self, x, noise):
        mu, log_var = self.encode(x)
        z = reparameterize(mu, log_var, noise)
        return self.decode(z), mu, log_var, z


def stacks(models, x, together, seeds=(0, 1)):
    objectives = [make_objective("aevb", likelihood="gaussian") for _ in models]
    options = {"batch_size": 8, "learning_rate": 1e-3, "together": together}
    return build_stacks(models, objectives, list(seeds), x, **options)


def first_terms(models, x, together):
    """The terms of the first batch of each network, in training and held out."""
    for function in (train_epoch, held_out_terms):
        made = stacks(copy.deepcopy(models), x, together)
        yield [trace[0] for s in made for trace in function(s, [x] * len(s.models))]


@TOGETHER
def test_seeds_have_their_own_noise(together):
    """All samples are one sample, and the networks are one: only noise can tell the seeds apart."""
    for one, two in first_terms([Tiny(), Tiny()], torch.ones(16, 4), together):
        assert (one - two).abs()[1] > 1e-3, "the reconstruction of both seeds is the same"


@TOGETHER
def test_seeds_have_their_own_order(together):
    """The noise has no effect, and the networks are one: only the order of the samples can differ."""
    x = torch.randn(64, 4, generator=stream())
    one, two = next(first_terms([Tiny(-60.0), Tiny(-60.0)], x, together))
    assert (one - two).abs()[1] > 1e-3, "the batches of both seeds are the same"


@TOGETHER
def test_every_stream_is_the_seeds_own(together):
    """The first batches of seeds 3 and 5, done here by hand from the streams of their names."""
    x, made = torch.randn(64, 4, generator=stream()), [Tiny(seed=1), Tiny(seed=2)]
    for function, purpose in ((train_epoch, "noise"), (held_out_terms, "evaluation")):
        expected = []
        for model, seed in zip(made, (3, 5)):
            order, objective = torch.arange(64), make_objective("aevb", likelihood="gaussian")
            if function is train_epoch:
                order = torch.randperm(64, generator=random_stream(seed, "shuffle"))
            noise = step_noise(objective, 8, 2, random_stream(seed, purpose))
            expected.append(batch_terms(model, objective, x[order[:8]], noise)[1])
        networks = stacks([Tiny(seed=1), Tiny(seed=2)], x, together, (3, 5))
        found = [trace[0] for s in networks for trace in function(s, [x] * len(s.models))]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_seeds_have_their_own_prior_networks():
    first, second = prepare_objectives(make_objective("gm_vae"), [Tiny(), Tiny()], [3, 5])
    pairs = list(zip(first.parameters(), second.parameters()))
    assert pairs and not any(torch.equal(*pair) for pair in pairs)
    alone = prepare_objective(make_objective("gm_vae"), 2, 5)
    assert all(torch.equal(p, q) for p, q in zip(second.parameters(), alone.parameters()))


SMALL = {"n_train": 64, "n_test": 64, "epochs": 1, "n_importance": 1, "n_posteriors": 64}


def small(seed=0, dataset="sine", method="wiseale"):
    return resolve_settings("smoke", dataset, method, seed, SMALL)


@pytest.fixture
def recipe_calls(monkeypatch):
    """What the recipe hands to training and to measuring; neither is done."""
    calls = SimpleNamespace(fitted=None, measured=[])

    def fit_stack_(models, objective, train, test, **options):
        calls.fitted = SimpleNamespace(models=models, train=train, test=test, options=options)
        return [pd.DataFrame() for _ in models]

    def measure_(*args):
        calls.measured.append(args)
        return pd.DataFrame()

    monkeypatch.setattr(recipe, "fit_stack", fit_stack_)
    monkeypatch.setattr(recipe, "measure", measure_)
    return calls


def test_recipe_gives_each_run_its_weights_data_and_settings(recipe_calls):
    """Two seeds: networks from their own streams, training on one split, measuring on the other."""
    settings = replace(small(3), milestones=[2], gamma=0.25, learning_rate=0.125, compiled=True)
    runs = [settings, replace(settings, seed=5)]
    splits = [recipe.load_splits(run) for run in runs]
    recipe.fit_and_measure(runs, splits, device="cpu")
    fitted, measured = recipe_calls.fitted, recipe_calls.measured
    for k, run in enumerate(runs):
        expected = build("sine", generator=random_stream(run.seed, "init")).state_dict()
        assert all(torch.equal(v, expected[name]) for name, v in fitted.models[k].state_dict().items())
        assert fitted.train[k] is splits[k][0] and fitted.test[k] is splits[k][1]
        model, objective, x, of = measured[k]
        assert model is fitted.models[k] and x is splits[k][1] and of == run
        assert objective.name == "wiseale" and objective.likelihood.name == "gaussian"
    weights = [[p for p in model.parameters()] for model in fitted.models]
    assert not any(torch.equal(*pair) for pair in zip(*weights))
    expected = {"seeds": [3, 5], "epochs": 1, "batch_size": 64, "device": "cpu", "compiled": True}
    assert fitted.options == expected | {"learning_rate": 0.125, "milestones": (2,), "gamma": 0.25}


def test_only_the_missing_run_is_trained_and_written(recipe_calls, monkeypatch, tmp_path):
    """Two seeds of which the first is there: the second has its own data, key and folder."""
    written = []
    monkeypatch.setattr(recipe, "outdated", lambda folder, runs, made_with: [1])
    monkeypatch.setattr(recipe, "write_run", lambda *args: written.append(args))
    monkeypatch.setattr(recipe, "load_run", lambda folder: folder)
    read = recipe.train(small(), [3, 5], tmp_path, progress=False)
    assert read == [tmp_path / "seed3", tmp_path / "seed5"]
    train, test = recipe.load_splits(small(5))
    assert [x.equal(train) for x in recipe_calls.fitted.train] == [True]
    assert [x.equal(test) for x in recipe_calls.fitted.test] == [True]
    ((folder, settings, _, _, _, info),) = written
    assert folder == tmp_path / "seed5" and settings == small(5) and info["trained_with"] == [5]
    assert info["data"] == digest([train, test])


@pytest.mark.parametrize("dataset", ["sine", "mnist"])
def test_splits_differ_between_seeds_and_from_each_other(dataset):
    """Training samples and held-out samples are what `load` calls so, and none is in two sets."""
    sets = {}
    for seed in (0, 1):
        run = small(seed, dataset)
        splits = recipe.load_splits(run)
        for x, split in zip(splits, ("train", "test")):
            assert torch.equal(x, load(dataset, split, n=64, seed=seed, **run.data).x)
            sets[seed, split] = {row.numpy().tobytes() for row in x}
    for seed in (0, 1):
        assert not sets[seed, "train"] & sets[seed, "test"]
    for split in ("train", "test"):
        assert sets[0, split] != sets[1, split] and len(sets[0, split] & sets[1, split]) < 10


def test_measuring_uses_the_seeds_own_stream():
    """One network on one set of samples: the draws of two seeds differ, those of one do not."""
    run = replace(small(), n_posteriors=32, n_importance=3)
    model, objective = build("sine"), make_objective("wiseale", likelihood="gaussian")
    x = load("sine", "test", n=64).x
    seeds = (0, 0, 1)
    tables = [recipe.measure(model, objective, x, replace(run, seed=k)).set_index("metric") for k in seeds]
    drawn = ["nll", "aggregate_kl", "log_likelihood"]
    same, again, other = (table.value[drawn] for table in tables)
    assert (same == again).all() and (same != other).all()
    assert tables[0].value["mse"] == tables[2].value["mse"]
    assert tables[0].n[["mse", *drawn]].tolist() == [64, 64, 32, 32]
    assert tables[0].unit["effective_sample_size"] == "of 3 draws"


# Held-out data


def test_history_has_training_and_held_out_data_apart():
    """Training data near zero, held-out data far away, and weights that hardly move."""
    train, test = torch.zeros(16, 4), torch.full((24, 4), 50.0)
    options = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-9, "device": "cpu", "progress": False}
    gaussian = make_objective("aevb", likelihood="gaussian")
    for models in ([Tiny()], [Tiny(seed=1), Tiny(seed=2)]):
        many = [train] * len(models), [test] * len(models)
        for history in fit_stack(models, gaussian, *many, seeds=list(range(len(models))), **options):
            seen = history.set_index(["split", "epoch"]).reconstruction
            assert (seen["train"] < 100).all() and (seen["test"] > 1000).all()
    assert set(fit(Tiny(), gaussian, train, **options).split) == {"train"}


class Written:
    """A finished run, without its files."""

    def __init__(self, settings, model, history=None, metrics=None):
        self.settings, self.network, self.history, self.metrics = settings, model, history, metrics

    def model(self):
        return self.network


HISTORY = pd.DataFrame(
    [
        (1, "train", 100.0, 10.0, 1.0, -11.0),
        (1, "test", 900.0, 90.0, 9.0, -99.0),
        (2, "train", 60.0, 6.0, 2.0, -8.0),
        (2, "test", 800.0, 80.0, 8.0, -88.0),
        (3, "train", 50.0, 5.0, 3.0, -7.0),
        (3, "test", 700.0, 70.0, 7.0, -77.0),
    ],
    columns=["epoch", "split", "objective", "reconstruction", "aevb_kl", "elbo"],
)
METRICS = pd.DataFrame(
    [("aggregate_kl", 2.0), ("aggregate_kl_upper_bound", 2.5), ("mean_std", 1.0), ("mean_std", 3.0)],
    columns=["metric", "value"],
)


def test_claims_report_the_end_of_training():
    """The last row of the training data, however the rows are mixed with others; axes are averaged."""
    values = claims_measure.reported(Written(None, None, HISTORY, METRICS))
    expected = {"train_reconstruction": 5.0, "train_aevb_kl": 3.0, "train_elbo": -7.0}
    expected |= {"bound_gap": 0.25, "bound_excess": 0.5, "mean_std": 2.0}
    assert {name: values[name] for name in expected} == expected
    assert values["settled"] == pytest.approx(10 / 50)


def test_claims_are_measured_on_held_out_data(monkeypatch):
    """The run's own held-out samples; errors are those of the means, not of the draws."""
    run, asked = small(5), []

    def load_(name, split, **options):
        asked.append((name, split, options))
        return load(name, split, **options)

    monkeypatch.setattr(claims_measure, "load", load_)
    model = build("sine", generator=stream())
    values, samples = claims_measure.measure_run(Written(run, model, HISTORY, METRICS))
    assert asked == [("sine", "test", {"n": 64, "seed": 5, "noise_std": 0.05})]
    x, y = load("sine", "test", n=64, seed=5)
    with torch.no_grad():
        rebuilt = model.decode(model.encode(x)[0])
    np.testing.assert_allclose(samples.mse, (x - rebuilt).square().mean((1, 2)), rtol=1e-5)
    time = torch.arange(256) / 256
    clean = y[:, 2:] * torch.sin(2 * math.pi * y[:, :1] * time + y[:, 1:2])
    clean_mse = (rebuilt[:, 0] - clean).square().mean(1)
    low = y[:, 0] < 5
    assert values["low_mse"] == pytest.approx(clean_mse[low].mean().item(), rel=1e-4)
    expected = clean_mse[low].mean() / clean_mse[~low].mean()
    assert values["low_to_high"] == pytest.approx(expected.item(), rel=1e-4)


def test_claims_keep_samples_and_factors_together(monkeypatch):
    """Of many held-out samples the first 2000, each with its own factors."""
    seen, rows = [], torch.arange(2100.0)
    monkeypatch.setattr(claims_measure, "load", lambda *_, **__: Split(rows[:, None], rows))
    monkeypatch.setattr(claims_measure, "latent", lambda run, model, split: seen.append(split) or {})
    monkeypatch.setattr(claims_measure, "per_sample", lambda run, model, split: seen.append(split) or SAMPLES)
    claims_measure.measure_run(Written(small(), None, HISTORY, METRICS))
    assert len(seen) == 2
    for x, y in seen:
        assert torch.equal(x[:, 0], rows[:2000]) and torch.equal(y, rows[:2000])


SAMPLES = pd.DataFrame({"nll": [1.0], "mse": [1.0], "elbo": [1.0]})


def test_sharpness_is_that_of_the_reconstruction_over_the_originals():
    """Half the contrast: half the gradient, and a quarter of the power in every band."""
    x = torch.rand(3, 1, 16, 16, generator=stream())
    ratios = claims_measure.picture_ratios(0.5 * x + 0.2, x)
    np.testing.assert_allclose(ratios.gradient_ratio, 0.5, rtol=1e-4)
    np.testing.assert_allclose(ratios.detail_ratio, 0.25, rtol=1e-4)


# What the claims take from the studies, by hand


def found(table):
    """(dataset, method, seed, metric) -> value; seed -1 for a mean over seeds."""
    assert list(table) == claims_tables.COLUMNS
    table = table.assign(seed=table.seed.fillna(-1).astype(int))
    return table.set_index(["dataset", "method", "seed", "metric"])["value"].to_dict()


def test_claims_from_the_benchmark():
    """Percent of a step become a share, the same for both weights."""
    rows = [("prior term: sine network, M = 64", 12.0), ("prior term: MNIST network, M = 64", 50.0)]
    rows += [("prior term: sine network, M = 256", 90.0), ("another", 70.0)]
    values = found(claims_tables.step_times(pd.DataFrame(rows, columns=["what", "added %"])))
    methods = ("wiseale", "wiseale_per_sample")
    expected = {("sine", m, -1, "step_time"): 0.12 for m in methods}
    assert values == expected | {("mnist", m, -1, "step_time"): 0.5 for m in methods}


def test_claims_from_batches():
    """Eq. 21 at M = 64 alone, the values of both seeds, and the worse of its two directions."""
    bias = [
        ("mnist", "aevb", q, M, e, 0.2, 4.0)
        for q, M, e in (("eq21", 64, 1.0), ("eq21", 16, 2.0), ("moments", 64, 3.0))
    ]
    bias = pd.DataFrame(bias, columns=["dataset", "method", "quantity", "M", "excess", "half_range", "whole"])
    turned = pd.DataFrame(
        [(0, 64, 0.9), (0, 64, 0.8), (0, 16, 0.1), (1, 64, 0.5), (1, 64, 0.7)],
        columns=["seed", "M", "cosine of mean"],
    ).assign(dataset="mnist", method="aevb")
    values = found(claims_tables.batch_values(bias, turned))
    expected = {("mnist", "aevb", 0, "batch_bias"): 0.2, ("mnist", "aevb", 0, "batch_excess"): 0.8}
    expected |= {("mnist", "aevb", 1, "batch_bias"): 0.3, ("mnist", "aevb", 1, "batch_excess"): 1.2}
    expected |= {("mnist", "aevb", 0, "batch_gradient"): 0.8, ("mnist", "aevb", 1, "batch_gradient"): 0.5}
    assert values == pytest.approx(expected)


def test_claims_from_training_with_eq_15():
    """From the middle of the training to its end, of the recipe of that name."""
    rows = [("all", 1, 900.0, 0.9), ("all", 2, 200.0, 0.5), ("all", 3, 150.0, 0.4), ("all", 4, 100.0, 0.3)]
    rows += [("own", epoch, 7.0, 0.8) for epoch in (1, 2, 3, 4, 5)]
    history = pd.DataFrame(rows, columns=["recipe", "epoch", "all", "explained"]).assign(
        dataset="sine", seed=0
    )
    values = found(claims_tables.eq15_values(history))
    key = ("sine", "trained with Eq. 15", 0)
    assert values == {(*key, "moves"): 0.5, (*key, "explained"): 0.3}


def test_claims_from_cited_methods():
    """Against WAE-MMD with weight 10: lost is what the other's reconstruction is worse by."""
    rows = [
        ("wae_mmd", "weight 1", 50.0, 9.0),
        ("wae_mmd", "weight 10", 100.0, 2.0),
        ("aae", "weight 1", 103.0, 8.0),
    ]
    rows += [("wae_gan", f"weight {w}", 100.0 + w, 2.0 * w) for w in (1, 10, 100)]
    cited = pd.DataFrame(rows, columns=["method", "setting", "reconstruction", "aggregate_kl"]).assign(seed=0)
    values = found(claims_tables.adversary_values(cited))
    expected = {("mnist", "AAE", 0, "lost"): 3.0, ("mnist", "AAE", 0, "farther"): 4.0}
    for w in (1, 10, 100):
        key = ("mnist", f"WAE-GAN, weight {w}", 0)
        expected |= {(*key, "lost"): float(w), (*key, "farther"): float(w)}
    assert values == expected


# Means and draws


class Wide(nn.Module):
    """Encodes the mean of its input with standard deviation 3, and decodes it to every place."""

    d_z = 1

    def encode(self, x):
        mu = x.mean(1, keepdim=True)
        return mu, torch.full_like(mu, 2 * math.log(3))

    def decode(self, z):
        return z.expand(-1, 2)


X = torch.tensor([[0.0, 2.0], [4.0, 4.0]])  # means 1 and 4; mean squared errors 1 and 0
UNIT = make_objective("aevb", likelihood="gaussian")


def test_errors_are_those_of_the_means_and_likelihoods_those_of_draws():
    noise = torch.randn(2, 1, generator=stream())
    z = torch.tensor([[1.0], [4.0]]) + 3 * noise
    nll = 0.5 * (X - z).square().sum(1) + math.log(2 * math.pi)
    kl = 0.5 * (torch.tensor([1.0, 16.0]) + 9 - 1 - math.log(9))
    table = sample_metrics(Wide(), UNIT, X, stream())
    np.testing.assert_allclose(table.mse, [1, 0], atol=1e-6)
    np.testing.assert_allclose(table.nll, nll, rtol=1e-6)
    np.testing.assert_allclose(table.aevb_kl, kl, rtol=1e-6)
    np.testing.assert_allclose(table.elbo, -nll - kl, rtol=1e-6)
    assert reconstruct(Wide(), X, UNIT.likelihood).tolist() == [[1, 1], [4, 4]]


def test_metrics_have_the_mean_and_its_standard_error():
    """Two samples with squared errors 1 and 0: mean 1/2, standard error 1/2 by hand."""
    rows = evaluate(Wide(), UNIT, X, stream(), n_importance=4).set_index("metric")
    assert rows.loc["mse", ["value", "standard_error", "n"]].tolist() == pytest.approx([0.5, 0.5, 2])
    samples = sample_metrics(Wide(), UNIT, X, stream())
    for name in ("nll", "aevb_kl", "elbo"):
        assert rows.value[name] == pytest.approx(samples[name].mean())
        one, two = samples[name]
        assert rows.standard_error[name] == pytest.approx(abs(one - two) / 2)
    assert rows.value["log_likelihood"] > rows.value["elbo"] and rows.n["log_likelihood"] == 2


# Intervals


THREE = pd.Series([1.0, 2.0, 3.0])  # mean 2, standard deviation 1; t(0.975, 2) = 4.3027
HALF = 4.302653 / math.sqrt(3)


def test_interval_of_three_seeds_by_hand():
    """2.484, from a table of Student's t with two degrees of freedom."""
    assert half_width(THREE) == pytest.approx(HALF, rel=1e-6)
    assert in_words(THREE) == "2 ± 2.5"
    four = pd.Series([0.0, 0.0, 2.0, 2.0])  # standard deviation 2 / sqrt(3); t(0.975, 3) = 3.1824
    assert half_width(four) == pytest.approx(3.182446 / math.sqrt(3), rel=1e-6)


def test_level_is_decided_by_that_interval():
    for sign, far, near in ((1, "below", "above"), (-1, "above", "below")):
        decided, open_ = (level(sign * THREE, sign * (2 + HALF + step)) for step in (1e-3, -1e-3))
        assert (decided.outcome, open_.outcome, decided.seeds) == (far, "open", 3)
        assert level(sign * THREE, sign * (2 - HALF - 1e-3)).outcome == near


def test_differences_by_hand():
    """Paired: the seeds' own level does not matter. t = 2 * sqrt(3) / 1 has p = 0.0742 with two degrees."""
    base = pd.Series([10.0, 20.0, 60.0])
    finding = paired_test(base + THREE, base)
    assert finding.outcome == "open" and finding.p == pytest.approx(0.0742, abs=1e-4)
    tight = paired_test(base + 2 + 0.4 * (THREE - 2), base)  # t = 5 * sqrt(3), p = 0.0131
    assert tight.outcome == "larger" and tight.p == pytest.approx(0.0131, abs=1e-4)
    assert paired_test(base, base + 2 + 0.4 * (THREE - 2)).outcome == "smaller"
    assert paired_test(base + 2 + 0.4 * (THREE - 2), base, least=2.1).outcome == "open"


def test_differences_by_sample_by_hand():
    """First method minus second; the standard error of 1, 2, 3 is 1 / sqrt(3); gaps are left out."""
    first = pd.DataFrame({"mse": [2.0, 4.0, 6.0], "low_mse": [5.0, math.nan, 9.0]})
    second = pd.DataFrame({"mse": [1.0, 2.0, 3.0], "low_mse": [1.0, 1.0, 1.0]})
    keys = {("sine", "aevb", 0): first, ("sine", "wiseale", 0): second, ("sine", "aevb", 1): first}
    rows = claims_measure.paired_differences(keys).set_index("metric")
    assert len(rows) == 2 and set(rows.method) == {"aevb"} and set(rows.other) == {"wiseale"}
    columns = ["seed", "difference", "standard_error", "n"]
    assert rows.loc["mse", columns].tolist() == pytest.approx([0, 2, 1 / math.sqrt(3), 3])
    assert rows.loc["low_mse", columns].tolist() == pytest.approx([0, 6, 2, 2])


def test_error_of_the_mutual_information_by_hand():
    """Two draws of every posterior: their mean, and half their distance."""
    mu, log_var = torch.randn(2, 8, 2, generator=stream(), dtype=torch.float64)
    parts, noise, values = Independent(Normal(mu, (0.5 * log_var).exp()), 1), stream(1), []
    mixture = MixtureSameFamily(Categorical(torch.ones(8)), parts)
    for _ in range(2):
        z = mu + (0.5 * log_var).exp() * torch.randn(8, 2, generator=noise, dtype=torch.float64)
        values.append((parts.log_prob(z) - mixture.log_prob(z)).mean().item())
    value, error = mutual_information(mu, log_var, 2, stream(1))
    assert value == pytest.approx(sum(values) / 2)
    assert error == pytest.approx(abs(values[0] - values[1]) / 2)


# Autocast around a whole training


@pytest.mark.parametrize("options", [{}, {"fast": False}, {"precision": "bfloat16"}], ids=str)
def test_autocast_around_fit_changes_nothing(options):
    """It keeps copies of the weights: without care the network would be trained and never move."""
    x, results = torch.rand(32, 4, generator=stream()), []
    sizes = {"epochs": 3, "batch_size": 8, "learning_rate": 0.05, "device": "cpu", "progress": False}
    for on in (False, True):
        model = Tiny()
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            before = model.encode(x)[0]  # fills the cache
            history = fit(model, UNIT, x, x, **sizes, **options).drop(columns="seconds")
            after = model.encode(x)[0]
        assert (after.float() - model.encode(x)[0]).abs().max() < 0.02 and not torch.equal(before, after)
        results.append((history, model.state_dict()))
    (expected, weights), (found, same) = results
    pd.testing.assert_frame_equal(found, expected)
    assert all(torch.equal(w, same[name]) for name, w in weights.items())
    losses = expected[expected.split == "train"].objective
    assert losses.iloc[-1] < losses.iloc[0]
