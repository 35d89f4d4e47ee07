"""The compiled step: the same training, its checkpoints, and what happens without a compiler."""

import copy
import os
from unittest.mock import patch

import pytest
import torch
from torch import nn

from wiseale_nb import compiling
from wiseale_nb.checkpoint import CheckpointError
from wiseale_nb.core import random_stream
from wiseale_nb.loss import make_objective
from wiseale_nb.models import AutoEncoder, Encoder, initialise
from wiseale_nb.training import fit, fit_stack

pytestmark = pytest.mark.nightly

X = torch.rand(320, 8, generator=random_stream(0, "data"))
HOW = {"batch_size": 64, "learning_rate": 1e-2, "device": "cpu", "progress": False}
GOAL = make_objective("wiseale", likelihood="gaussian")


def network(seed=0):
    """A small autoencoder, its first layer frozen."""
    encoder = Encoder(nn.Sequential(nn.Linear(8, 16), nn.ReLU()), nn.Linear(16, 2), nn.Linear(16, 2))
    net = initialise(AutoEncoder((8,), 2, encoder, nn.Linear(2, 8)), random_stream(seed, "init"))
    net.encoder.features[0].requires_grad_(False)
    return net


def train(epochs=4, seed=0, goal=GOAL, **options):
    """History, weights and network after some epochs."""
    net = network(seed)
    history = fit(net, goal, X, X[:64], seed=seed, epochs=epochs, **HOW | options)
    return history.drop(columns="seconds"), [p.detach().clone() for p in net.parameters()]


@pytest.fixture(scope="module")
def compiled():
    return train(compiled=True, milestones=(2,))


def close(found, expected):
    torch.testing.assert_close(
        *(torch.tensor(h.drop(columns="split").values) for h in (found[0], expected[0]))
    )
    torch.testing.assert_close(found[1], expected[1], rtol=1e-3, atol=1e-5)


def test_training_is_the_same(compiled):
    """With a schedule and a frozen layer; and it is the compiled step that was used."""
    recorded = train(milestones=(2,))
    close(compiled, recorded)
    assert any(not torch.equal(*pair) for pair in zip(compiled[1], recorded[1]))
    assert torch.equal(compiled[1][0], network().encoder.features[0].weight)
    assert not torch.allclose(compiled[1][2], train()[1][2], rtol=0, atol=1e-4)  # the schedule counts


def test_interrupted_and_continued_the_bits_are_the_same(compiled, tmp_path):
    train(2, compiled=True, milestones=(2,), checkpoint=tmp_path)
    history, weights = train(4, compiled=True, milestones=(2,), checkpoint=tmp_path)
    assert history.equals(compiled[0]) and all(map(torch.equal, weights, compiled[1]))


def test_a_compiled_run_is_not_continued_by_recorded_steps(compiled, tmp_path):
    train(2, compiled=True, checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match="compiled"):
        train(4, checkpoint=tmp_path)
    with unusable(), pytest.warns(UserWarning, match="not compiled: no compiler"):
        with pytest.raises(CheckpointError, match="compiled was True, is False"):
            train(4, compiled=True, checkpoint=tmp_path)


def test_seeds_share_the_file(compiled):
    nets, written = [network(seed) for seed in (0, 1)], []
    with patch.object(compiling, "write_package", written.append):
        histories = fit_stack(
            nets, GOAL, [X, X], seeds=[0, 1], epochs=4, compiled=True, milestones=(2,), **HOW
        )
    assert not written
    assert (
        histories[0]
        .drop(columns="seconds")
        .equals(compiled[0][compiled[0].split == "train"].reset_index(drop=True))
    )
    close(
        (histories[1].drop(columns="seconds"), list(nets[1].parameters())),
        without_held_out(train(seed=1, milestones=(2,))),
    )


def without_held_out(result):
    history, weights = result
    return history[history.split == "train"].reset_index(drop=True), weights


def unusable(error=None):
    """No compiled step can be had."""
    return patch.object(compiling, "load_package", side_effect=error or RuntimeError("no compiler"))


@pytest.mark.parametrize("wrong", [RuntimeError("no compiler"), OSError("disk full"), None], ids=str)
def test_without_a_compiled_step_training_goes_on(compiled, wrong):
    """It says why; also if the compiled step computes something else."""
    idle = patch.object(compiling, "load_package", return_value=lambda tensors: [torch.zeros(6)])
    with (
        unusable(wrong) if wrong else idle,
        pytest.warns(UserWarning, match=str(wrong) if wrong else "close"),
    ):
        history, weights = train(2, compiled=True)
    expected = train(2)
    assert history.equals(expected[0]) and all(map(torch.equal, weights, expected[1]))


def test_names_tell_all_that_matters(monkeypatch):
    """Steps that differ in operations, constants, shapes, groups or machine have files of their own."""
    step = torch.fx.symbolic_trace(lambda parameters, x, noise: (parameters, x * 2))
    other = torch.fx.symbolic_trace(lambda parameters, x, noise: (parameters, x * 3))
    held = copy.deepcopy(step)
    held.register_buffer("constant", torch.ones(2))
    changed = copy.deepcopy(held)
    changed.constant[0] = 2
    x, adam = torch.zeros(4), ((0.9, 0.999), 1e-8)
    plain = compiling.StepAndAdam(step, 1, [0], *adam)
    wholes = [plain, *(compiling.StepAndAdam(s, 1, [0], *adam) for s in (other, held, changed))]
    wholes += [compiling.StepAndAdam(step, 2, [0], *adam), compiling.StepAndAdam(step, 1, [1], *adam)]
    wholes.append(compiling.StepAndAdam(step, 1, [0], (0.5, 0.999), 1e-8))
    names = [compiling.package_name(whole, [x]) for whole in wholes]
    names += [
        compiling.package_name(plain, [t]) for t in (torch.zeros(5), x.double(), torch.zeros(4, 2)[:, 0])
    ]
    monkeypatch.setattr(compiling, "instructions", lambda: "another processor")
    names.append(compiling.package_name(plain, [x]))
    assert len(set(names)) == len(names)


def test_the_folder_is_the_users_cache(tmp_path):
    with patch.dict(os.environ, XDG_CACHE_HOME=str(tmp_path)):
        assert compiling.package_folder().is_relative_to(tmp_path)
    with patch.dict(os.environ, XDG_CACHE_HOME="", HOME=str(tmp_path)):
        assert compiling.package_folder() == tmp_path / ".cache/wiseale_nb/compiled"
