"""What users bring to bounds and objectives: nan, numbers out of range, half precision, arrays, shapes."""

import inspect
import math
from unittest.mock import patch

import numpy as np
import pytest
import torch

from wiseale_nb import aggregate, cited, loss, objective, pairs, reconstruction
from wiseale_nb.aggregate import (
    aggregate_log_prob,
    bhattacharyya_coefficient,
    kl_best_bound,
    kl_moment_matched,
    kl_monte_carlo,
    kl_of_draws,
    kl_pairwise_bound,
    kl_pairwise_lower_bound,
    kl_upper_bound,
    kl_upper_bound_joint,
    log_overlap,
    sample_kl,
)
from wiseale_nb.cited import sinkhorn_divergence
from wiseale_nb.loss import METHODS, make_likelihood, make_objective
from wiseale_nb.objective import mmd_imq

FLOATS = [torch.float32, torch.float64]


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def noise_like(mu, n=2):
    """The same numbers in every precision, also beside half precision and for what is no tensor."""
    noise = torch.randn(n, *np.shape(mu), generator=stream())
    return noise.double() if getattr(mu, "dtype", None) == torch.float64 else noise


def of_draws(mu, log_var):
    return kl_of_draws(mu, log_var, noise_like(mu)).mean()


def monte_carlo(mu, log_var):
    return kl_monte_carlo(mu, log_var, 2, stream())


def mean_kl(mu, log_var):
    return (sample_kl(mu, log_var) / len(mu)).sum()


def at_means(mu, log_var):
    return aggregate_log_prob(mu, mu, log_var)


def coefficients(mu, log_var):
    return bhattacharyya_coefficient(mu, log_var, mu, log_var)


KLS = [kl_upper_bound, kl_upper_bound_joint, kl_moment_matched, kl_pairwise_bound, kl_best_bound]
KLS += [kl_pairwise_lower_bound, mean_kl, of_draws, monte_carlo]
FUNCTIONS = [*KLS, at_means, coefficients, log_overlap]
SIZES = [(1, 1), (3, 2), (256, 2), (257, 2), (300, 2), (40, 128)]  # dense, and from 257 on in tiles


def in_tiles(answer):
    """Tiles or plain operations, whatever the size."""
    return patch.object(aggregate, "many_pairs", lambda *_: answer)


# Not finite


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_nan_stays_nan(function, size, dtype):
    """One nan among the means or the variances, or nothing else: no crash, and no number."""
    for mu_bad, log_var_bad in ((math.nan, 0.0), (0.0, math.nan), (math.nan, math.nan)):
        mu, log_var = torch.zeros(size, dtype=dtype), torch.zeros(size, dtype=dtype)
        mu[-1, 0] += mu_bad
        log_var[0, -1] += log_var_bad
        value = function(mu, log_var)
        assert value.isnan().any() and (value.ndim > 0 or value.isnan())
        assert function(torch.full_like(mu, math.nan), log_var).isnan().all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("function", KLS)
def test_infinity_is_never_a_number(function, size):
    for name, bad in (("mu", math.inf), ("mu", -math.inf), ("log_var", math.inf), ("log_var", -math.inf)):
        batch = {"mu": torch.zeros(size), "log_var": torch.zeros(size)}
        batch[name][0, 0] = bad
        value = function(**batch)
        if function is kl_moment_matched and name == "log_var" and bad < 0 < size[0] - 1:
            batch[name][0, 0] = -1e3  # one needle among others has no weight in their mean variance
            assert value == function(**batch)
        else:
            assert value.isnan() or value == math.inf


def test_nan_passes_through_distances_of_sets():
    points, other = torch.randn(2, 5, 3, generator=stream())
    points[1, 1] = math.nan
    for distance in (mmd_imq, sinkhorn_divergence):
        assert distance(points, other).isnan() and distance(other, points).isnan()


