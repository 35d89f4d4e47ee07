"""What a run depends on besides weights: random numbers from outside, attributes, code, files in the way."""

import os
import random
import subprocess
import sys
from pathlib import Path
import warnings
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from wiseale_nb import recipe
from wiseale_nb.algorithm import TERMS, plain_fit, prepare_objective
from wiseale_nb.checkpoint import CheckpointError
from wiseale_nb.config import resolve_settings
from wiseale_nb.core import atomic_write, digest, random_stream, temporary_file
from wiseale_nb.fingerprint import code_fingerprint
from wiseale_nb.loss import make_objective
from wiseale_nb.models import initialise, reparameterize
from wiseale_nb.objective import Objective
from wiseale_nb.training import fit, fit_stack

X = torch.rand(192, 8, generator=torch.Generator().manual_seed(0))
GOAL = make_objective("aevb", "gaussian")
HOW = {"batch_size": 64, "learning_rate": 1e-2, "device": "cpu", "progress": False, "fast": False}


class Net(torch.nn.Module):
    """An autoencoder for eight numbers with a place for surprises."""

    d_z = 2

    def __init__(self, surprise=lambda net, h: h, seed=0, width=16, rate=0.5):
        super().__init__()
        self.first, self.drop = torch.nn.Linear(8, width), torch.nn.Dropout(rate)
        self.heads, self.decoder = torch.nn.Linear(width, 4), torch.nn.Linear(2, 8)
        self.surprise, self.calls, self.mean, self.seen = surprise, 0, None, []
        self.own, self.pythons = torch.Generator(), random.Random(0)
        if seed is not None:
            initialise(self, random_stream(seed, "init"))

    def forward(self, x, noise):
        mu, log_var = self.heads(self.surprise(self, self.first(x).tanh())).chunk(2, 1)
        z = reparameterize(mu, log_var, noise)
        return self.decoder(z), mu, log_var, z


def result(nets, histories):
    """A digest of weights and terms."""
    tables = [torch.tensor(table[list(TERMS)].values) for table in histories]
    return digest([t for net in nets for t in net.state_dict().values()] + tables)


def run(surprise, epochs=4, seeds=(0,), **options):
    """Train from some global state, which must be the same afterwards."""
    nets = [Net(surprise, seed) for seed in seeds]
    torch.rand(3), random.random(), np.random.rand()
    before = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())
    how = HOW | {"seeds": list(seeds), "epochs": epochs} | options
    histories = fit_stack(nets, GOAL, [X] * len(nets), [X[:64]] * len(nets), **how)
    assert before[0].equal(torch.get_rng_state()) and before[1] == random.getstate()
    assert before[2] == repr(np.random.get_state())
    return result(nets, histories)


# Random numbers from outside the run's streams


def count(net, h):
    net.calls += 1
    return h * min(1, net.calls / 12)


def follow(net, h):
    net.mean = h.detach().mean(0) * 0.1 + 0.9 * (0 if net.mean is None else net.mean)
    return h - net.mean


def note(net, h):
    net.seen.append(float(h.detach().mean()))
    return h * (1 + len(net.seen) / 100)


SURPRISES = {
    "nn.Dropout": lambda net, h: net.drop(h),
    "F.dropout": lambda net, h: F.dropout(h, 0.5, net.training),
    "noise, in evaluation too": lambda net, h: h + torch.randn_like(h),
    "NumPy": lambda net, h: h * float(np.random.standard_normal()),
    "Python": lambda net, h: h * random.gauss(1, 0.1),
    "a generator of its own": lambda net, h: h * torch.rand(1, generator=net.own),
    "a counter": count,
    "a running mean": follow,
    "a list": note,
}
GLOBAL = [name for name in SURPRISES if not name.startswith("a ")]


