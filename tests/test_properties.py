"""Bounds and objectives in their documented range: |mu| <= 1e3, |log_var| <= 80, M <= 300, d_z <= 128."""

import math
from unittest.mock import patch

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch.distributions import Bernoulli, Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from wiseale_nb import aggregate
from wiseale_nb.aggregate import (
    aggregate_log_prob,
    bhattacharyya_coefficient,
    kl_best_bound,
    kl_moment_matched,
    kl_monte_carlo,
    kl_pairwise_bound,
    kl_pairwise_lower_bound,
    kl_upper_bound,
    kl_upper_bound_joint,
    sample_kl,
)
from wiseale_nb.algorithm import plain_step
from wiseale_nb.data import build
from wiseale_nb.loss import METHODS, Likelihood, make_likelihood, make_objective
from wiseale_nb.objective import BOUNDS
from wiseale_nb.recording import pure_terms, record

steady = settings(
    derandomize=True, database=None, deadline=None, max_examples=50, suppress_health_check=list(HealthCheck)
)
RANDN = torch.randn


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


@st.composite
def batches(draw, at_least=1):
    """(mu, log_var), float64 holding float32 numbers: few chosen one by one, or many between limits."""
    M, d_z = draw(
        st.one_of(
            st.tuples(st.integers(at_least, m), st.integers(1, d)) for m, d in ((3, 2), (300, 8), (40, 128))
        )
    )
    if M * d_z <= 6:
        mu, log_var = (
            torch.tensor(
                draw(st.lists(st.floats(-limit, limit, width=32), min_size=M * d_z, max_size=M * d_z))
            ).reshape(M, d_z)
            for limit in (1000, 80)
        )
    else:
        spread = draw(st.sampled_from([0.0, 1e-3, 1.0, 30.0, 1000.0]))
        level = st.sampled_from([-80.0, 0.0, 80.0]) | st.floats(-80, 80)
        low, high = sorted((draw(level), draw(level)))
        uniform = torch.rand(2, M, d_z, generator=stream(draw(st.integers(0, 99))))
        if draw(st.booleans()):
            uniform = (4 * uniform).round() / 4  # many coincide, many are at the limits
        mu, log_var = spread * (2 * uniform[0] - 1), low + (high - low) * uniform[1]
    return mu.float().double(), log_var.float().double()


WIDEST = (
    torch.full((300, 128), 1e3).double(),
    torch.full((300, 128), 80.0).double(),
)  # sums are nearest to overflow


def same_noise():
    """Random numbers that are the same in both precisions."""
    return patch(
        "torch.randn",
        lambda shape, generator, dtype, device: RANDN(shape, generator=generator, device=device).to(dtype),
    )


def monte_carlo(mu, log_var):
    with same_noise():
        return kl_monte_carlo(mu, log_var, 2, stream())


def mean(x):
    return (x / len(x)).sum()


FUNCTIONS = {
    "sample_kl": lambda mu, log_var: mean(sample_kl(mu, log_var)),
    "kl_upper_bound": kl_upper_bound,
    "kl_upper_bound_joint": kl_upper_bound_joint,
    "kl_moment_matched": kl_moment_matched,
    "kl_pairwise_bound": kl_pairwise_bound,
    "kl_pairwise_lower_bound": kl_pairwise_lower_bound,
    "kl_monte_carlo": monte_carlo,
    "aggregate_log_prob": lambda mu, log_var: mean(aggregate_log_prob(mu.detach().flip(0), mu, log_var)),
    "aggregate_log_prob at 0": lambda mu, log_var: aggregate_log_prob(torch.zeros_like(mu[0]), mu, log_var),
}
DENSITIES = ["aggregate_log_prob", "aggregate_log_prob at 0"]  # at points that stay where they are
PAIRWISE = [name for name in FUNCTIONS if name not in ("sample_kl", "kl_moment_matched")]


def results(function, mu, log_var):
    """Value and gradient."""
    inputs = mu.clone().requires_grad_(), log_var.clone().requires_grad_()
    value = function(*inputs)
    return value.detach(), *torch.autograd.grad(value, inputs)


def assert_finite(tensors, dtype):
    for tensor in tensors:
        assert tensor.dtype == dtype and tensor.isfinite().all()


