"""What figures and studies show is computed from the right networks, samples and formulas.

The cells of a notebook that compute its data run here on networks that were never trained.
"""

import ast
import contextlib
import importlib
import json
import math
import shutil
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from wiseale_nb.config import resolve_settings
from wiseale_nb.core import random_stream, read_csv
from wiseale_nb.drawing import figure_1
from wiseale_nb.data import Split, build, load, to_float
from wiseale_nb.figures import figure_job, figure_runs, read_arrays, study_job
from wiseale_nb.keys import data_code, notebook_code, study_key
from wiseale_nb.models import create, mnist_net, mnist_perceptron
from wiseale_nb.representation import separation


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


class Untrained:
    """A run whose network is as it was made; every run has weights of its own."""

    def __init__(self, settings, number):
        self.settings = settings
        sizes = {"d_z": settings.d_z, **settings.network}
        self.network = build(settings.dataset, generator=stream(number), **sizes).eval()
        for p in self.network.encoder.parameters():
            p.data *= 1.5  # so that its posteriors differ from sample to sample
        epochs = {"epoch": [1, 2], "split": ["train", "test"]}
        terms = {t: [100.0 * number, 100.0 * number + 1] for t in ("reconstruction", "aevb_kl", "elbo")}
        self.history = pd.DataFrame(epochs | terms | {"objective": 0.0})

    def model(self):
        return self.network


def run_cells(job, until="job.write", without="nothing", **replaced):
    """Execute what computes a job's data, up to the last statement with a text; returns all names."""
    _, cells = notebook_code(ROOT / "nbs" / f"{job.figure.notebook}.ipynb")
    imports = [s for s in cells.body if isinstance(s, ast.Import | ast.ImportFrom)]
    texts = [(s, ast.unparse(s)) for s in data_code(cells).body]
    last = max(k for k, (_, text) in enumerate(texts) if until in text)
    own = [s for s, text in texts[: last + 1] if not text.startswith("job = ") and without not in text]
    names = {"job": job, "display": lambda *_: None}
    if job.figure.picture:
        names |= vars(importlib.import_module(f"wiseale_nb.drawing.{job.figure.module}"))
    exec(compile(ast.Module(imports, []), job.name, "exec"), names)
    names |= replaced
    exec(compile(ast.Module(own, []), job.name, "exec"), names)
    return names


def compute(name, folder, profile="smoke", **replaced):
    """The data of a figure at a profile; returns the runs they were computed from, by method."""
    job = figure_job(name, profile=profile, out=str(folder), redraw=False)
    keys = figure_runs(name, job.config)
    runs = [Untrained(resolve_settings(profile, *key), k) for k, key in enumerate(keys, 1)]
    run_cells(job, load_runs=lambda job: runs, **replaced)
    return {run.settings.method: run for run in runs}


@torch.no_grad()
def coded(network, x):
    """Posterior means, standard deviations, and the decoding of the means."""
    mu, log_var = network.encode(x)
    return mu, log_var.exp().sqrt(), network.decode(mu)


def test_figure_1(tmp_path):
    """Posteriors of the first 64 held-out digits; the root of their aggregate's density; a reconstruction."""
    runs = compute("figure_1", tmp_path)
    assert set(runs) == {"wae_mmd", "wiseale", "wiseale_per_sample", "aevb", "beta_vae"}
    digits = load("mnist", "test", n=128, seed=0)
    x = digits.x / 255
    table = read_csv(tmp_path / "data/figure_1_posteriors.csv").set_index("method")
    arrays = read_arrays(tmp_path / "data/figure_1_density.safetensors")
    for method, run in runs.items():
        mu, sigma, _ = coded(run.network, x[:64])
        rows, image = table.loc[method], arrays[method] / 255
        np.testing.assert_allclose(
            rows[["mu_1", "mu_2", "sigma_1", "sigma_2"]], torch.cat([mu, sigma], 1), 1e-4
        )
        assert (rows.digit == digits.y[:64].numpy()).all()
        left, right, low, high = arrays[f"{method}_extent"]
        assert left <= (mu - 3 * sigma)[:, 0].min() + 1e-5 and high >= (mu + 3 * sigma)[:, 1].max() - 1e-5
        points = torch.cartesian_prod(
            torch.linspace(left, right, 160)[::40], torch.linspace(low, high, 160)[::40]
        )
        parts = Independent(Normal(mu, sigma), 1)
        root = MixtureSameFamily(Categorical(torch.ones(64)), parts).log_prob(points).mul(0.5).exp()
        seen = image[::40, ::40].T.flatten()  # rows of the image are the second axis
        np.testing.assert_allclose(seen / seen.max(), root / root.max(), atol=0.01)
        assert image.max() == 1
    rebuilt = coded(runs["wiseale_per_sample"].network, x[:64])[2].sigmoid()
    errors = (rebuilt[:, None] - x[:64]).square().sum((2, 3, 4))
    i = next((k for k in range(64) if errors[k].argmin() == k), 0)
    np.testing.assert_allclose(arrays["images"], 255 * torch.stack([x[i, 0], rebuilt[i, 0]]), atol=0.51)