@pytest.mark.parametrize("name", SURPRISES)
def test_two_and_two_epochs_are_four(name, tmp_path):
    """Whatever the network draws or remembers, on the plain path and on the one that tries to record."""
    for fast in (True, False):
        whole = run(SURPRISES[name], fast=fast)
        run(SURPRISES[name], epochs=2, fast=fast, checkpoint=tmp_path / str(fast))
        assert run(SURPRISES[name], fast=fast, checkpoint=tmp_path / str(fast)) == whole


@pytest.mark.parametrize("name", GLOBAL)
def test_one_seed_one_result(name):
    """The global state of the caller does not matter; another seed does; seeds in turns are as each alone."""
    one = run(SURPRISES[name], 2)
    assert run(SURPRISES[name], 2) == one != run(SURPRISES[name], 2, seeds=(1,))
    nets = [Net(SURPRISES[name], seed) for seed in (1, 0)]
    with warnings.catch_warnings(action="ignore"):
        histories = fit_stack(nets, GOAL, [X] * 2, [X[:64]] * 2, seeds=[1, 0], epochs=2, together=True, **HOW)
    assert result(nets[1:], histories[1:]) == one
    net = Net(SURPRISES[name])
    plain = plain_fit(net, GOAL, X, X[:64], epochs=2, batch_size=64, learning_rate=1e-2)
    assert result([net], [plain]) == run(SURPRISES[name], 2, fast=False)


def test_in_turns_two_and_two_epochs_are_four(tmp_path):
    two = {"seeds": (0, 1), "together": False}
    run(SURPRISES["nn.Dropout"], 2, checkpoint=tmp_path, **two)
    assert run(SURPRISES["nn.Dropout"], checkpoint=tmp_path, **two) == run(SURPRISES["nn.Dropout"], **two)


def test_an_objective_whose_network_is_not_seeded(tmp_path):
    """Its initial weights come from the run's seed, not from what the caller drew before."""

    class Own(Objective):
        name = "own"

        def prepare(self, d_z, generator=None):
            self.scale = torch.nn.Linear(d_z, 1)
            return self

        def divergence(self, mu, log_var, z, draws):
            return self.scale(mu).square().mean()

    weights = []
    with patch("wiseale_nb.algorithm.is_prepared", lambda objective: False):
        for _ in range(2):
            torch.rand(1)
            weights.append(prepare_objective(Own(), 2, 0).scale.weight)
    assert torch.equal(*weights)


def draws_python(net, h):
    return h * net.pythons.random()


def test_what_a_checkpoint_cannot_hold_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="seed0/model/: training changes pythons .Random., which a"):
        run(draws_python, checkpoint=tmp_path)
    assert not list(tmp_path.iterdir())
    with patch.object(Net, "get_extra_state", lambda net: {"a": 1}, create=True):
        with pytest.raises(CheckpointError, match="_extra_state is no tensor"):
            run(draws_python, checkpoint=tmp_path)


def transpose(net):
    net.first.weight = torch.nn.Parameter(net.first.weight.detach().t().contiguous().t())
    return net


def test_weights_that_lie_in_another_order(tmp_path):
    """The fused Adam pairs numbers by their place in memory, and the file has them in the usual order."""
    results = []
    for folder, epochs in ((None, 4), (tmp_path, 2), (tmp_path, 4)):
        net = transpose(Net())
        history = fit(net, GOAL, X, epochs=epochs, checkpoint=folder, **HOW | {"fast": True})
        results.append(result([net], [history]))
    assert results[0] == results[2]


# Which run is it?


def test_initial_weights_that_nobody_seeded(tmp_path):
    first = Net(seed=None)
    fit(first, GOAL, X, epochs=2, checkpoint=tmp_path, **HOW)
    second, expected = Net(seed=None), Net()
    assert not torch.equal(first.heads.weight, second.heads.weight)
    with pytest.warns(
        UserWarning, match="goes on with the weights of .* call torch.manual_seed before"
    ) as told:
        history = fit(second, GOAL, X, epochs=3, checkpoint=tmp_path, **HOW)
    assert len(told) == 1 and len(history) == 3
    with warnings.catch_warnings(action="error"):
        expected.load_state_dict(second.state_dict())
    for wrong, message in (
        (Net(width=8), "first.weight was float32 .16, 8., is float32 .8, 8."),
        (Net(rate=0.2), "p was 0.5, is 0.2"),
    ):
        with pytest.raises(CheckpointError, match=message) as error:
            fit(wrong, GOAL, X, epochs=3, checkpoint=tmp_path, **HOW)
        assert "\n" not in str(error.value)