def size(mu, log_var):
    """The sum of what is added up on the way to a value: its rounding errors are proportional to it."""
    return mean((log_var.abs() + log_var.exp() + mu.square() + 1).sum(1))


def alone(mu, log_var):
    """(M, 1): whether a posterior is over 40 standard deviations from all others: no pair has weight."""
    distance = (mu[:, None] - mu).abs() / (log_var.exp()[:, None] + log_var.exp()).sqrt()
    return (distance.amax(-1).fill_diagonal_(math.inf).amin(1) > 40)[:, None]


def assert_same(ours, reference, mu, log_var, eps, pairs_pull=False):
    """Value and gradient agree, as far as numbers of relative precision eps can.

    The weights of pairs have the rounding errors of log_var in the exponent. Where pairs have weight, they
    pull on mu with 1 / sigma; on a posterior that is alone only the prior pulls, which must not be lost.
    """
    value, *gradients = (t.double() for t in reference)
    assert abs(ours[0] - value) <= 4 * eps * (size(mu, log_var) + abs(value)), "value"
    M, pulled = len(mu), torch.ones_like(mu[:, :1]) if pairs_pull else (~alone(mu, log_var)).double()
    sigma = torch.where(pulled > 0, (0.5 * log_var).exp(), 1.0)
    relative = 16 * eps * (10 + log_var.abs().sum(1).max() + abs(value) * (abs(value) > size(mu, log_var)))
    for name, unit, cross, a, b in zip(
        ("mu", "log_var"), (sigma, 1), (sigma * mu.abs() + pulled, log_var.exp() + 1), ours[1:], gradients
    ):
        error, scale = (a - b).abs() * unit, b.abs() * unit + cross / M
        least = torch.finfo(torch.float32).tiny  # below it a number has fewer digits
        assert (error <= relative * scale + least).all(), (name, (error / scale).max() / relative)


