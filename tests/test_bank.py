"""A batch against the posteriors of all samples: Eq. 21 of the data set, its gradient, stale copies."""

import math
from unittest.mock import patch

import pandas as pd
import pytest
import torch
from conftest import call
from torch.testing import assert_close

from wiseale_nb import pairs
from wiseale_nb.aggregate import kl_upper_bound, log_overlap, sample_kl
from wiseale_nb.bank import PosteriorBank, weighted_overlaps


def posteriors(n, d_z=2, seed=0, level=-3.0):
    generator = torch.Generator().manual_seed(seed)
    mu, noise = torch.randn(2, n, d_z, generator=generator, dtype=torch.float64)
    return mu, level + 0.5 * noise


def filled(mu, log_var):
    bank = PosteriorBank(*mu.shape).to(mu)
    bank.refresh(mu, log_var)
    return bank


def results(function, *inputs):
    inputs = [t.clone().requires_grad_() for t in inputs]
    value = function(*inputs)
    return value.detach(), *torch.autograd.grad(value, inputs)


def of_batch(bank, indices, mu, log_var):
    return results(lambda *q: bank.kl_upper_bound(indices, *q), mu[indices], log_var[indices])


# Value and gradient


@pytest.mark.parametrize(
    "n, d_z, level", [(1, 1, -3.0), (2, 3, 0.0), (50, 2, -3.0), (300, 5, -1.0), (50, 2, -40.0)]
)
def test_all_samples_as_one_batch_are_eq_21(n, d_z, level):
    """Whatever the bank had before, and in any order."""
    mu, log_var = posteriors(n, d_z, level=level)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    found = of_batch(filled(*posteriors(n, d_z, seed=2)), order, mu, log_var)
    value, *gradients = results(kl_upper_bound, mu, log_var)
    assert_close(found, (value, *(g[order] for g in gradients)), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("m", [1, 5, 20])
def test_batches_of_an_epoch_have_value_and_gradient_of_the_data_set(m):
    mu, log_var = posteriors(60)
    bank, (value, *gradients) = filled(mu, log_var), results(kl_upper_bound, mu, log_var)
    values = []
    for indices in torch.randperm(60, generator=torch.Generator().manual_seed(1)).split(m):
        found = of_batch(bank, indices, mu, log_var)
        assert_close(found[1:], tuple(60 / m * g[indices] for g in gradients), rtol=1e-11, atol=1e-12)
        values.append(found[0])
    assert_close(torch.stack(values).mean(), value)


def test_a_posterior_counts_with_its_present_value_and_one_in_n():
    """Posteriors far apart: only the pair of each with itself is left, and no copy matters."""
    n, d_z = 40, 2
    mu, log_var = 1e3 * torch.arange(n, dtype=torch.float64)[:, None].expand(n, d_z), posteriors(n)[1]
    bank, indices = filled(mu - 500, log_var + 1), torch.arange(0, n, 7)
    value, _, gradient = of_batch(bank, indices, mu, log_var)
    constant = 0.5 * d_z * math.log(math.e / 2) - math.log(n)
    assert_close(value, sample_kl(mu[indices], log_var[indices]).mean() + constant, rtol=1e-12, atol=0)
    assert_close(gradient, 0.5 * (log_var[indices].exp() - 1) / len(indices))


def test_stale_copies_have_the_derivative_of_their_own_function():
    """Both sides of an overlap, with copies and sums of rows constant; by autograd on plain operations."""
    mu, log_var = posteriors(30)
    bank, indices = filled(*posteriors(30, seed=2)), torch.arange(4, 12)
    _, *found = of_batch(bank, indices, mu, log_var)

    def plain(m, v):
        both = torch.cat([m, bank.mu]), torch.cat([v, bank.log_var])
        overlap = log_overlap(*both)[: len(m), len(m) :]
        own = overlap.logsumexp(1) - math.log(30)
        others = (overlap - bank.log_mean).exp().mean(1)
        return (own + others + 0.5 * (m.square() + v.exp()).sum(1)).mean()

    assert_close(tuple(found), results(plain, mu[indices], log_var[indices])[1:], rtol=1e-11, atol=1e-12)


def test_the_bank_keeps_what_it_was_shown():
    mu, log_var = posteriors(30)
    bank, indices = filled(*posteriors(30, seed=2)), torch.tensor([7, 3, 29])
    before = {name: t.clone() for name, t in bank.state_dict().items()}
    assert (bank.staleness(indices, mu[indices], log_var[indices]) > 0).all()
    inputs = mu[indices].clone().requires_grad_(), log_var[indices].clone().requires_grad_()
    bank.kl_upper_bound(indices, *inputs)
    assert torch.equal(bank.mu[indices], mu[indices]) and torch.equal(bank.log_var[indices], log_var[indices])
    assert not any(t.requires_grad for t in bank.buffers())
    assert_close(bank.staleness(indices, mu[indices], log_var[indices]), torch.zeros(3, dtype=torch.float64))
    rest = torch.ones(30, dtype=torch.bool)
    rest[indices] = False
    assert all(torch.equal(t[rest], before[name][rest]) for name, t in bank.state_dict().items())
    assert not torch.equal(bank.log_mean[indices], before["log_mean"][indices])


def test_staleness_is_a_kl():
    mu, log_var = posteriors(30)
    old = posteriors(30, seed=2)
    normal = [torch.distributions.Normal(m, (0.5 * v).exp()) for m, v in ((mu, log_var), old)]
    expected = torch.distributions.kl_divergence(*normal).sum(1)
    assert_close(filled(*old).staleness(torch.arange(30), mu, log_var), expected)


def test_free_posteriors_follow_the_aggregate_of_all():
    """Steps on batches of 16 against the bank lower Eq. 21 of all 128; steps on the batches alone do less."""
    ends = {}
    for kind in ("bank", "batch"):
        mu, log_var = (t.requires_grad_() for t in posteriors(128, level=-1.0))
        bank, optimiser = filled(mu.detach(), log_var.detach()), torch.optim.Adam([mu, log_var], lr=0.03)
        generator = torch.Generator().manual_seed(0)
        for _ in range(60):
            optimiser.zero_grad()
            for indices in torch.randperm(128, generator=generator).split(16):
                batch = mu[indices], log_var[indices]
                term = bank.kl_upper_bound(indices, *batch) if kind == "bank" else kl_upper_bound(*batch)
                (term / 8).backward()
            optimiser.step()
        ends[kind] = kl_upper_bound(mu, log_var).item()
    assert ends["bank"] < 0.7 * ends["batch"]


# Weighted overlaps and forms


@pytest.mark.parametrize("dtype, room", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 20.0])
def test_weighted_overlaps(dtype, room, scale):
    mu, log_var = (t.to(dtype) for t in posteriors(50, 3))
    weight = scale * torch.randn(50, generator=torch.Generator().manual_seed(1)).to(dtype)
    plain = (log_overlap(mu, log_var)[:9] + weight).logsumexp(1)
    assert_close(weighted_overlaps(mu[:9], log_var[:9], (mu, log_var), weight), plain, rtol=room, atol=room)