@pytest.mark.parametrize("method", METHODS)
def test_nan_reaches_the_terms_of_every_method(method):
    """Training looks at the loss, and says at which step."""
    ours = make_objective(method).prepare(2, stream())
    x, decoded, mu = torch.rand(6, 4), torch.zeros(6, 4), torch.full((6, 2), math.nan)
    terms = ours(x, decoded, mu, torch.zeros(6, 2), mu, generator=stream())
    assert terms.prior.isnan() and terms.loss.isnan() and terms.reconstruction.isfinite()


# Out of the documented range


EXTREMES = [-1e30, -1000.0, -200.0, -180.0, -170.0, -104.0, -100.0, -88.0, -87.0, -86.0, -80.0]
EXTREMES += [80.0, 85.0, 87.0, 88.5, 89.0, 100.0, 175.0, 180.0, 1000.0, 1e30]


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize("function", [f for f in KLS if f is not monte_carlo])
def test_out_of_range_is_right_or_infinite(function, tiles):
    """In float32: all of one width, one of another width, and two widths in one dimension."""
    for level in EXTREMES:
        for ordinary in (level, 0.0, -80.0, 80.0):
            for spread in (0.0, 1.0):
                mu = spread * torch.randn(4, 2, generator=stream(1))
                log_var = torch.full((4, 2), level)
                log_var[1:, 1] = ordinary
                with in_tiles(tiles):
                    value = function(mu, log_var).double()
                with in_tiles(False):
                    expected = function(mu.double(), log_var.double())  # a far wider range
                scale = (log_var.double().abs() + log_var.double().exp() + 10).sum(1).mean()
                right = abs(value - expected) <= 1e-5 * scale or expected > torch.finfo(torch.float32).max
                assert value == math.inf or right, (level, ordinary, spread, value, expected)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("function", [f for f in FUNCTIONS if f not in (monte_carlo, mean_kl, coefficients)])
def test_tiles_and_plain_operations_agree_out_of_range(function, dtype):
    for level in (*EXTREMES, *(8 * level for level in EXTREMES), 1e300, -1e300):
        for far in (0.0, 1.0, 1e15, 1e30):
            mu = far * torch.randn(5, 3, generator=stream(2), dtype=torch.float64).to(dtype)
            log_var = torch.full((5, 3), min(max(level, -1e38), 1e38), dtype=dtype)
            log_var[0] = 0.0
            values = []
            for tiles in (False, True):
                with in_tiles(tiles):
                    values.append(function(mu, log_var))
            torch.testing.assert_close(*values, rtol=1e-5, atol=1e-3)
            assert not values[0].isnan().any()


def test_known_values_out_of_range():
    """The values of the issue that asked for them."""

    def upper(level, dtype=torch.float32):
        return kl_upper_bound(torch.zeros(2, 1, dtype=dtype), torch.full((2, 1), level, dtype=dtype))

    assert upper(88.5) == pytest.approx(0.5 * math.exp(88.5), rel=1e-5)
    assert upper(100.0) == math.inf and upper(-100.0) == math.inf
    assert upper(-100.0, torch.float64).item() == pytest.approx(49.5 + 0.5 * math.log(math.e / 2))
    assert upper(-1000.0, torch.float64) == upper(1000.0, torch.float64) == math.inf


@pytest.mark.parametrize("bound", [*objective.BOUNDS, "monte_carlo"])
def test_too_wide_an_encoder_gives_infinity(bound):
    """log_var + 200, a usual mistake."""
    ours, mu = make_objective("wiseale", bound=bound), torch.randn(6, 2, generator=stream())
    log_var = torch.full_like(mu, 198.0)
    z = mu + noise_like(mu, 1)[0]
    assert ours(torch.rand(6, 4), torch.zeros(6, 4), mu, log_var, z, generator=stream()).loss == math.inf