@pytest.mark.parametrize("name", FUNCTIONS)
@steady
@given(batches())
def test_float32_is_finite_and_agrees_with_float64(name, batch):
    exact, ours = results(FUNCTIONS[name], *batch), results(FUNCTIONS[name], *(t.float() for t in batch))
    assert_finite(exact, torch.float64)
    assert_finite(ours, torch.float32)
    if name != "aggregate_log_prob at 0":  # a point that may be further away than float32 can tell
        assert_same(ours, exact, *batch, eps=2**-23, pairs_pull=name in DENSITIES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", PAIRWISE)
@steady
@given(batches())
def test_tiles_are_the_plain_operations(name, dtype, batch):
    tiled, plain = (
        patch.object(aggregate, "many_pairs", lambda *_, answer=answer: answer) for answer in (True, False)
    )
    batch = [t.to(dtype) for t in batch]
    with tiled:
        ours = results(FUNCTIONS[name], *batch)
    with plain:
        reference = results(FUNCTIONS[name], *batch)
    eps, batch = torch.finfo(dtype).eps, [t.double() for t in batch]
    assert_same(ours, reference, *batch, eps=eps, pairs_pull=name in DENSITIES)


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize("level", [0.0, -10.0, -20.0, -30.0, -40.0, -60.0, -80.0])
@pytest.mark.parametrize(
    "name", [name for name in FUNCTIONS if name not in ("kl_moment_matched", *DENSITIES)]
)
def test_the_prior_pulls_on_narrow_posteriors(name, level, tiles):
    """The gradient in mu of posteriors that do not meet is mu / M, in float32 and at any width."""
    for M, d_z, gap in ((1, 1, 0.0), (1, 5, 0.0), (4, 3, 100.0), (30, 2, 100.0)):
        mu = torch.randn(M, d_z, generator=stream()) + gap * torch.arange(M)[:, None]
        log_var = level + torch.rand(M, d_z, generator=stream(1)) - 1
        with patch.object(aggregate, "many_pairs", lambda *_: tiles):
            gradients = results(FUNCTIONS[name], mu, log_var)[1]
            if name == "kl_monte_carlo":  # here the prior pulls on two draws
                noise = RANDN(2, M, d_z, generator=stream()).mean(0)
                mu = mu + (0.5 * log_var).exp() * noise
        torch.testing.assert_close(gradients, mu / M, rtol=1e-5, atol=0)


@steady
@given(batches())
def test_values_are_the_formulas(batch):
    """Another way to each value, by torch.distributions, in float64."""
    mu, log_var = batch
    posteriors, prior, rounding = (
        Normal(mu, (0.5 * log_var).exp()),
        Normal(0.0, 1.0),
        1e-13 * size(mu, log_var),
    )
    assert abs(mean(sample_kl(mu, log_var)) - mean(kl_divergence(posteriors, prior).sum(1))) <= rounding
    overlap = Normal(mu, (log_var.exp()[:, None] + log_var.exp()).sqrt()).log_prob(mu[:, None]).sum(-1)
    cross_entropy = mean(0.5 * (log_var.exp() + mu.square() + math.log(2 * math.pi)).sum(1))
    assert (
        abs(kl_upper_bound(mu, log_var) - mean(overlap.logsumexp(1) - math.log(len(mu))) - cross_entropy)
        <= rounding
    )
    assert (
        abs(
            kl_upper_bound_joint(mu, log_var)
            - overlap.flatten().logsumexp(0)
            + 2 * math.log(len(mu))
            - cross_entropy
        )
        <= rounding
    )
    ratio = (
        torch.logaddexp(log_var[:, None], log_var) - 0.5 * (log_var[:, None] + log_var) - math.log(2)
    )  # of means of variances
    distance = (
        0.25 * (mu[:, None] - mu).square() / (log_var.exp()[:, None] + log_var.exp()) + 0.5 * ratio
    )  # Bhattacharyya's
    coefficient = bhattacharyya_coefficient(mu, log_var, mu, log_var)
    torch.testing.assert_close(coefficient, (-distance.sum(-1)).exp(), rtol=1e-9, atol=1e-12)
    pairs = (-distance.sum(-1)).logsumexp(1) - math.log(len(mu))
    assert abs(kl_pairwise_bound(mu, log_var) - mean(sample_kl(mu, log_var) + pairs)) <= rounding
    to_others = kl_divergence(Normal(mu[:, None], posteriors.scale[:, None]), posteriors).sum(-1)
    pairs = (-to_others).logsumexp(1) - math.log(len(mu))
    assert abs(kl_pairwise_lower_bound(mu, log_var) - mean(sample_kl(mu, log_var) + pairs)) <= rounding
    mixture = MixtureSameFamily(Categorical(torch.ones_like(mu[:, 0])), Independent(posteriors, 1))
    torch.testing.assert_close(
        aggregate_log_prob(mu, mu, log_var), mixture.log_prob(mu), rtol=1e-9, atol=1e-9
    )
    covariance = torch.diag(log_var.exp().mean(0)) + mu.T.cov(correction=0).reshape(mu.shape[1], -1)
    values = torch.linalg.eigvalsh(covariance)
    if values[0] > 1e-6 * values[-1]:  # else its determinant is lost in rounding
        expected = 0.5 * (covariance.trace() + mu.mean(0).square().sum() - mu.shape[1] - values.log().sum())
        assert abs(kl_moment_matched(mu, log_var) - expected) <= 1e-9 * size(mu, log_var)


@steady
@given(batches())
def test_bounds_are_in_order(batch):
    lower, upper, joint = (f(*batch) for f in (kl_moment_matched, kl_upper_bound, kl_upper_bound_joint))
    kl, error = kl_monte_carlo(*batch, 16, stream(), return_error=True)
    rounding = 1e-13 * size(*batch)
    assert lower <= kl + 6 * error + rounding
    assert kl <= upper + 6 * error + rounding
    assert kl <= mean(sample_kl(*batch)) + 6 * error + rounding
    assert upper <= joint + rounding and lower <= upper + rounding
    pairs_lower, pairs, best = (
        f(*batch) for f in (kl_pairwise_lower_bound, kl_pairwise_bound, kl_best_bound)
    )
    assert pairs_lower - rounding <= kl + 6 * error and kl <= pairs + 6 * error + rounding
    assert pairs_lower <= pairs + rounding and pairs <= mean(sample_kl(*batch)) + rounding
    assert best == min(upper, pairs)


@steady
@given(batches())
def test_bounds_by_pairs_are_exact_at_both_ends(batch):
    mu, log_var = batch
    M, rounding = len(mu), 1e-13 * size(*batch)
    alike = mu[:1].expand_as(mu), log_var[:1].expand_as(mu)
    far = 1e3 * torch.arange(M).double()[:, None] + 0.1 * mu, log_var.clamp(max=0)  # 800 sigma or more apart
    for bound in (kl_pairwise_bound, kl_pairwise_lower_bound, kl_best_bound):
        assert abs(bound(*alike) - sample_kl(*alike)[0]) <= rounding
        assert abs(bound(*far) - mean(sample_kl(*far)) + math.log(M)) <= 1e-13 * size(*far)


@pytest.mark.parametrize("bound", [kl_upper_bound, kl_pairwise_bound, kl_pairwise_lower_bound])
@steady
@given(batches(), st.integers(0, 99))
def test_order_of_samples_does_not_matter(bound, batch, seed):
    order = torch.randperm(len(batch[0]), generator=stream(seed))
    value, *gradients = results(bound, *batch)
    permuted = results(bound, *(t[order] for t in batch))
    assert_same(permuted, (value, *(g[order] for g in gradients)), *(t[order] for t in batch), eps=2**-52)


PAIRS = [(method, likelihood) for method in METHODS for likelihood in ("bernoulli", "gaussian")]


@pytest.mark.parametrize("method, likelihood", [*PAIRS, ("aevb", "sigmoid_gaussian")])
@steady
@given(batches(at_least=2))
@example(WIDEST)
def test_objective_is_finite_and_agrees_with_float64(method, likelihood, batch):
    x = torch.rand(len(batch[0]), 7, generator=stream(1)).round()
    decoded = torch.logspace(-3, 3, 7) * RANDN(x.shape, generator=stream(2))
    objective, terms = make_objective(method, likelihood=likelihood), []
    objective.prepare(batch[0].shape[1], stream(5))
    for dtype in (torch.float32, torch.float64):
        decoded_, mu, log_var = inputs = [t.to(dtype).requires_grad_() for t in (decoded, *batch)]
        z = mu + (0.5 * log_var).exp() * RANDN(mu.shape, generator=stream(3)).to(dtype)
        with same_noise():
            terms.append(objective.to(dtype)(x.to(dtype), decoded_, mu, log_var, z, generator=stream(4)))
        assert_finite([*terms[-1], *torch.autograd.grad(terms[-1].loss, inputs)], dtype)
    ours, exact = terms
    assert abs(ours.prior - exact.prior) <= 1e-5 * size(*batch)
    assert abs(ours.reconstruction - exact.reconstruction) <= 1e-5 * exact.reconstruction
    assert ours.loss == ours.reconstruction + ours.prior
    weight = 1 / len(x) if objective.weight == "1/M" else objective.weight
    assert ours.prior == ours.divergence * weight


@st.composite
def decodings(draw):
    """(likelihood, x, decoded), the latter two float64 holding float32 numbers, up to 1e3 in size."""
    M, D = draw(st.integers(1, 40)), draw(st.integers(1, 60))
    name, seed = draw(st.sampled_from(list(Likelihood.registry))), draw(st.integers(0, 99))
    scale, level = draw(st.sampled_from([1e-3, 1.0, 30.0, 1e3])), draw(st.sampled_from([0.0, 1.0, 1e3]))
    std = {} if name == "bernoulli" else {"std": draw(st.sampled_from([0.05, 1.0, 3.0]))}
    likelihood, noise = make_likelihood({"name": name} | std), RANDN(2, M, D, generator=stream(seed))
    if name == "gaussian":
        return likelihood, (level + noise[1]).double(), (level + scale * noise[0]).double()
    pixels = noise[1].sigmoid().round(decimals=draw(st.integers(0, 2)))
    return likelihood, pixels.double(), (scale * noise[0]).double()


def table_rounding(likelihood, x, decoded):
    """What the rounding errors of a table are proportional to, as its docstring says."""
    if likelihood.name == "bernoulli":
        return decoded.abs().sum(1).max() + decoded.shape[1]
    mean, std = likelihood.mean(decoded), likelihood.std
    far = ((t - x.mean(0)).square().sum(1).max() for t in (mean, x))
    size = max(mean.abs().max(), x.abs().max())  # the numbers' own rounding, where they lie far from zero
    distance = (mean - x.mean(0)).abs().max() + (x - x.mean(0)).abs().max()
    return sum(far) / std**2 + decoded.shape[1] * (1 + size * distance / std**2)


@steady
@given(decodings())
def test_table_is_the_double_loop(case):
    likelihood, x, decoded = case
    if likelihood.name == "bernoulli":
        law = Bernoulli(logits=decoded[:, None], validate_args=False)
    else:
        sigmoid = likelihood.name == "sigmoid_gaussian"
        law = Normal((decoded.sigmoid() if sigmoid else decoded)[:, None], likelihood.std)
    expected, table = -law.log_prob(x).sum(-1), likelihood.nll_table(x, decoded)
    assert (table - expected).abs().max() <= 1e-14 * table_rounding(*case)
    assert (table.diagonal() - likelihood.nll(x, decoded)).abs().max() <= 1e-14 * table_rounding(*case)
    single = likelihood.nll_table(x.float(), decoded.float())
    assert single.dtype == torch.float32 and (single - table).abs().max() <= 4e-7 * table_rounding(*case)


@pytest.mark.parametrize("reconstruction", ["log_mean", "all"])
@steady
@given(decodings(), st.integers(0, 99))
def test_other_reconstructions(reconstruction, case, seed):
    """Finite with finite gradients in float32, ordered by Jensen, and blind to whose code is whose."""
    likelihood, x, decoded = case
    objective = make_objective("wiseale", likelihood=likelihood, reconstruction=reconstruction)
    leaf = decoded.float().requires_grad_()
    value = objective.reconstruction_term(x.float(), leaf)
    assert_finite([value, *torch.autograd.grad(value, leaf)], torch.float32)
    exact, rounding = objective.reconstruction_term(x, decoded), 1e-13 * table_rounding(*case)
    table = likelihood.nll_table(x, decoded)
    assert exact <= table.mean() + rounding
    if reconstruction == "log_mean":
        assert exact >= table.min(1).values.mean() - rounding
        assert exact <= likelihood.nll(x, decoded).mean() + math.log(len(x)) + rounding
    order = torch.randperm(len(x), generator=stream(seed))
    assert abs(objective.reconstruction_term(x, decoded[order]) - exact) <= rounding


RECORDED = {bound: ("wiseale", {"bound": bound, "weight": 1.0}) for bound in BOUNDS}
RECORDED["monte_carlo"] = "wiseale", {"bound": "monte_carlo", "n_samples": 2}
RECORDED |= {method: (method, {}) for method in METHODS if method not in ("wiseale", "wae_gan", "aae")}
RECORDED |= {method: (method, {"adversary_width": 8}) for method in ("wae_gan", "aae")}


@pytest.mark.parametrize("case", RECORDED)
def test_recorded_steps_are_the_plain_ones(case):
    """With every method and every bound of the KL, for one network and for two that are stacked."""
    method, options = RECORDED[case]
    networks = [build("sine", generator=stream(seed)) for seed in (0, 1)]
    objectives = [
        make_objective(method, likelihood="gaussian", **options).prepare(4, stream(seed)) for seed in (4, 5)
    ]
    x = RANDN(2, 16, 1, 256, generator=stream(2))
    noise = RANDN(2, 1 + objectives[0].n_draws, 16, 4, generator=stream(3))
    trained = [[*net.parameters(), *own.parameters()] for net, own in zip(networks, objectives)]
    weights = [[p.detach() for p in parameters] for parameters in trained]
    step = torch.func.grad(pure_terms(networks[0], objectives[0]), has_aux=True)
    stacked = [torch.stack(w) for w in zip(*weights)]
    together = record(torch.func.vmap(step), stacked, x, noise)(stacked, x, noise)
    alone = record(step, weights[0], x[0], noise[0])
    for k, plain_one in enumerate(map(plain_step, networks, objectives)):
        plain, values = plain_one(trained[k], x[k], noise[k])
        recorded = alone(weights[k], x[k], noise[k]), ([g[k] for g in together[0]], together[1][k])
        for gradients, terms in recorded:
            torch.testing.assert_close(terms, values, rtol=1e-5, atol=1e-4)
            torch.testing.assert_close(list(gradients), list(plain), rtol=1e-3, atol=1e-4)