def test_loops_and_tiles_agree():
    pytest.importorskip("wiseale_nb.loops")
    mu, log_var = (t.float() for t in posteriors(2000))
    indices, found = torch.arange(0, 2000, 31), []
    for least in (0, math.inf):
        with patch.object(pairs, "MIN_COMPILED", least):
            found.append(of_batch(filled(mu, log_var), indices, mu, log_var))
    assert_close(*found, rtol=1e-4, atol=1e-6)
    exact = of_batch(filled(mu.double(), log_var.double()), indices, mu.double(), log_var.double())
    assert_close(found[0], tuple(t.float() for t in exact), rtol=1e-3, atol=1e-5)


def test_half_precision():
    mu, log_var = (t.float() for t in posteriors(20))
    bank, indices = filled(mu, log_var), torch.arange(8)
    half = [t[:8].bfloat16() for t in (mu, log_var)]
    assert bank.kl_upper_bound(indices, *half).dtype == torch.float32


def test_posteriors_narrower_than_float32_are_infinite_as_in_eq_21():
    mu, log_var = (t.float() for t in posteriors(20))
    log_var = torch.full_like(log_var, -90.0)
    assert (
        filled(mu, log_var).kl_upper_bound(torch.arange(20), mu, log_var)
        == kl_upper_bound(mu, log_var)
        == math.inf
    )


# State and errors