def test_gradient_of_coefficients_in_the_corners():
    for dtype in FLOATS:
        values = [(m, v) for m in (-1e3, 0.0, 1e-3, 1e3) for v in (-80.0, 0.0, 80.0)]
        mu, log_var = (torch.tensor(t, dtype=dtype)[:, None].requires_grad_() for t in zip(*values))
        coefficient = bhattacharyya_coefficient(mu, log_var, mu, log_var)
        gradients = torch.autograd.grad(coefficient.sum(), (mu, log_var))
        assert all(t.isfinite().all() for t in (coefficient, *gradients))
        assert (coefficient.diagonal() == 1).all() and coefficient.max() <= 1


# Half precision and autocast


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_half_precision_is_computed_in_float32(function, half):
    mu, log_var = (t.to(half) for t in torch.randn(2, 9, 3, generator=stream()))
    for batch in ((mu, log_var), (mu, log_var.float()), (mu.float(), log_var)):
        value = function(*batch)
        assert value.dtype == torch.float32
        assert torch.equal(value, function(*(t.float() for t in batch)))


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "sigmoid_gaussian"])
@pytest.mark.parametrize("method", METHODS)
def test_autocast_does_not_change_the_loss(method, likelihood):
    """Outputs as bfloat16, and autocast still on around the loss: the value and gradient of float32."""
    for options in ({}, {"reconstruction": "all"}):
        ours = make_objective(method, likelihood, **options).prepare(3, stream())
        x = torch.rand(8, 5, generator=stream(1))
        outputs = [t.bfloat16() for t in torch.randn(4, 8, 5, generator=stream(2))]
        outputs = [outputs[0], *(t[:, :3] for t in outputs[1:])]
        results = []
        for low in (True, False):
            inputs = [(t if low else t.float()).clone().requires_grad_() for t in outputs]
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
                terms = ours(x, *inputs, generator=stream(3))
            assert terms.loss.dtype == torch.float32
            gradients = torch.autograd.grad(terms.loss, inputs, allow_unused=True)
            assert all(g is None or g.dtype == t.dtype for g, t in zip(gradients, inputs))
            results.append((terms, [None if g is None else g.bfloat16() for g in gradients]))
        torch.testing.assert_close(*results, rtol=0, atol=0)


def test_a_network_trains_under_autocast():
    """A plain loop with a scaler, as users of mixed precision write it."""
    torch.manual_seed(0)
    encoder, decoder = torch.nn.Linear(8, 4), torch.nn.Linear(2, 8)
    optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 0.02)
    scaler, ours, losses = torch.amp.GradScaler("cpu"), make_objective("wiseale", "gaussian"), []
    x = torch.randn(64, 2) @ torch.randn(2, 8)
    for _ in range(60):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mu, log_var = encoder(x).chunk(2, 1)
            z = mu + (0.5 * log_var).exp() * torch.randn_like(mu)
            terms = ours(x, decoder(z), mu, log_var, z)
        optimiser.zero_grad()
        scaler.scale(terms.loss).backward()
        scaler.step(optimiser)
        scaler.update()
        losses.append(terms.loss.item())
    assert all(map(math.isfinite, losses)) and losses[-1] < losses[0] - 1


# Arrays, integers and shapes: one sentence


