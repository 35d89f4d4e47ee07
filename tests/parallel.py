"""What processes do together in test_distributed.py: a script that forks them, for speed.

python parallel.py FOLDER reads lines: how many processes, the name of a function below, its arguments as
JSON. Each process leaves what it returns, or the error, in FOLDER/<rank>.pt; a line says that all have ended.
"""

import contextlib
import io
import itertools
import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path

import torch
import torch._dynamo  # noqa: F401  for DistributedDataParallel: loaded before the processes are forked
import torch.distributed as dist
import torch.distributed.nn.functional  # noqa: F401
from torch.nn.parallel import DistributedDataParallel

from wiseale_nb import recipe
from wiseale_nb.algorithm import TERMS
from wiseale_nb.batch_norm import BatchNormAcross
from wiseale_nb.checkpoint import training_code
from wiseale_nb.config import resolve_settings
from wiseale_nb.core import random_stream, typed
from wiseale_nb.distributed import gather_posteriors, own_rows, process_mean
from wiseale_nb.fast_step import across_processes
from wiseale_nb.loss import make_objective
from wiseale_nb.models import celeba_net, create, initialise, mnist_net, reparameterize
from wiseale_nb.objective import Objective
from wiseale_nb.recording import BatchTerms
from wiseale_nb.training import fit


class Net(torch.nn.Module):
    """An autoencoder for eight numbers."""

    d_z = 2

    def __init__(self, layer=None):
        super().__init__()
        self.first, self.heads = torch.nn.Linear(8, 16), torch.nn.Linear(16, 4)
        self.layer, self.decoder = layer or torch.nn.Identity(), torch.nn.Linear(2, 8)
        initialise(self, random_stream(0, "init"))

    def forward(self, x, noise):
        mu, log_var = self.heads(self.layer(self.first(x).tanh())).chunk(2, 1)
        z = reparameterize(mu, log_var, noise)
        return self.decoder(z), mu, log_var, z


@typed
class Spread(Objective):
    """A user's method that knows nothing of processes; it looks across the batch and draws."""

    name, label, n_draws = "spread", "Spread", 1

    def divergence(self, mu, log_var, z, draws=None):
        return (z.std(0) - draws[0].std(0)).square().sum() + log_var.exp().mean(0).log().sum()


def batch(M=16, n_draws=3):
    """Data, noise and draws of a batch, float64."""
    generator = torch.Generator().manual_seed(1)
    make = {"generator": generator, "dtype": torch.float64}
    return torch.rand(M, 8, **make), torch.randn(M, 2, **make), torch.randn(n_draws, M, 2, **make)


