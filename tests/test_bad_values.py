"""Bad values for measuring, networks, training and settings: one sentence each, before any work."""

from functools import partial

import numpy as np
import pytest
import torch
from test_drivers import UNIT, Tiny, stream

from wiseale_nb.config import resolve_settings
from wiseale_nb.data import build, load
from wiseale_nb.evaluation import constant_nll, evaluate, importance_log_likelihood, latent_geometry
from wiseale_nb.evaluation import sample_metrics
from wiseale_nb.likelihood import annealed_log_likelihood, hole_share, mutual_information
from wiseale_nb.likelihood import plane_log_likelihood, widened_log_likelihood
from wiseale_nb.loss import make_objective
from wiseale_nb.representation import dci, mig, neighbour_scores, separation, smoothness
from wiseale_nb.training import fit, fit_stack


def refusals():
    """Name of a case -> (call, type of the error, part of its message)."""
    model, bernoulli, generator = Tiny(), make_objective("aevb"), stream()
    x, mu, own = torch.rand(8, 4), torch.zeros(8, 2), UNIT.likelihood
    cases = {}
    measures = {
        "evaluate": partial(evaluate, model, bernoulli),
        "samples": partial(sample_metrics, model, bernoulli),
        "iwae": lambda x, g, n=2: importance_log_likelihood(model, bernoulli, x, n, g),
        "annealed": lambda x, g, n=2: annealed_log_likelihood(model, bernoulli, x, n, n, g),
        "widened": lambda x, g, n=4: widened_log_likelihood(model, bernoulli, x, n, g),
    }
    for name, measure in measures.items():
        cases[f"{name} of an array"] = (
            partial(measure, x.numpy(), generator),
            TypeError,
            "x must be a torch.Tensor",
        )
        cases[f"{name} of nothing"] = partial(measure, x[:0], generator), ValueError, "needs data"
        cases[f"{name} of waves"] = (
            partial(measure, 2 * x - 1, generator),
            ValueError,
            "'bernoulli' needs data in [0, 1]",
        )
        for seed in (0, 1):
            wrong = partial(measure, x, seed), TypeError, "generator must be None or a torch.Generator"
            cases[f"{name} with seed {seed}"] = wrong
        if name in ("iwae", "annealed", "widened"):
            for n in (0, -1, 2.5, "4", True):
                cases[f"{name} with {n!r} draws"] = (
                    partial(measure, x, generator, n=n),
                    ValueError,
                    "an integer >=",
                )
    for name in ("n_importance", "max_posteriors", "n_monte_carlo", "batch_size"):
        wrong = partial(evaluate, model, bernoulli, x, generator, **{name: 2.5})
        cases[f"evaluate with half a {name}"] = wrong, ValueError, "must be an integer >="
    other = torch.rand(8, 1, 5, 5)
    cases["test of another shape"] = partial(constant_nll, own, x, other), ValueError, "need the same shape"
    constant = partial(constant_nll, bernoulli.likelihood, x, 3 * x)
    cases["constant of waves"] = constant, ValueError, "'bernoulli' needs data"
    for n in (0, 1):
        wrong = partial(latent_geometry, mu, mu, n), ValueError, "max_posteriors must be an integer >= 2"
        cases[f"geometry of {n} pairs"] = wrong
        cases[f"information of {n} draws"] = (
            partial(mutual_information, mu, mu, n, generator),
            ValueError,
            ">= 2",
        )
    cases["geometry of arrays"] = partial(latent_geometry, mu.numpy(), mu), TypeError, "mu must be a torch"
    cases["separation of one"] = partial(separation, mu[:1], mu[:1]), ValueError, "must be an integer >= 2"
    line = mu[:, :1]
    factors = {"first": mu[:, 0].numpy(), "second": mu[:, 1].numpy()}
    cases["dci of one axis"] = partial(dci, line, factors), ValueError, "codes (N, d_z >= 2)"
    cases["dci of one factor"] = partial(dci, mu, {"a": factors["first"]}), ValueError, "factors (N, n >= 2)"
    cases["dci of a tensor"] = partial(dci, mu, mu), TypeError, "must be a dict of arrays"
    cases["mig of one axis"] = partial(mig, line, mu), ValueError, "codes (N, d_z >= 2)"
    cases["mig of other lengths"] = partial(mig, mu, mu[:3]), ValueError, "got (8, 2) and (3, 2)"
    targets = {"a": np.arange(8)}
    cases["few neighbours"] = partial(neighbour_scores, mu, targets), ValueError, "must be an integer >= 20"
    no_draws = partial(smoothness, model, mu, mu, generator, own, n=0)
    cases["smoothness of nothing"] = no_draws, ValueError, "n must be an integer >= 1"
    cases["holes of no draws"] = partial(hole_share, mu, mu, 0, generator), ValueError, "n_samples must be"
    cases["holes outside"] = (
        partial(hole_share, mu, mu, 9, generator, 2.0),
        ValueError,
        "a share between 0 and 1",
    )
    plane = partial(plane_log_likelihood, model, UNIT, x, 1.0, 0.0)
    cases["a plane without step"] = plane, ValueError, "radius >= step > 0"
    for shape in ((1, 2), (8, 1), (3, 8, 2)):
        draw = partial(build("sine", d_z=2), torch.zeros(8, 1, 256), torch.zeros(shape))
        cases[f"noise of shape {shape}"] = draw, ValueError, "noise must have shape (8, 2)"
    for seed in (0, 7, True):
        made = (
            partial(build, "sine", generator=seed),
            TypeError,
            "generator must be None or a torch.Generator",
        )
        cases[f"weights from seed {seed!r}"] = made
    train = partial(
        fit, Tiny(), UNIT, epochs=1, batch_size=4, learning_rate=1e-3, device="cpu", progress=False
    )
    cases["held-out bytes"] = partial(train, x, (255 * x).byte()), ValueError, "must be of one type"
    cases["held-out pictures"] = partial(train, x, other), ValueError, "the same shape"
    cases["no device"] = partial(train, x, device=None), ValueError, "unknown device None"
    twice = partial(
        fit_stack, [model, model], UNIT, [x, x], seeds=[0, 1], epochs=1, batch_size=4, learning_rate=1.0
    )
    cases["one model twice"] = twice, ValueError, "each seed needs a model of its own"
    for name in (["sine"], None, 3):
        cases[f"load {name}"] = partial(load, name), ValueError, "unknown data set"
        cases[f"build {name}"] = partial(build, name), ValueError, "unknown data set"
        cases[f"data set {name}"] = (
            partial(resolve_settings, "smoke", name, "aevb"),
            ValueError,
            "unknown data set",
        )
        cases[f"method {name}"] = (
            partial(resolve_settings, "smoke", "sine", name),
            ValueError,
            "unknown method",
        )
    for changes in (["epochs"], {3: 4}, {"network": {3: 4}}):
        wrong = partial(resolve_settings, "smoke", "sine", "aevb", 0, changes), ValueError, "keys are text"
        cases[f"changes {changes}"] = wrong
    return cases


REFUSALS = refusals()


@pytest.mark.parametrize("case", REFUSALS)
def test_refused_with_one_sentence(case):
    call, kind, message = REFUSALS[case]
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert message in text and "\n" not in text and len(text) < 300