def refusals():
    """Name of a case -> (call, type of the error, part of its message)."""
    t, three = torch.zeros(8, 2), torch.zeros(8, 3)
    array, integers, x = t.numpy(), t.int(), torch.zeros(8, 5)
    tensor, floating = "must be a torch.Tensor, got ", "must be float32 or float64"
    cases = {}
    for f in FUNCTIONS:
        cases[f"{f.__name__} of arrays"] = (f, (t, array), TypeError, f"log_var {tensor}numpy.ndarray")
        cases[f"{f.__name__} of lists"] = (f, ([[0.0]], t), TypeError, f"mu {tensor}list")
        cases[f"{f.__name__} of integers"] = f, (integers, integers), ValueError, floating
        cases[f"{f.__name__} of a row"] = f, (t[0], t[0]), ValueError, floating
    for f, least in ((mmd_imq, "two"), (sinkhorn_divergence, "one")):
        more = f"needs {least} or more draws of equal d_z"
        cases[f"{f.__name__} of arrays"] = f, (array, t), TypeError, f"z {tensor}numpy.ndarray"
        cases[f"{f.__name__} of integers"] = f, (integers, integers), ValueError, more
        cases[f"{f.__name__} of vectors"] = f, (t[:, 0], t[:, 0]), ValueError, more
        cases[f"{f.__name__} of other widths"] = f, (t, three), ValueError, more
        cases[f"{f.__name__} of other dtypes"] = f, (t, t.double()), ValueError, more
        cases[f"{f.__name__} of nothing"] = f, (t[:0], t[:0]), ValueError, more
    cases["mmd of one row"] = mmd_imq, (t[:1], t), ValueError, "needs two or more draws"
    for n in (0, -1, 2.5, True, "20", None):
        cases[f"{n!r} iterations"] = sinkhorn_divergence, (t, t, 0.1, n), ValueError, "an integer >= 1, got"
        cases[f"{n!r} samples"] = kl_monte_carlo, (t, t, n), ValueError, "an integer >= 1, got"
    for epsilon in (0.0, -1.0, math.nan, math.inf, "0.1"):
        cases[f"epsilon {epsilon!r}"] = (
            sinkhorn_divergence,
            (t, t, epsilon),
            ValueError,
            "epsilon must be > 0",
        )
    for f, args in ((kl_monte_carlo, (t, t, 2, 0)), (cited.MixturePrior, (2, 3, 4, 0))):
        wrong = f, args, TypeError, "generator must be None or a torch.Generator"
        cases[f"a seed for the generator of {f.__name__}"] = wrong
    for scales in ((), (1.0, 0.0), (math.nan,)):
        cases[f"scales {scales}"] = mmd_imq, (t, t, scales), ValueError, "finite numbers > 0"
    for shape in ((3, 1, 2), (3, 8, 1), (8, 2), (0, 8, 2), (1, 3, 8, 2)):
        wrong = kl_of_draws, (t, t, torch.zeros(shape)), ValueError, f"(n, 8, 2), n >= 1; got {shape}"
        cases[f"noise of shape {shape}"] = wrong
    cases["noise as an array"] = kl_of_draws, (t, t, array[None]), TypeError, f"noise {tensor}"
    vae, wae = make_objective("aevb"), make_objective("wae_mmd")
    cases["z of another width"] = vae, (x, x, t, t, three), ValueError, "mu (8, 2), log_var (8, 2), z (8, 3)"
    cases["z of another length"] = vae, (x, x, t, t, t[:4]), ValueError, "z (4, 2)"
    cases["mu of another width"] = vae, (x, x, three, t, t), ValueError, "mu (8, 3)"
    cases["vectors"] = vae, (x, x, t[0], t[0], t[0]), ValueError, "need one shape (M, d_z)"
    cases["integers for z"] = vae, (x, x, t, t, integers), ValueError, "z torch.int32"
    for position, name in enumerate(("x", "decoded", "mu", "log_var", "z")):
        batch = [x, x, t, t, t]
        batch[position] = batch[position].numpy()
        cases[f"array for {name}"] = wae, batch, TypeError, f"{name} {tensor}numpy.ndarray"
        batch = [x, x, t, t, t]
        batch[position] = None
        cases[f"None for {name}"] = wae, batch, TypeError, f"{name} {tensor}NoneType"
    cases["one row"] = wae, (x[:1], x[:1], t[:1], t[:1], t[:1]), ValueError, "needs two or more draws"
    cases["integer data"] = vae, (x.int(), x, t, t, t), TypeError, "x must be a floating-point tensor"
    cases["integer logits"] = vae, (x, x.int(), t, t, t), TypeError, "decoded must be a floating-point tensor"
    cases["a list for a method"] = make_objective, (["wiseale"],), ValueError, "method must be one of"
    cases["a list for a likelihood"] = make_likelihood, (["gaussian"],), ValueError, "likelihood must be"
    cases["a number as option"] = (
        make_likelihood,
        ({"name": "gaussian", 1: 2},),
        ValueError,
        "likelihood must",
    )
    cases["a weight for a likelihood"] = make_objective, ("wiseale", "1/M"), ValueError, "likelihood must be"
    wrong_sets = torch.zeros(8, 2), torch.zeros(8, 2), three, three
    cases["sets of other widths"] = bhattacharyya_coefficient, wrong_sets, ValueError, "same dtype and d_z"
    cases["points of another width"] = aggregate_log_prob, (three, t, t), ValueError, "d_z = 2"
    cases["points as an array"] = aggregate_log_prob, (array, t, t), TypeError, f"z {tensor}numpy.ndarray"
    return cases