def teams(k):
    """The group of k neighbours that this process is in."""
    firsts = range(0, dist.get_world_size(), k)
    return [dist.new_group(list(range(first, first + k))) for first in firsts][dist.get_rank() // k]


def step(method, options, alone=None, team=None, M=16):
    """Gradient, mean of the loss over processes, prior and divergence of a batch; or the error.

    The processes of a team share a batch. With a group of its own, a process does what DDP does alone.
    """
    objective, net = make_objective(method, "gaussian", **options), Net().double()
    objective.group = alone or team
    x, noise, draws = batch(M, objective.n_draws)
    rows = own_rows(M, team)
    draws = draws[:, rows] if alone else draws + (dist.get_rank(team) if dist.is_initialized() else 0)
    try:
        model = DistributedDataParallel(net, process_group=team) if dist.is_initialized() else net
        terms = objective(x[rows], *model(x[rows], noise[rows]), draws=draws)
    except ValueError as error:
        return str(error)
    terms.loss.backward()
    values = [process_mean(terms.loss.detach(), team), terms.prior.detach(), terms.divergence.detach()]
    return torch.cat([p.grad.flatten() for p in net.parameters()]), torch.stack(values)


def steps(methods, alone=False, team=None):
    """`step` for several methods with their options."""
    groups = {"alone": teams(1) if alone else None, "team": team and teams(team)}
    return {name: step(*method, **groups) for name, method in methods.items()}


def gather(sizes):
    """The gathered tensors, and the gradient of a weighted sum, of parts of these sizes."""
    rank = dist.get_rank()
    a = torch.full((sizes[rank], 2), float(rank), requires_grad=True)
    b = torch.full((sizes[rank], 3), rank + 0.5, dtype=torch.float64)
    both = gather_posteriors(a, b)
    weights = torch.arange(len(both[0]), dtype=torch.float32)[:, None] * (rank + 1)
    (both[0] * weights).sum().backward()
    return *(t.detach() for t in both), a.grad


class OwnNorm(torch.nn.BatchNorm1d):
    """A user's batch normalisation: nobody knows what it computes."""

    def forward(self, x):
        return super().forward(x) * 2


def unshared():
    """The error for a batch normalisation of which each process sees its own samples only."""
    objective = make_objective("wiseale", "gaussian")
    across_processes(BatchTerms(Net(torch.nn.BatchNorm1d(16)), objective), batch()[0].float())


def images():
    """The network of Appendix D for images, with a channel where it has 128."""
    net = create(celeba_net, d_z=2, width=1 / 128)
    for layer, following in itertools.pairwise(net.decoder):
        if isinstance(following, torch.nn.BatchNorm2d):  # no gradient but rounding, which Adam blows up
            layer.conv.bias.requires_grad_(False)
    return net


def run_folders(folder):
    """What `train` says before it writes a run folder."""
    settings = resolve_settings("smoke", "sine", "aevb", 0, {"n_train": 64, "n_test": 64, "epochs": 1})
    recipe.train(settings, [0], folder, device="cpu", progress=False)


NETWORKS = {
    "mnist": lambda: create(mnist_net),
    "images": images,
    "signals": lambda: Net(torch.nn.BatchNorm1d(16, momentum=None)),
    "own norm": lambda: Net(OwnNorm(16)),
    "dropout": lambda: Net(torch.nn.Dropout()),
    "small": Net,
}
SHAPES = {"mnist": (1, 28, 28), "images": (3, 64, 64)}


def train(method="wiseale", network="mnist", epochs=1, size=16, seed=0, folder=None):
    """Weights and buffers, history and progress bar of `fit`; without a seed, the rank is it."""
    net, shape = NETWORKS[network](), SHAPES.get(network, (8,))
    x = torch.rand(64, *shape, generator=torch.Generator().manual_seed(0)).double()
    seed = int(os.environ["RANK"]) if seed is None else seed
    how = {"epochs": epochs, "batch_size": size, "learning_rate": 1e-3, "device": "cpu", "fast": False}
    with contextlib.redirect_stderr(io.StringIO()) as bar:
        history = fit(
            net.to(x.dtype),
            make_objective(method, "gaussian"),
            x,
            x[:32],
            seed=seed,
            checkpoint=folder,
            **how,
        )
    assert not any(isinstance(layer, BatchNormAcross) for layer in net.modules())
    weights = torch.cat([t.flatten() for t in net.state_dict().values()])
    return weights, torch.tensor(history[list(TERMS)].values), bar.getvalue()


def act(rank, n, folder, name, arguments):
    """Join the other processes, do it, leave the result, and end."""
    signal.alarm(100)  # a process that waits for another forever
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(n), "LOCAL_RANK": str(rank)}
    try:
        if name != "train" and n > 1:  # `fit` joins by itself
            dist.init_process_group("gloo")
        result = globals()[name](**arguments)
    except ValueError as error:
        result = str(error)
    torch.save(result, Path(folder, f"{rank}.pt"))


def main(folder):
    """Fork processes for each line of the input."""
    training_code([Net(), make_objective("wiseale")])  # reads the library's source, once
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    for line in sys.stdin:
        n, name, arguments = json.loads(line)
        with socket.create_server(("127.0.0.1", 0)) as server:
            os.environ["MASTER_PORT"] = str(server.getsockname()[1])
        children = []
        for rank in range(n):
            children.append(os.fork())
            if children[-1] == 0:
                try:
                    act(rank, n, folder, name, arguments)
                except BaseException:
                    traceback.print_exc()
                finally:
                    sys.stderr.flush()
                    os._exit(0)
        for child in children:
            os.waitpid(child, 0)
        print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
