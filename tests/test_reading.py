"""The second reading of the paper: a deterministic encoder, other first weights, and their figures."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from wiseale_nb.aggregate import kl_upper_bound
from wiseale_nb.config import build_objective, load_config, resolve_settings
from wiseale_nb.core import ParameterError, random_stream
from wiseale_nb.data import build
from wiseale_nb.drawing.figure_1 import numbers, posterior_figure, spread_out
from wiseale_nb.drawing.figure_6 import above_aevb
from wiseale_nb.drawing.weight_sweep import sweep_figure
from wiseale_nb.loss import METHODS, make_objective
from wiseale_nb.models import POINT, create, defined_widths, mnist_net, sine_net
from wiseale_nb.representation import compactness, separation, smoothness
from wiseale_nb.training import fit_stack

DIGITS = (torch.rand(256, 1, 28, 28, generator=torch.Generator().manual_seed(0)) > 0.8).float()


def normals(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def trained(fast):
    """Two networks with a deterministic encoder after one epoch, and the history of the first."""
    objective = make_objective("wae_mmd", likelihood="sigmoid_gaussian", weight=1.0)
    models = [build("mnist", encoder="deterministic", generator=random_stream(k, "init")) for k in (0, 1)]
    how = {"epochs": 1, "batch_size": 64, "learning_rate": 1e-3, "fast": fast, "progress": False}
    histories = fit_stack(models, objective, [DIGITS] * 2, None, seeds=[0, 1], device="cpu", **how)
    return models, histories[0]


def test_a_deterministic_encoder_trains():
    """Recorded steps and plain ones agree, every weight moves, and z is the mean whatever the noise."""
    (models, fast), (_, plain) = trained(True), trained(False)
    columns = ["objective", "reconstruction", "prior"]
    np.testing.assert_allclose(fast[columns], plain[columns], rtol=1e-5)
    first = build("mnist", encoder="deterministic", generator=random_stream(0, "init"))
    assert not any(torch.equal(p, q) for p, q in zip(first.parameters(), models[0].parameters()))
    _, mu, log_var, z = models[1](DIGITS[:8], 100 * normals(8, 2))
    assert torch.equal(z, mu) and (log_var == POINT).all()


@pytest.mark.parametrize("method", list(METHODS))
def test_which_methods_can_have_a_deterministic_encoder(method):
    """Those whose divergence does not change with the widths, and no others."""
    changes = {"network": {"encoder": "deterministic"}, "objective": {"method": method}}
    settings = {"n_train": 128, "n_test": 64}
    base = resolve_settings("smoke", "mnist", "aevb", 0, settings)
    objective = build_objective(
        resolve_settings("smoke", "mnist", "aevb", 0, {"objective": {"method": method}})
    )
    objective = objective.prepare(2)
    mu, z, draws = normals(64, 2), normals(64, 2), normals(max(objective.n_draws, 1), 64, 2)
    draws = draws if objective.n_draws else None
    with torch.no_grad():
        terms = [objective.divergence(mu, torch.full_like(mu, v), z, draws) for v in (-2.0, -4.0)]
    assert torch.equal(*terms) == (not objective.reads_widths)
    made = lambda: resolve_settings("smoke", "mnist", "aevb", 0, settings | changes)  # noqa: E731
    if objective.reads_widths:
        with pytest.raises(ParameterError, match=f"{method} needs posteriors with a width"):
            made()
    else:
        assert made().network == {"encoder": "deterministic"} and base.network == {}


def test_a_methods_own_network_stays_its_own():
    config = load_config("pictured")
    for dataset, method in (("mnist", "wae_mmd"), ("mnist", "aevb"), ("sine", "wiseale")):
        s = resolve_settings("pictured", dataset, method)
        own = {"encoder": "deterministic"} if method == "wae_mmd" else {}
        assert s.network == config[dataset]["network"] | own
        assert "network" not in s.objective and set(s.objective) <= {"method", "weight", "beta"}
    changed = resolve_settings("pictured", "mnist", "wae_mmd", 0, {"network": {"initial": "glorot"}})
    assert changed.network == {"encoder": "deterministic", "initial": "glorot"}


def test_pictured_differs_from_paper_in_what_it_says():
    """Not in batch size, learning rate, epochs, latent dimensions or the methods' other weights."""
    paper, pictured = load_config("paper"), load_config("pictured")
    for dataset in ("sine", "mnist"):
        for key in ("n_train", "batch_size", "learning_rate", "epochs", "d_z", "network", "data"):
            assert pictured[dataset][key] == paper[dataset][key]
        for method, options in pictured[dataset]["methods"].items():
            assert method == "wae_mmd" or options == paper[dataset]["methods"][method]
    assert len(pictured["mnist"]["seeds"]) == 5
    small = load_config("pictured_tenth")["sine"]
    assert small["n_train"] == load_config("tenth")["sine"]["n_train"] == paper["sine"]["n_train"] / 10
    assert len(small["seeds"]) == 5 and small["likelihood"] == pictured["sine"]["likelihood"]