def test_numbers_of_numpy_are_the_same_settings(tmp_path):
    fit(Net(), GOAL, X, epochs=1, checkpoint=tmp_path, seed=0, milestones=[1], **HOW)
    numpys = {"learning_rate": np.float64(1e-2), "batch_size": np.int64(64), "milestones": (np.int64(1),)}
    numpys |= {"gamma": np.float32(0.5), "fast": np.bool_(False)}
    history = fit(Net(), GOAL, X, epochs=np.int64(2), checkpoint=tmp_path, seed=np.int64(0), **HOW | numpys)
    assert len(history) == 2
    for seeds in (np.arange(1), (0,), range(1)):
        fit_stack([Net()], GOAL, [X], seeds=seeds, epochs=2, milestones=[1], checkpoint=tmp_path, **HOW)


SCRIPT = """
import torch
from wiseale_nb.loss import make_objective
from wiseale_nb.training import fit
from helper import widen

class Net(torch.nn.Module):
    d_z = 2
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = torch.nn.Linear(8, 4), torch.nn.Linear(2, 8)
    def forward(self, x, noise):
        mu, log_var = self.encoder(x).chunk(2, 1)
        z = widen(mu, log_var, noise)
        return self.decoder(z), mu, log_var, z

def train(epochs, folder):
    torch.manual_seed(0)
    fit(Net(), make_objective("aevb", "gaussian"), torch.ones(64, 8), epochs=epochs, checkpoint=folder,
        batch_size=64, learning_rate=1e-3, device="cpu", progress=False)
"""
HELPER = "SCALE = 0.5\ndef widen(mu, log_var, noise): return mu + (SCALE * log_var).exp() * noise\n"


def trained_by(folder, epochs, script=SCRIPT, helper=HELPER):
    """Train with a user's two files; both keep the time stamp that they had."""
    for name, text in (("script", script), ("helper", helper)):
        (folder / f"{name}.py").write_text(text)
        os.utime(folder / f"{name}.py", (1e9, 1e9))
        sys.modules.pop(name, None)
    with patch.object(sys, "path", [str(folder), *sys.path]), patch.object(sys, "dont_write_bytecode", True):
        import script as user

        user.train(epochs, folder / "checkpoint")


def test_code_of_the_user_that_changed(tmp_path):
    """The network's class, a function and a constant of another module; a comment is no change."""
    trained_by(tmp_path, 2)
    changes = [{"script": SCRIPT.replace("(mu, log_var, n", "(mu, 2 * log_var, n")}]
    changes += [{"helper": HELPER.replace("0.5", "0.25")}, {"helper": HELPER.replace("mu +", "mu -")}]
    for change in changes:
        with pytest.raises(
            CheckpointError, match="the code of the library, the network or the objective has"
        ):
            trained_by(tmp_path, 4, **change)
    trained_by(
        tmp_path, 4, script=SCRIPT + "# why\n", helper=HELPER.replace("return", "\n    # why\n    return")
    )
    assert {path.name[:11] for path in (tmp_path / "checkpoint").iterdir()} == {"epoch000003", "epoch000004"}


def test_code_of_the_library_or_pytorch_that_changed(tmp_path):
    run(count, 2, checkpoint=tmp_path)
    for target, value in (("torch.__version__", "2.0.0"), ("wiseale_nb.checkpoint.LAYOUT", "0")):
        with (
            patch(target, value),
            pytest.raises(CheckpointError, match="PyTorch was|by another version of wise"),
        ):
            run(count, checkpoint=tmp_path)
    with patch("wiseale_nb.checkpoint.code_fingerprint", lambda *roots, **options: "other"):
        with pytest.raises(CheckpointError, match="the code of the library"):
            run(count, checkpoint=tmp_path)


