"""Costs along the valley and at the heap are those that nbs/45_slack derives; descent ends in a minimum."""

import math

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wiseale_nb.aggregate import aggregate_log_prob, kl_pairwise_bound, kl_upper_bound, sample_kl
from wiseale_nb.drawing.slack import collapse_weight, descend, heap_price, valley, valley_cost
from wiseale_nb.drawing.when_it_matters import at_equal_rate, compression, effective_weights

steady = settings(derandomize=True, database=None, deadline=None, max_examples=25)
LINE = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(1500, dtype=torch.float64) + 0.5) / 1500)[
    :, None
]


@steady
@given(st.floats(0.02, 1.0))
def test_bounds_cost_along_the_valley_what_is_derived(s):
    """Many posteriors whose means are the quantiles of a normal distribution."""
    expected, xi = valley(s), LINE[None]
    assert valley_cost("upper", xi, s) == pytest.approx(expected["Eq. 21"], abs=6e-3)
    assert valley_cost("pairwise", xi, s) == pytest.approx(expected["pairs"], abs=6e-3)
    mu, log_var = math.sqrt(1 - s) * LINE, torch.full_like(LINE, math.log(s))
    assert sample_kl(mu, log_var).mean().item() == pytest.approx(expected["VAE"], abs=6e-3)


@steady
@given(st.floats(0.01, 0.98), st.integers(1, 64))
def test_only_eq21_is_cheaper_where_codes_inform(s, d_z):
    narrow, wide = valley(s, d_z), valley(s + 0.02, d_z)
    assert (
        narrow["Eq. 21"]
        < wide["Eq. 21"]
        <= valley(1.0, d_z)["Eq. 21"]
        == pytest.approx(0.5 * d_z * (1 - math.log(2)))
    )
    assert wide["pairs"] >= -1e-12 and narrow["VAE"] > wide["VAE"]
    assert narrow["pairs"] > max(wide["pairs"], 0) or s < 1 / 9
    assert all(value == pytest.approx(d_z * valley(s)[name]) for name, value in narrow.items())


@st.composite
def directions(draw, most=3):
    """(M, d_z) of one to six directions."""
    shape = draw(st.integers(1, 6)), draw(st.integers(1, most))
    values = st.floats(-3, 3, width=32)
    flat = draw(st.lists(values, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))
    return torch.tensor(flat, dtype=torch.float64).reshape(shape)


@steady
@given(directions())
def test_price_of_leaving_the_heap(xi):
    """The quadratic term of each prior term, by finite differences."""
    a, price = 1e-4, heap_price(xi)
    mu, log_var = a * xi, torch.full_like(xi, math.log1p(-a * a))
    found = {
        "vae": sample_kl(mu, log_var).mean(),
        "pairwise": kl_pairwise_bound(mu, log_var),
        "upper": kl_upper_bound(mu, log_var) - 0.5 * xi.shape[1] * (1 - math.log(2)),
    }
    for name, value in found.items():
        assert value.item() / a**2 == pytest.approx(price[name].item(), rel=1e-3, abs=1e-5), name


@steady
@given(directions(most=1))
def test_exact_kl_has_the_price_of_eq21(xi):
    """By quadrature on a line, where a cubic term of the size of a is left."""
    a, z = 0.003, torch.linspace(-12, 12, 8001, dtype=torch.float64)
    log_q = aggregate_log_prob(z[:, None], a * xi, torch.full_like(xi, math.log1p(-a * a)))
    kl = torch.trapezoid(log_q.exp() * (log_q + 0.5 * (z.square() + math.log(2 * math.pi))), z).item()
    assert kl / a**2 == pytest.approx(heap_price(xi)["KL"].item(), rel=0.05, abs=1e-3)


@steady
@given(st.floats(0.1, 20), st.floats(0.3, 0.9), st.integers(2, 512))
def test_collapse_weight_is_where_the_heap_becomes_stable(variance, below, M):
    """Of half the squared error of a linear decoder: the slope at s = 1 changes its sign there."""

    def gain(name, weight):  # of leaving the heap a little, for infinitely many posteriors
        s = 1 - 1e-4
        return 0.5 * variance * (1 - s) - weight * (valley(s)[name] - valley(1.0)[name])

    infinite = 10**9
    for objective, name in (("vae", "VAE"), ("pairwise", "pairs")):
        weight = collapse_weight(objective, infinite, variance)
        assert gain(name, below * weight) > 0 > gain(name, weight / below)
    assert gain("Eq. 21", 1e6 * variance) > 0
    assert collapse_weight("upper", M, variance) == pytest.approx(M * collapse_weight("vae", M, variance))
    few, many = (collapse_weight("monte_carlo", M, variance, n) for n in (1, 10**6))
    assert few <= many == pytest.approx(M * variance)


@steady
@given(st.lists(st.floats(-1, 1), min_size=25, max_size=25), st.integers(0, 4))
def test_descent_ends_where_no_neighbour_is_lower(values, start):
    loss = torch.tensor(values, dtype=torch.float64).reshape(5, 5)
    i, j = descend(loss, start)
    assert loss[i, j] == loss[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].min() <= loss[start, start]


def test_effective_weight_is_found_between_the_weights_of_the_vae():
    columns = ["likelihood", "network", "method", "weight", "rate"]
    vae = [("a", "b", "beta_vae", w, 5 - math.log(w)) for w in (0.5, 1.0, 8.0)]
    own = [("a", "b", "wiseale", w, 5 - math.log(w) / 2) for w in (0.25, 1.0, 4.0, 1e6)]
    found = effective_weights(pd.DataFrame(vae + own, columns=columns))
    assert found["effective"].tolist()[:3] == pytest.approx([0.5, 1.0, 2.0]) and found["effective"].isna()[3]


def test_slope_of_the_vaes_own_term_is_one():
    rates = torch.linspace(0.1, 5, 20).tolist()
    assert compression(pd.DataFrame({"rate": rates, "cost": rates}))["ratio"].tolist() == pytest.approx(
        [1] * 19
    )


def test_comparison_at_equal_rate_interpolates_each_seed():
    rows = [("beta_vae", 1.0, k, 2.0 + k, 10.0) for k in (0, 1)] + [
        ("beta_vae", 2.0, k, 1.0 + k, 20.0) for k in (0, 1)
    ]
    rows += [("wiseale", 1.0, 0, 1.5, 16.0), ("wiseale", 1.0, 1, 3.5, 16.0)]
    table = pd.DataFrame(rows, columns=["method", "weight", "seed", "rate", "x"]).assign(
        likelihood="a", network="b"
    )
    difference = at_equal_rate(table, "x")["difference"]
    assert difference[0] == 1.0 and math.isnan(difference[1])