@pytest.mark.parametrize("network", [mnist_net, sine_net])
def test_glorot_weights_have_tensorflows_bounds(network):
    """Every bound from the shape of the layer itself; the other scheme is what it was."""
    model = create(network, initial="glorot")
    layers = [m for m in model.modules() if hasattr(m, "weight") and hasattr(m, "bias")]
    for layer in layers:
        field = math.prod(layer.weight.shape[2:])
        bound = math.sqrt(6 / (field * sum(layer.weight.shape[:2])))
        assert 0.8 * bound < layer.weight.abs().max() <= bound and not layer.bias.any()
    usual = [m for m in create(network).modules() if hasattr(m, "weight") and hasattr(m, "bias")]
    for layer in usual:
        assert layer.bias.any() and layer.weight.abs().max() <= layer.weight[0].numel() ** -0.5


def test_what_a_point_has():
    """Numbers that need a width are NaN, those of the picture are limits, and nothing overflows."""
    mu, log_var = normals(64, 2), torch.full((64, 2), POINT)
    assert defined_widths(log_var).isnan().all()
    one = log_var.clone()
    one[0] = -3.0
    assert torch.equal(defined_widths(one), one)  # if only one has a width, they are no points
    assert (
        separation(mu, log_var)["neighbour_overlap"] == 0
        and separation(0 * mu, log_var)["neighbour_overlap"] == 1
    )
    assert math.isfinite(kl_upper_bound(mu, log_var).item())
    assert compactness(mu, log_var, random_stream(0, "evaluation"))["islands"] == 1
    model, likelihood = build("mnist"), make_objective("aevb", likelihood="sigmoid_gaussian").likelihood
    smooth = smoothness(model, mu, log_var, random_stream(0, "evaluation"), likelihood)
    assert smooth["width"] < 1e-9 and math.isfinite(smooth["step"])


def plane(sigma, spread=1.0, method="aevb"):
    mu = spread * normals(64, 2).double().numpy()
    rows = pd.DataFrame(mu, columns=["mu_1", "mu_2"]).assign(sigma_1=sigma, sigma_2=sigma, method=method)
    return rows.assign(index=range(64), digit=np.arange(64) % 10)


def drawn(*frames):
    density = {f.method[0]: (np.zeros((4, 4), np.uint8), (-1.0, 1.0, -1.0, 1.0)) for f in frames}
    return posterior_figure(pd.concat(frames), density, np.zeros((2, 28, 28), np.uint8), "Bernoulli pixels")


def test_figure_1_shows_specks_in_an_inset_and_points_without_one():
    """Rows have one size; digits that are written out are a few, far apart."""
    points, specks = plane(1e-15, method="wae_mmd"), plane(0.002, 3.0, method="wiseale")
    wide, narrow = plane(0.5, method="aevb"), plane(0.2, method="wiseale_per_sample")
    fig = drawn(points, specks, wide, narrow)
    panels = dict(zip(("wae_mmd", "wiseale", "wiseale_per_sample", "aevb"), fig.axes[1:]))
    insets = {name: len(ax.child_axes) for name, ax in panels.items()}
    assert insets == {"wae_mmd": 0, "wiseale": 1, "wiseale_per_sample": 0, "aevb": 0}
    assert panels["wae_mmd"].get_xlim() == panels["wiseale"].get_xlim()
    assert (
        panels["aevb"].get_ylim() == panels["wiseale_per_sample"].get_ylim() != panels["wiseale"].get_ylim()
    )
    texts = {name: [t.get_text() for t in ax.texts] for name, ax in panels.items()}
    assert "points: a deterministic encoder" in texts["wae_mmd"]
    assert all(sum(t.isdigit() for t in of) == 12 for of in texts.values())
    for name, rows in (("aevb", wide), ("wiseale_per_sample", narrow)):
        assert any(f"overlap {numbers(rows)['overlap']:.2f}" in t for t in texts[name])


def test_written_digits_lie_apart():
    mu = np.concatenate([0.01 * normals(60, 2).numpy(), [[5, 5], [5, -5], [-5, 5], [-5, -5]]])
    assert set(spread_out(mu, 5)) >= {60, 61, 62, 63} and len(set(spread_out(mu, 12))) == 12
    assert len(spread_out(mu[:3])) == 3


def test_elbo_is_compared_with_the_same_seed_and_epoch():
    rows = [
        {"method": m, "seed": k, "epoch": e, "metric": "elbo", "value": 10.0 * k + e + shift}
        for m, shift in (("aevb", 0.0), ("wiseale", 2.0))
        for k in (0, 1)
        for e in (1, 2)
    ]
    assert (above_aevb(pd.DataFrame(rows)).value == 2.0).all() and len(above_aevb(pd.DataFrame(rows))) == 4
    assert above_aevb(pd.DataFrame(rows)[:4]).empty


def test_the_sweep_shows_log_m_and_every_point():
    point = {
        "likelihood": "bernoulli",
        "network": "perceptron",
        "overlap": 1.0,
        "ascribed": 1 / 64,
        "rate": 0.1,
    }
    rows = [
        point | {"method": m, "weight": w, "seed": k}
        for m in ("wiseale", "beta_vae")
        for w in (0.5, 4.0)
        for k in (0, 1)
    ]
    fig = sweep_figure(pd.DataFrame(rows), math.log(64))
    rate, overlap, _ = fig.axes
    assert rate.get_ylim()[1] > math.log(64) and any(
        np.allclose(line.get_ydata(), math.log(64)) for line in rate.lines
    )
    assert overlap.get_ylim()[0] < 0 and overlap.get_ylim()[1] > 1  # no marker is cut by an axis