def killed_run(folder, code, epochs):
    """A run of four epochs by the pipeline, killed after some; epochs trained and a hash of the weights."""
    changes = {"n_train": 128, "n_test": 64, "epochs": 4}
    settings = resolve_settings("smoke", "sine", "aevb", 0, changes)
    row = {"metric": "mse", "value": 0.5, "standard_error": 0.1, "unit": "1", "n": 64}
    names, calls = recipe.fit_stack.__globals__, []
    save, set_rate, build = (names[f] for f in ("save_checkpoint", "set_learning_rate", "build_stacks"))

    def save_or_die(*args):
        save(*args)
        calls.append(args)
        if len(calls) == epochs < 4:
            raise KeyboardInterrupt

    changed = {"save_checkpoint": save_or_die}
    changed["build_stacks"] = lambda *args, **how: build(
        *args, **how | {"fast": False}
    )  # no time for recording
    if code == "old":
        changed["set_learning_rate"] = lambda stacks, factor: set_rate(stacks, 5 * factor)
    fakes = {"run_code": lambda settings: code, "measure": lambda *_: pd.DataFrame([row])}
    with patch.multiple(recipe, **fakes), patch.dict(names, changed):
        try:
            runs = recipe.train(settings, [0], folder, device="cpu", progress=False)
        except KeyboardInterrupt:
            return len(calls), ""
    return len(calls), runs[0].info["files"]["model.safetensors"]


def test_a_run_that_was_interrupted_before_its_code_changed(tmp_path, capsys):
    """Two of four epochs by one code, then another code: the bits of the other code alone."""
    whole = killed_run(tmp_path / "a", "new", 4)
    assert killed_run(tmp_path / "b", "old", 2) == killed_run(tmp_path / "c", "new", 2) == (2, "")
    assert capsys.readouterr().out == ""
    assert killed_run(tmp_path / "b", "new", 4) == whole
    assert "it starts again from nothing" in capsys.readouterr().out
    assert killed_run(tmp_path / "c", "new", 4) == (2, whole[1]) and capsys.readouterr().out == ""
    assert not (tmp_path / "b" / "checkpoint").exists()


def test_a_folder_in_the_place_of_a_result_is_refused_before_training(tmp_path):
    for name in ("run.json", "history.csv"):
        (tmp_path / name / "seed0" / name).mkdir(parents=True)
        with patch.object(recipe, "fit_and_measure", None):
            with pytest.raises(ValueError, match=f"{name}: a folder is in its place"):
                killed_run(tmp_path / name, "new", 4)