def test_figure_1_of_points(tmp_path):
    """A deterministic encoder's posteriors are points in the data and in the picture."""
    runs = compute("figure_1", tmp_path, profile="pictured")
    table = read_csv(tmp_path / "data/figure_1_posteriors.csv").set_index("method")
    points = table.loc["wae_mmd"]
    assert (points[["sigma_1", "sigma_2"]] < 1e-9).all(axis=None) and (table.loc["aevb"].sigma_1 > 1e-3).all()
    x = load("mnist", "test", n=10000, seed=0).x[:64] / 255
    mu, _, _ = coded(runs["wae_mmd"].network, x)
    np.testing.assert_allclose(points[["mu_1", "mu_2"]], mu, 1e-4)
    job = figure_job("figure_1", profile="pictured", out=str(tmp_path))
    axes = [ax for ax in figure_1.draw(job).axes if "points: a deterministic encoder" in texts_of(ax)]
    assert len(axes) == 1 and "WAE" in axes[0].get_title("left") and not axes[0].child_axes  # no inset


def texts_of(ax):
    return [text.get_text() for text in ax.texts]


def test_figure_5a(tmp_path):
    """The waves nearest to the wanted ones, of the first seed, as the networks of all seeds rebuild them."""
    runs = compute("figure_5a", tmp_path)
    waves = read_csv(tmp_path / "data/figure_5a.csv")
    assert set(runs) == {"aevb", "beta_vae", "wiseale", "wiseale_per_sample"}
    assert set(waves.series) == {"input", *runs} and set(waves.seed) == {0, 1}
    x, y = load("sine", "test", n=128, seed=0)
    wanted = torch.tensor([[0.5, 1.5], [1.5, 1.0], [5.0, 0.2], [12.0, 0.4], [10.0, 1.0], [19.0, 1.5]])
    distance = ((y[:, [0, 2]] - wanted[:, None]) / torch.tensor([20.0, 2.0])).norm(dim=-1)
    picked = distance.argmin(1)
    shown = {"input": x[picked]} | {m: coded(run.network, x[picked])[2] for m, run in runs.items()}
    for name, values in shown.items():
        seed = 0 if name == "input" else 1  # `compute` gives the last network of each method
        rows = waves[(waves.series == name) & (waves.seed == seed)]
        np.testing.assert_allclose(rows.value, values.flatten(), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(rows.t, np.tile(np.arange(256) / 256, 6), rtol=1e-4)
        one_each = rows.drop_duplicates("wave")
        np.testing.assert_allclose(one_each[["frequency", "amplitude"]], y[picked][:, [0, 2]], rtol=1e-4)
        error = (values - x[picked]).square().mean((1, 2))
        np.testing.assert_allclose(one_each.mse, error, rtol=1e-4, atol=1e-9)


def test_figure_6(tmp_path):
    """The history of every seed under its own name."""
    compute("figure_6", tmp_path)
    table = read_csv(tmp_path / "data/figure_6.csv")
    runs = [
        (m, k)
        for m in ("aevb", "beta_vae", "beta_vae_inverse_m", "wiseale", "wiseale_per_sample")
        for k in (0, 1)
    ]
    values = table.set_index(["method", "seed", "metric", "split"])["value"]
    assert len(values) == len(runs) * 3 * 2
    for number, run in enumerate(runs, 1):
        for metric in ("reconstruction", "aevb_kl", "elbo"):
            assert values[(*run, metric, "train")] == 100 * number
            assert values[(*run, metric, "test")] == 100 * number + 1


@pytest.fixture(scope="module")
def teapots():
    """Pictures of noise, with factors as teapots have them, and the calls that asked for them."""
    generator, asked = stream(), []
    pixels = torch.randint(256, (64, 3, 64, 64), generator=generator, dtype=torch.uint8)
    limits = torch.tensor([2 * math.pi, math.pi / 2, 1.0, 1.0, 1.0])
    factors = torch.rand(64, 5, generator=generator) * limits

    def load_(*names, **options):
        asked.append((names, options))
        return Split(pixels, factors)

    return load_, asked, pixels, factors


def as_bytes(image):
    return (255 * image.clamp(0, 1)).numpy()


def test_figure_5b(tmp_path, teapots):
    """Eight pictures by their factors, none of them twice, and what each method makes of them."""
    load_, asked, pixels, factors = teapots
    runs = compute("figure_5b_teapot", tmp_path, load=load_, dataset="teapot")
    assert asked[-2:] == [
        (("teapot", split), {"n": n, "seed": 0}) for split, n in (("test", 64), ("train", 256))
    ]
    arrays = read_arrays(tmp_path / "data/figure_5b_teapot.safetensors")
    pictures = {"input", "pca", "aevb", "wae_mmd", "wiseale"}
    assert set(arrays) == pictures | {f"nearest_{name}" for name in pictures} | {"factors"}
    rows = [int((factors == torch.tensor(row)).all(1).nonzero()) for row in arrays["factors"]]
    assert len(set(rows)) == 8 and (arrays["input"] == pixels[rows].numpy()).all()
    red = factors[rows[0]]  # the first target: azimuth 0 and elevation 20 degrees, pure red
    turn = red[0] / (2 * math.pi)
    away = min(turn, 1 - turn) ** 2 + (red[1] / (math.pi / 2) - 2 / 9) ** 2
    away += (red[2:] - torch.tensor([1.0, 0.0, 0.0])).square().sum()
    assert away < 0.5
    for method, run in runs.items():
        expected = as_bytes(coded(run.network, pixels[rows] / 255)[2])
        np.testing.assert_allclose(arrays[method], expected, atol=0.51)
    # The fake training images are the held-out ones: noise, of which ten components explain little.
    assert np.allclose(arrays["nearest_input"], 0, atol=1e-6) and (arrays["nearest_pca"] > 0.01).all()
    errors = [((arrays[name] / 255.0 - pixels[rows].numpy() / 255.0) ** 2).mean() for name in ("pca", *runs)]
    assert errors[0] < min(errors[1:])


def test_teapot_traversal(tmp_path, teapots):
    """Walks along the axes of largest ratio of spread to width, two standard deviations of the aggregate."""
    load_, asked, pixels, factors = teapots
    runs = compute("figure_teapot_traversal", tmp_path, load=load_)
    assert asked[-1] == (("teapot", "test"), {"n": 64, "seed": 0})
    arrays = read_arrays(tmp_path / "data/figure_teapot_traversal.safetensors")
    index = next(k for k, image in enumerate(pixels) if (arrays["given"] == image.numpy()).all())
    for method, run in runs.items():
        own = {
            key.removeprefix(f"{method}_"): value for key, value in arrays.items() if key.startswith(method)
        }
        mu, sigma, decoded = coded(run.network, pixels / 255)
        spread, width = mu.var(0, correction=0).sqrt(), sigma.mean(0)
        axis = (spread / width).argsort(descending=True)[:5]
        assert own["axis"].tolist() == axis.tolist()
        np.testing.assert_allclose(own["ratio"], (spread / width)[axis], rtol=1e-4)
        np.testing.assert_allclose(own["mu"], mu[index, axis], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(own["sigma"], sigma[index, axis], rtol=1e-4)
        reach = 2 * (spread.square() + sigma.square().mean(0)).sqrt()[axis]
        np.testing.assert_allclose(own["z"][:, -1], mu.mean(0)[axis] + reach, rtol=1e-4)
        np.testing.assert_allclose(own["z"][:, 0], mu.mean(0)[axis] - reach, rtol=1e-4)
        np.testing.assert_allclose(own["rebuilt"], as_bytes(decoded[index]), atol=0.51)
        code = mu[index : index + 1].clone()
        code[0, axis[1]] = float(own["z"][1, 3])
        with torch.no_grad():
            np.testing.assert_allclose(own["images"][1, 3], as_bytes(run.network.decode(code)[0]), atol=0.51)


# Studies: which networks they ask for, and what they measure them on


def mean_kl(network, x):
    """Mean KL to the prior, which needs no draws, so that it tells networks and samples apart."""
    with torch.no_grad():
        mu, log_var = (t.double() for t in network.encode(to_float(x)))
    return 0.5 * (log_var.exp() + mu.square() - 1 - log_var).sum(1).mean().item()


class Trainer:
    """Stands for `recipe.train`: notes what is asked for, and gives untrained networks."""

    def __init__(self):
        self.asked, self.runs = [], []

    def __call__(self, settings, seeds, folder, **how):
        assert folder not in [folder for _, _, folder in self.asked], "two kinds of runs in one folder"
        self.asked.append((settings, list(seeds), folder))
        many = range(len(self.runs), len(self.runs) + len(seeds))
        runs = [Untrained(replace(settings, seed=seed), k) for k, seed in zip(many, seeds)]
        self.runs += runs
        return runs


def study(name, folder, changes=None, **how):
    """Run a study's cells at its smoke size with a `Trainer`; returns its job and the trainer."""
    job = study_job(name, size="smoke", changes=changes or {}, out=str(folder), redraw=False)
    trainer = Trainer()
    run_cells(job, **how | {"train": trainer})
    return job, trainer


def held_out(run):
    """The samples that a run is measured on, from the data set itself."""
    s = run.settings
    return load(s.dataset, "test", n=s.n_test, seed=s.seed, **s.data).x


TWO = {"seeds": [3, 5]}


def test_minibatch_bias(tmp_path):
    """Measured on the training samples, whose aggregate it is about."""
    job, trainer = study("minibatch_bias", tmp_path, TWO | {"epochs": 2, "sizes": [32, 128]})
    ((settings, seeds, _),) = trainer.asked
    assert (settings.n_train, settings.epochs, settings.method, seeds) == (256, 2, "wiseale", [3, 5])
    table = read_csv(tmp_path / "data/minibatch_bias_smoke_networks.csv").set_index("seed")
    for run in trainer.runs:
        x = load("mnist", "train", n=256, seed=run.settings.seed).x
        assert table["mean KL"][run.settings.seed] == pytest.approx(mean_kl(run.network, x), abs=0.006)


def test_tighter_bound(tmp_path):
    """A network for each bound and seed; brackets on training samples, results on held-out ones."""
    bounds = ["pairwise", "monte_carlo"]
    changes = TWO | {"bounds": bounds, "n_test": 128}
    job, trainer = study("tighter_bound", tmp_path, changes, without="_slack")
    assert [s.objective for s, _, _ in trainer.asked] == [
        {"method": "wiseale", "weight": "1/M", "bound": bound} for bound in bounds
    ]
    table = read_csv(tmp_path / "data/tighter_bound_smoke.csv")
    assert table.bound.tolist() == np.repeat(bounds, 2).tolist() and table.seed.tolist() == [3, 5] * 2
    for run, row in zip(trainer.runs, table.itertuples(), strict=True):
        assert row.aevb_kl == pytest.approx(mean_kl(run.network, held_out(run)), rel=1e-5)
        x = load("mnist", "train", n=256, seed=run.settings.seed).x
        assert row.AEVB == pytest.approx(mean_kl(run.network, x), rel=1e-5)


def test_beta_vae(tmp_path):
    """Partners have the same data, weights and schedule; steps times rate is the same for every M."""
    fitted = []

    def fit_stack(models, objective, x, epochs, seeds, batch_size, learning_rate, **how):
        fitted.append((objective, x, epochs, seeds, batch_size, learning_rate))

    job = study_job("beta_vae", size="smoke", changes=TWO | {"epochs": 4}, out=str(tmp_path), redraw=False)
    run_cells(job, fit_stack=fit_stack)
    rate = 3 * job.config["mnist"]["learning_rate"]
    train = [load("mnist", "train", n=192, seed=seed).x for seed in (3, 5)]
    for objective, x, epochs, seeds, M, learning_rate in fitted:
        assert seeds == [3, 5] and all(map(torch.equal, x, train)), objective.name
        assert (epochs, learning_rate) == ((4, rate) if M == 64 else (2, rate / 2))
    weights = sorted((o.name, str(o.weight), M) for o, _, _, _, M, _ in fitted)
    kinds = [("aevb", "1.0"), ("beta_vae", "1/M"), ("wiseale", "1.0"), ("wiseale", "1/M")]
    assert weights == sorted((*kind, M) for kind in kinds for M in (16, 64))
    ends = read_csv(tmp_path / "data/beta_vae_smoke_networks.csv")
    for (method, M, seed), row in ends.set_index(["method", "M", "seed"]).iterrows():
        network = build("mnist", generator=random_stream(seed, "init"))
        x = load("mnist", "test", n=64, seed=seed).x
        assert row.aevb_kl == pytest.approx(mean_kl(network, x), rel=1e-5), (method, M)


def test_likelihood(tmp_path):
    """One set of held-out samples for all networks; the codes of the aggregate are of training samples."""
    job = study_job("likelihood", size="smoke", out=str(tmp_path), redraw=False)
    keys, seen = figure_runs("likelihood", job.config, job.sizes), []
    runs = [Untrained(resolve_settings("smoke", *key), k) for k, key in enumerate(keys)]
    names = run_cells(job, until="def check_bounds", load_runs=lambda job: runs)

    def estimates(model, objective, x, mu, train, seed):
        seen.append((model, x, train))
        return pd.DataFrame({"log_p": torch.zeros(len(x))})

    def network_row(model, objective, held_out, mu, log_var, seed):
        torch.testing.assert_close(mu, coded(model, to_float(held_out))[0])
        seen.append(held_out)
        return {}

    names |= {"estimates": estimates, "network_row": network_row, "check_bounds": lambda *_: None}
    _, cells = notebook_code(ROOT / "nbs/36_likelihood.ipynb")
    (driver,) = (s for s in data_code(cells).body if "held_out = load" in ast.unparse(s))
    exec(compile(ast.Module([driver], []), "driver", "exec"), names)
    labels = [(run.settings.method, run.settings.seed) for run in runs]
    assert list(names["networks"].itertuples(index=False, name=None)) == labels
    assert names["images"].image.tolist() == list(range(6)) * len(runs)
    x = load("mnist", "test", n=64, seed=0).x
    for run, (model, some, train), held in zip(runs, seen[::2], seen[1::2], strict=True):
        assert model is run.network and torch.equal(some, x[:6]) and torch.equal(held, x)
        assert torch.equal(train, load("mnist", "train", n=512, seed=run.settings.seed).x[:500])


def test_cited_methods(tmp_path):
    """Every setting trains on the seed's digits and is measured on others; so is the constant answer."""
    fitted, folders = [], set()

    def fit(model, objective, x, test, seed, checkpoint, **how):
        fitted.append((model, objective, x, test, seed))
        folders.add(checkpoint)
        return pd.DataFrame({"split": ["train", "test"], "objective": [7.0, -float(len(fitted))]})

    changes = {
        "seeds": [5],
        "weights": [10.0],
        "components": [2],
        "adversary_width": 8,
        "n": 64,
        "n_test": 64,
    }
    job = study_job("cited_methods", size="smoke", changes=changes, out=str(tmp_path), redraw=False)
    run_cells(job, fit=fit)
    table = read_csv(tmp_path / "data/cited_methods_smoke.csv")
    assert len(fitted) == len(table) == len(folders) == 9
    assert {folder.parents[2] for folder in folders} == {job.runs / "checkpoints" / study_key(job)}
    for k, (row, (model, objective, x, test, seed)) in enumerate(zip(table.itertuples(), fitted), 1):
        assert row.seed == seed and row.minus_objective == k
        method = {"wae_gan_added": "wae_gan"}.get(row.method, row.method)
        assert objective.name == method
        assert torch.equal(x, load("mnist", "train", n=64, seed=seed).x)
        held = load("mnist", "test", n=64, seed=seed).x
        assert torch.equal(test, held)
        first = build("mnist", generator=random_stream(seed, "init"))
        assert torch.equal(next(model.parameters()), next(first.parameters()))
        assert row.sd == pytest.approx(coded(model, to_float(held))[1].mean().item(), rel=1e-5)
    constant = read_csv(tmp_path / "data/cited_methods_smoke_constant.csv").set_index("seed").reconstruction
    mean = to_float(load("mnist", "train", n=64, seed=5).x).mean(0).clamp(1e-6, 1 - 1e-6)
    x = to_float(load("mnist", "test", n=64, seed=5).x)
    nll = -(x * mean.log() + (1 - x) * (1 - mean).log()).flatten(1).sum(1).mean().item()
    assert constant.loc[5] == pytest.approx(nll, rel=1e-4)


def eq15_networks(folder, key, finished=9):
    """The networks that a call trains which is killed after so many; training is a stand-in."""
    trained = []

    def train(*which):
        if len(trained) == finished:
            raise KeyboardInterrupt
        trained.append(which)
        return [{"network": str(which), "share": 1 / 3}], [{"cosine": float("nan")}]

    changes = {"recipes": ["own", "log_mean", "all"], "seeds": [5, 7]}
    job = study_job("learning_with_eq15", size="smoke", changes=changes, out=str(folder), redraw=False)
    names = vars(importlib.import_module("wiseale_nb.core")) | job.sizes | {"job": job, "train": train}
    names |= {"json": json, "shutil": shutil, "time": time, "pd": pd, "costs": {}}
    names |= {"constants": lambda *which: {"all": 1.0}, "study_key": lambda job: key}
    _, cells = notebook_code(ROOT / "nbs/34_learning_with_eq15.ipynb")
    driver = [s for s in cells.body if "trained_once" in ast.unparse(s)]
    with contextlib.suppress(KeyboardInterrupt):
        exec(compile(ast.Module(driver, []), "driver", "exec"), names)
    return trained


def test_learning_with_eq15_goes_on(tmp_path):
    """After an interruption the missing networks alone are trained, or all if anything has changed."""
    whole = eq15_networks(tmp_path / "whole", "a")
    assert len(set(whole)) == 6
    assert eq15_networks(tmp_path / "two", "a", 4) == eq15_networks(tmp_path / "two", "b", 4) == whole[:4]
    assert eq15_networks(tmp_path / "two", "a") == whole[4:]
    files = ["data/learning_with_eq15_smoke.csv", "data/learning_with_eq15_smoke_gradient.csv"]
    assert all((tmp_path / "two" / f).read_text() == (tmp_path / "whole" / f).read_text() for f in files)
    assert not list((tmp_path / "two/learning_with_eq15_smoke").iterdir())


def test_sensitivity(tmp_path):
    """Each choice changes one setting of the paper's, and is measured on the seed's held-out samples."""
    _, trainer = study("sensitivity", tmp_path, TWO)
    table = read_csv(tmp_path / "data/sensitivity_smoke_values.csv")
    assert table.seed.tolist() == [3, 5] * 14
    for run, row in zip(trainer.runs, table.itertuples(), strict=True):
        s = run.settings
        assert (row.method, row.seed, s.n_train, s.n_test, s.epochs) == (s.method, s.seed, 512, 128, 4)
        assert s.learning_rate == pytest.approx(4 * 0.001) and s.profile == "paper"
        assert s.likelihood == ("gaussian" if row.choice == "Gaussian pixels" else "bernoulli")
        assert row.aevb_kl == pytest.approx(mean_kl(run.network, held_out(run)), rel=1e-5)
    objectives = {
        (r.choice, r.method): run.settings.objective for r, run in zip(table.itertuples(), trainer.runs)
    }
    weights = {key: o.get("beta", o.get("weight")) for key, o in objectives.items()}
    assert weights["β = 2", "beta_vae"] == 2 and weights["β = 10", "beta_vae"] == 10
    assert weights["λ = 1", "wae_mmd"] == 1 and weights["λ = 100", "wae_mmd"] == 100
    assert weights["as reported", "beta_vae"] == 4 and weights["as reported", "wae_mmd"] == 10


def test_rate_distortion(tmp_path):
    """The rate of a point is that of its own networks on held-out samples; weights are as they are called."""
    job, trainer = study("rate_distortion", tmp_path, TWO)
    table = read_csv(tmp_path / "data/rate_distortion_smoke.csv")
    assert len(trainer.asked) == len(table) == 8
    pairs = list(zip(trainer.runs[::2], trainer.runs[1::2]))
    for (settings, seeds, _), runs, row in zip(trainer.asked, pairs, table.itertuples(), strict=True):
        rates = [mean_kl(run.network, held_out(run)) for run in runs]
        assert seeds == [3, 5] and row.rate == pytest.approx(np.mean(rates), rel=1e-5)
        assert row.rate_error == pytest.approx(abs(rates[0] - rates[1]) / 2, rel=1e-3)
        assert (row.method, row.M) == (settings.method, settings.batch_size)
        given = settings.objective.get("beta", settings.objective.get("weight"))
        if row.method in ("beta_vae", "wae_mmd"):
            assert given == row.weight
        expected = 3 * job.config["mnist"]["learning_rate"] * math.sqrt(row.M / 64)
        assert settings.learning_rate == pytest.approx(expected)


def test_weight_sweep(tmp_path):
    """Each point weighs its divergence by b, and is measured on the seed's held-out digits."""
    fitted, networks = [], []

    def fit_stack(models, objective, x, test, seeds, learning_rate, epochs, batch_size, **how):
        for k, (model, seed) in enumerate(zip(models, seeds)):
            fresh = create(NETWORKS[len(fitted) // 4], random_stream(seed, "init"), d_z=2)
            assert all(map(torch.equal, model.parameters(), fresh.parameters()))
            spread = (500, 100)[len(fitted) // 4] + 10 * (len(fitted) + k)
            list(model.encoder.mu_head.parameters())[-2].data *= spread
            model.encoder.log_var_head.bias.data -= 2  # posteriors overlap in part, in each network otherwise
        networks.extend(model.eval() for model in models)
        fitted.append((objective, x, seeds, learning_rate, epochs, batch_size))

    NETWORKS = mnist_net, mnist_perceptron
    changes = TWO | {"n_test": 128}  # two groups of 64
    job = study_job("weight_sweep", size="smoke", changes=changes, out=str(tmp_path), redraw=False)
    run_cells(job, fit_stack=fit_stack)
    train = [load("mnist", "train", n=256, seed=seed).x for seed in (3, 5)]
    for objective, x, *how in fitted:
        assert all(map(torch.equal, x, train)) and how == [[3, 5], pytest.approx(0.002), 1, 64]
        assert objective.likelihood.name == "sigmoid_gaussian"
    table = read_csv(tmp_path / "data/weight_sweep_smoke.csv")
    asked = [(o.name, float(o.weight)) for o, *_ in fitted for _ in range(2)]
    assert list(zip(table.method, table.weight)) == asked
    assert sorted(set(asked)) == [(m, w) for m in ("beta_vae", "wiseale") for w in (0.125, 4.0)]
    assert table.network.tolist() == ["convolutional"] * 8 + ["perceptron"] * 8
    assert table.seed.tolist() == [3, 5] * 8
    for network, row in zip(networks, table.itertuples(), strict=True):
        x = load("mnist", "test", n=128, seed=row.seed).x
        mu, sigma, decoded = coded(network, to_float(x))
        error = (decoded.sigmoid() - to_float(x)).square().flatten(1).sum(1).mean().item()
        assert row.rate == pytest.approx(mean_kl(network, x), rel=1e-4)
        assert row.squared_error == pytest.approx(error, rel=1e-4)
        own, overlaps = [], []
        for m, s in zip(mu.double().split(64), sigma.double().split(64)):
            parts = Independent(Normal(m, s), 1)
            log_q = parts.log_prob(parts.sample((100,))[:, :, None])  # of each draw under all posteriors
            own.append(log_q.softmax(-1).diagonal(dim1=1, dim2=2).mean().item())
            overlaps.append(separation(m, 2 * s.log())["neighbour_overlap"])
        assert row.ascribed == pytest.approx(np.mean(own), abs=0.05) and 0.05 < np.mean(own) < 0.95
        assert row.overlap == pytest.approx(np.mean(overlaps), rel=1e-4)