def test_a_bank_that_is_loaded_goes_on_with_the_same_bits(tmp_path):
    mu, log_var = posteriors(30)
    bank = filled(*posteriors(30, seed=2))
    bank.kl_upper_bound(torch.arange(9), mu[:9], log_var[:9])
    torch.save(bank.state_dict(), tmp_path / "bank.pt")
    other = PosteriorBank(30, 2).double()
    other.load_state_dict(torch.load(tmp_path / "bank.pt"))
    indices = torch.arange(5, 20)
    assert all(map(torch.equal, *(of_batch(b, indices, mu, log_var) for b in (bank, other))))
    with pytest.raises(RuntimeError, match="size mismatch"):
        PosteriorBank(31, 2).load_state_dict(bank.state_dict())


ERRORS = {
    "from 0 to 29, for 30 samples; got 0 to 30": [0, 30],
    "from 0 to 29, for 30 samples; got -1 to 4": [-1, 4],
    "5 occurs 3 times": [5, 1, 5, 5],
    r"int64 of shape \(M,\), M >= 1": [],
}


@pytest.mark.parametrize("message", ERRORS)
def test_wrong_indices(message):
    bank, indices = filled(*posteriors(30)), torch.tensor(ERRORS[message], dtype=torch.int64)
    batch = posteriors(len(indices))
    for method in (bank.kl_upper_bound, bank.staleness):
        with pytest.raises(ValueError, match=message):
            method(indices, *batch)
    assert torch.equal(bank.mu, posteriors(30)[0])


def test_wrong_tensors():
    bank, indices, (mu, log_var) = filled(*posteriors(30)), torch.arange(3), posteriors(3)
    for wrong in (mu[:2], mu[:, :1], mu.float(), mu[0]):
        with pytest.raises(
            ValueError, match=r"must be torch.float64, as the bank is, of shape \(M, d_z\) = \(3, 2\)"
        ):
            bank.kl_upper_bound(indices, wrong, log_var)
    for number in (math.nan, math.inf):
        with pytest.raises(ValueError, match="must be finite"):
            bank.kl_upper_bound(indices, mu, torch.full_like(log_var, number))
    with pytest.raises(ValueError, match="indices must be int64"):
        bank.kl_upper_bound(indices.double(), mu, log_var)
    with pytest.raises(TypeError, match="indices must be a torch.Tensor"):
        bank.kl_upper_bound([0, 1, 2], mu, log_var)
    with pytest.raises(ValueError, match="the bank is empty"):
        PosteriorBank(30, 2).double().kl_upper_bound(indices, mu, log_var)
    for n, d_z in ((0, 2), (30, 0), (2.5, 2)):
        with pytest.raises(ValueError, match="must be an integer >= 1"):
            PosteriorBank(n, d_z)
    assert bank.mu.isfinite().all() and bank.log_var.isfinite().all()


# The study


@pytest.mark.nightly
def test_study(tmp_path):
    """A row for each point and seed; a second call trains nothing."""
    words = ("-p", "size", "smoke", "-p", "redraw", "false", "-p", "out", tmp_path)
    done = call("wiseale-run", "--quiet", "nbs/47_bank.ipynb", tmp_path / "out.ipynb", *words)
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / f"bank_smoke.{form}").stat().st_size > 5_000 for form in ("pdf", "png", "svg"))
    table = pd.read_csv(tmp_path / "data" / "bank_smoke.csv")
    keys = ["method", "weight", "N", "M", "seed"]
    assert len(table) == len(table[keys].drop_duplicates()) and set(table["seed"]) == {0, 1}
    assert table[["overlap", "ascribed", "coverage"]].stack().between(0, 1.001).all()
    assert table["age"].notna().tolist() == table["method"].str.startswith("bank").tolist()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("bank_smoke/*/*.csv")}
    assert len(kept) == len(table) // 2
    done = call("wiseale-run", "--quiet", "nbs/47_bank.ipynb", tmp_path / "out.ipynb", *words)
    assert done.returncode == 0 and all(path.stat().st_mtime_ns == at for path, at in kept.items())


@pytest.mark.nightly
def test_study_refuses_sizes(tmp_path):
    words = ("-p", "size", "smoke", "-p", "out", tmp_path, "-p", "redraw", "false")
    for changes, message in (("{'n': 32}", "at least M = 64"), ("{'weights': [2.0]}", "must contain 1.0")):
        done = call(
            "wiseale-run", "nbs/47_bank.ipynb", tmp_path / "out.ipynb", *words, "-p", "changes", changes
        )
        assert done.returncode == 1 and message in done.stderr