def test_content_counts_and_not_time(tmp_path):
    """A module changed under the same size and time stamp, in one process."""
    (tmp_path / "a.py").write_text("def f(x):\n    return x + 1\n")
    before = code_fingerprint("a:f", package=tmp_path)
    stamp = (tmp_path / "a.py").stat()
    (tmp_path / "a.py").write_text("def f(x):\n    return x + 2\n")
    os.utime(tmp_path / "a.py", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert code_fingerprint("a:f", package=tmp_path) != before


# Files in the way


def test_leftovers_of_a_killed_process_go(tmp_path):
    """Killed while it writes; other hidden files and those of living processes stay."""
    text = (
        "import os; from wiseale_nb.core import atomic_write; os.replace = lambda *_: os.kill(os.getpid(), 9)"
    )
    text += "; atomic_write('run.json', 'a')"
    assert subprocess.run([sys.executable, "-c", text], cwd=tmp_path).returncode == -9
    assert [path.name[:10] for path in tmp_path.iterdir()] == [".run.json."]
    keep = {temporary_file(Path("run.json"), os.getppid()).name, ".notes.tmp", "epoch.25912.tmp"}
    keep |= {temporary_file(Path("run.json"), 10**30, "another-machine").name, ".run.json.99999.txt"}
    for name in keep:
        (tmp_path / name).touch()
    temporary_file(tmp_path / "epoch1.safetensors", 10**30).touch()
    atomic_write(tmp_path / "history.csv", "a")
    assert {path.name for path in tmp_path.iterdir()} == keep | {"history.csv"}


def test_folders_and_loops_in_the_place_of_checkpoints(tmp_path):
    whole = run(SURPRISES["nn.Dropout"])
    run(SURPRISES["nn.Dropout"], 2, checkpoint=tmp_path)
    newest = sorted(tmp_path.glob("*.safetensors"))[-1]
    newest.unlink()
    newest.mkdir()
    (newest / "file").touch()
    for name in ("epoch000008-0.safetensors", "epoch000009-0.safetensors"):
        (tmp_path / name).symlink_to(tmp_path / "epoch000009-0.safetensors")
    with pytest.warns(UserWarning, match="it is set aside") as told:
        assert run(SURPRISES["nn.Dropout"], checkpoint=tmp_path) == whole
    assert len(told) == 3
    assert [path.name[:11] for path in sorted(tmp_path.glob("*.safetensors"))] == [
        "epoch000003",
        "epoch000004",
    ]


@pytest.mark.parametrize("make", [lambda path: path.touch(), lambda path: path.symlink_to(path)])
def test_what_is_no_folder_is_refused_before_training(make, tmp_path):
    make(tmp_path / "checkpoint")
    with pytest.raises(ValueError, match="cannot write to .*checkpoint: "):
        run(count, checkpoint=tmp_path / "checkpoint")


# Types of data


def test_data_of_other_types_are_converted_with_a_warning():
    with warnings.catch_warnings(action="error"):
        net = Net()
        expected = result([net], [fit(net, GOAL, X, X[:64], epochs=1, **HOW)])
    for other, said in (
        (X.double(), "torch.float64"),
        (X.numpy(), None),
        (X.double().numpy(), "NumPy array"),
    ):
        net = Net()
        with pytest.warns(UserWarning, match="training data: .* was converted to torch.float32") as told:
            history = fit(net, GOAL, other, X[:64], epochs=1, **HOW)
        assert len(told) == 1 and (said is None or said in str(told[0].message))
        assert result([net], [history]) == expected
    for other in (X.half(), X.bfloat16(), X.numpy()[::-1], X > 0.5):
        with pytest.warns(UserWarning, match="held-out data: .* was converted to torch.float32"):
            assert np.isfinite(fit(Net(), GOAL, X, other, epochs=1, **HOW).objective).all()


def test_double_networks_train_on_what_they_are_given():
    bernoulli = make_objective("aevb")
    for x in (X, X.double(), (255 * X).byte()):
        with warnings.catch_warnings(action="ignore"):
            assert fit(Net().double(), bernoulli, x, x[:64], epochs=1, **HOW).objective.notna().all()


@pytest.mark.parametrize(
    ("x", "kind", "message"),
    [
        (X.tolist(), TypeError, "training data must be a torch.Tensor of numbers, got list"),
        ((9 * X).int(), TypeError, "inputs must be uint8 or floating point, got torch.int32"),
        (X.numpy().astype(object), TypeError, "training data must be a torch.Tensor of numbers, got object"),
    ],
    ids=["list", "integers", "objects"],
)
def test_other_data_are_refused(x, kind, message):
    with pytest.raises(kind, match=message):
        fit(Net(), GOAL, x, epochs=1, **HOW)


def test_networks_in_half_precision_are_refused():
    with pytest.raises(
        ValueError, match="weights must be torch.float32 or torch.float64, got torch.bfloat16"
    ):
        fit(Net().bfloat16(), GOAL, X, epochs=1, **HOW)