REFUSALS = refusals()


@pytest.mark.parametrize("case", REFUSALS)
def test_refused_with_one_sentence(case):
    function, args, kind, message = REFUSALS[case]
    with pytest.raises(kind) as caught:
        function(*args)
    text = str(caught.value)
    assert message in text and "\n" not in text and len(text) < 300


@pytest.mark.parametrize("beta", [10**400, -1.0, math.nan, "4"])
def test_impossible_weights_are_refused(beta):
    with pytest.raises(ValueError, match="beta must be"):
        make_objective("beta_vae", beta=beta)


def test_what_is_meant_is_accepted():
    t = torch.randn(8, 2, generator=stream())
    assert make_objective("wiseale", "gaussian").likelihood == make_likelihood("gaussian")
    assert make_objective("beta_vae", beta=np.float64(2)).weight == 2
    twice = (kl_monte_carlo(t, t, n, stream()) for n in (3, np.int64(3)))
    assert torch.equal(*twice)
    assert kl_of_draws(t, t, noise_like(t, 5)).shape == (5,)
    assert sinkhorn_divergence(t[:1], t, n_iterations=1).isfinite()


# What help says

DOCUMENTED = [
    pytest.param(function, id=f"{module.__name__.split('.')[-1]}.{name}")
    for module in (aggregate, pairs, reconstruction, objective, cited, loss)
    for name, function in sorted(vars(module).items())
    if inspect.isfunction(function) and function.__module__ == module.__name__ and name[0] != "_"
]


@pytest.mark.parametrize("function", DOCUMENTED)
def test_help_has_the_comments_of_the_signature(function):
    """Every comment beside a parameter is in the docstring."""
    source = inspect.getsource(function)
    signature = source[: source.index('"""' if '"""' in source else '    "')]
    comments = [line.split("  # ")[1] for line in signature.splitlines()[1:] if "  # " in line]
    assert all(
        f"    {comment}" in function.__doc__ or f": {comment}" in function.__doc__ for comment in comments
    )
    assert ("Parameters:" in function.__doc__ or "Returns:" in function.__doc__) == bool(comments)


def test_help_has_shapes_units_methods_and_an_example():
    assert (
        "mu: (M, d_z) posterior means" in kl_upper_bound.__doc__ and "0-dim, nats" in kl_upper_bound.__doc__
    )
    text = make_objective.__doc__
    assert 'objective = make_objective("wiseale"' in text and "likelihood: object, name, or" in text
    for name, method in METHODS.items():
        if method.__module__.startswith("wiseale_nb."):
            assert f"{name} ({method.label})" in text
            assert all(
                f"{option} = {default!r}" in text for option, default, _ in loss.method_options(method)
            )
    assert "n_samples: draws from each posterior" in objective.WiSEALE.__doc__
    assert "draws: (n_draws, M, d_z) standard normal" in objective.Objective.forward.__doc__
