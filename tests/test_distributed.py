"""Several processes share a batch: the gradient, the training and the refusals are those of one process."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, environment
from torch.testing import assert_close

from wiseale_nb import pairs
from wiseale_nb.aggregate import kl_upper_bound
from wiseale_nb.distributed import from_first, gather_posteriors, own_rows, process_mean


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """A function that lets n processes do something of parallel.py; returns what each of them got."""
    folder = tmp_path_factory.mktemp("parallel")
    words = [sys.executable, str(Path(__file__).with_name("parallel.py")), str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, env=environment(ROOT), **pipes) as server:

        def call(n, name, **arguments):
            for file in folder.glob("*.pt"):
                file.unlink()
            print(json.dumps([n, name, arguments]), file=server.stdin, flush=True)
            assert server.stdout.readline() == "done\n"
            return [torch.load(folder / f"{rank}.pt") for rank in range(n)]

        yield call


METHODS = {
    "VAE": ("aevb", {}),
    "beta-VAE, 1/M": ("beta_vae", {"beta": "1/M"}),
    "WiSE-ALE, 1/M": ("wiseale", {}),
    **{
        bound: ("wiseale", {"weight": 1.0, "bound": bound})
        for bound in ("upper", "joint", "pairwise", "best")
    },
    "moment-matched": ("wiseale", {"weight": 1.0, "bound": "moment_matched"}),
    "Monte Carlo": ("wiseale", {"weight": 1.0, "bound": "monte_carlo", "n_samples": 3}),
    "MMD": ("wae_mmd", {}),
    "Sinkhorn": ("sinkhorn_ae", {}),
    "a method of one's own": ("spread", {}),
}
PER_SAMPLE = "VAE", "beta-VAE, 1/M"


@pytest.fixture(scope="module")
def single(together):
    """Gradient and terms of each method in one process."""
    return together(1, "steps", methods=METHODS)[0]


@pytest.fixture(scope="module", params=[2, 4])
def several(together, request):
    """The same, of each of several processes."""
    return together(request.param, "steps", methods=METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_gradient_and_terms_are_those_of_one_process(name, single, several):
    for rank in several:
        assert_close(rank[name][0], single[name][0], rtol=1e-10, atol=1e-12)
        own = 1 if name in PER_SAMPLE else 3  # their prior and divergence are those of the part
        assert_close(rank[name][1][:own], single[name][1][:own], rtol=1e-12, atol=1e-12)


def test_a_batch_can_be_that_of_some_processes(single, together):
    """Two groups, each with a batch of its own; one of them is without rank 0."""
    for rank in together(4, "steps", methods=METHODS, team=2):
        for name in METHODS:
            assert_close(rank[name][0], single[name][0], rtol=1e-10, atol=1e-12)


def test_without_gathering_it_is_another_objective(single, together):
    naive = together(2, "steps", methods=METHODS, alone=True)[0]
    for name in METHODS:
        error = (naive[name][0] - single[name][0]).norm() / single[name][0].norm()
        assert (error < 1e-12) == (name == "VAE"), name  # beta = 1/M is one over the part


REFUSED = {
    "WAE-GAN": ("wae_gan", {}, "trains a network of its own"),
    "AAE": ("aae", {}, "trains a network of its own"),
    "GM-VAE": ("gm_vae", {}, "trains a network of its own"),
    "Eq. 15": ("wiseale", {"reconstruction": "all"}, "every sample of a batch with every code"),
    "Eq. 16": ("aevb", {"reconstruction": "log_mean"}, "every sample of a batch with every code"),
}


def test_what_is_not_exact_is_refused(together):
    for rank in together(2, "steps", methods={name: case[:2] for name, case in REFUSED.items()}):
        for name, (_, _, reason) in REFUSED.items():
            assert reason in rank[name] and "one process" in rank[name]


def test_gathering(together):
    """Rows in the order of ranks, each kind of number kept, and the gradients of all processes added."""
    for rank, (a, b, gradient) in enumerate(together(2, "gather", sizes=[3, 3])):
        assert a.dtype == torch.float32 and b.dtype == torch.float64
        assert a[:, 0].tolist() == [0, 0, 0, 1, 1, 1] and b[:, 0].tolist() == [0.5] * 3 + [1.5] * 3
        assert gradient[:, 0].tolist() == [3.0 * (3 * rank + i) for i in range(3)]  # weights 1 and 2


def test_parts_of_different_sizes_are_refused_by_all(together):
    for message in together(2, "gather", sizes=[3, 2]):
        assert "ranks 0, 1, ... are 3, 2" in message and "drop_last" in message


@pytest.fixture(scope="module")
def trained(together):
    """Two epochs of the MNIST network by one process."""
    return together(1, "train", epochs=2)[0]


@pytest.mark.parametrize("n", [2, 4])
def test_training_is_that_of_one_process(n, trained, together):
    ranks = together(n, "train", epochs=2)
    for weights, history, _ in ranks:
        assert_close(weights, trained[0], rtol=0, atol=1e-10)
        assert_close(history, trained[1], rtol=1e-10, atol=1e-10)
    assert ["epochs" in bar for *_, bar in ranks] == [True] + [False] * (n - 1)


def test_a_history_is_that_of_the_whole_batch(together):
    """The VAE minimises nothing that looks across the batch, but its history has Eq. 21."""
    expected, several = (together(n, "train", method="aevb", network="small") for n in (1, 2))
    for weights, history, _ in several:
        assert_close(weights, expected[0][0], rtol=0, atol=1e-10)
        assert_close(history, expected[0][1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("network", ["images", "signals"])
def test_batch_normalisation_sees_the_whole_batch(network, together):
    """Weights, running statistics and evaluation are those of one process."""
    expected, *several = (together(n, "train", network=network) for n in (1, 2, 4))
    for weights, history, _ in sum(several, []):
        assert_close(weights, expected[0][0], rtol=0, atol=1e-10)
        assert_close(history, expected[0][1], rtol=1e-10, atol=1e-10)


def test_batch_normalisation_of_one_process_is_refused(together):
    for message in together(2, "unshared"):
        assert "batch normalisation sees the samples of one process only" in message


def test_another_number_of_processes_continues(trained, together, tmp_path):
    together(2, "train", epochs=1, folder=str(tmp_path))
    assert [path.name[:11] for path in tmp_path.iterdir()] == ["epoch000001"]
    for weights, history, _ in together(4, "train", epochs=2, folder=str(tmp_path)):
        assert_close(weights, trained[0], rtol=0, atol=1e-10)
        assert_close(history, trained[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"network": "dropout"}, "draws random numbers"),
        ({"network": "own norm"}, "OwnNorm has a forward of its own"),
        ({"size": 15}, "a batch of 15 cannot be divided among 2"),
        ({"seed": None}, "differ in seeds"),
        ({"method": "aae"}, "trains a network of its own"),
    ],
)
def test_what_training_refuses(options, reason, together):
    for message in together(2, "train", **{"network": "small"} | options):
        assert reason in message


def test_run_folders_are_the_work_of_one_process(together, tmp_path):
    for message in together(2, "run_folders", folder=str(tmp_path / "runs")):
        assert "train runs without torchrun" in message
    assert not (tmp_path / "runs").exists()


FORMS = {  # how the pairs are computed -> type of number, and from how many
    "all at once": (torch.float64, math.inf, math.inf),
    "tiles": (torch.float64, 0, math.inf),
    "loops": (torch.float32, 0, 0),
}


def with_gradient(value, *inputs):
    return [value.detach(), *torch.autograd.grad(value, inputs)]


@pytest.mark.parametrize("form", FORMS)
def test_rows_add_up(form, monkeypatch):
    """The mean of the shares is Eq. 21, with its gradient, in any form and where numbers are extreme."""
    dtype, most, least = FORMS[form]
    generator = torch.Generator().manual_seed(0)
    for scale, d_z in ((1.0, 3), (1e3, 2), (0.0, 9)):
        spread = torch.randn(48, d_z, generator=generator) * (1 if scale else 20)
        exact = mu, log_var = [
            t.double().requires_grad_() for t in (scale * torch.randn_like(spread), spread)
        ]
        monkeypatch.setattr(pairs, "MAX_DENSE", math.inf)
        expected = with_gradient(kl_upper_bound(mu, log_var), *exact)
        monkeypatch.setattr(pairs, "MAX_DENSE", most)
        monkeypatch.setattr(pairs, "MIN_COMPILED", least)
        mu, log_var = inputs = [t.detach().to(dtype).requires_grad_() for t in exact]
        shares = [kl_upper_bound(mu, log_var, slice(k, k + 12)) for k in range(0, 48, 12)]
        room = 1e-12 if dtype == torch.float64 else 1e-5
        for a, b in zip(with_gradient(sum(shares) / 4, *inputs), expected, strict=True):
            assert_close(a.double(), b, rtol=room, atol=room * b.abs().max().item())


def test_alone_nothing_is_done():
    a = torch.ones(3, 2)
    assert gather_posteriors(a)[0] is from_first(a) is process_mean(a) is a
    assert own_rows(5) == slice(0, 5)
