"""The examples of 50_own_networks: a loop in mixed precision, and a module of Lightning.

python test_lightning.py PROCESSES FILE is a training by Lightning, which starts the script for each process.
"""

import json
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, call
from torch import nn
from torch.optim import Adam

from wiseale_nb.loss import WiSEALE

GENERATOR = torch.Generator().manual_seed(0)
DATA = (torch.randn(256, 2, generator=GENERATOR) @ torch.randn(2, 16, generator=GENERATOR)).sigmoid()


def example(start):
    """The example of the notebook that starts with a text."""
    cells = json.loads((ROOT / "nbs/50_own_networks.ipynb").read_text())["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    (found,) = (part.partition("```")[0] for part in text.split("```python\n") if part.startswith(start))
    return found


def networks():
    torch.manual_seed(0)
    return nn.Linear(16, 4), nn.Linear(2, 16)


def test_mixed_precision():
    """The loss is in float32, and the weights learn: nearly what they learn in full precision."""
    losses, code = {}, example("with torch.autocast(")
    for half in (True, False):
        encoder, decoder = networks()
        names = {"torch": torch, "decoder": decoder, "objective": WiSEALE()}
        names["encode"] = lambda x, encoder=encoder: encoder(x).chunk(2, 1)
        adam = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 0.02)
        for x in DATA.split(32) * 8:
            adam.zero_grad()
            exec(code if half else code.replace("torch.bfloat16", "enabled=False"), names | {"x": x}, names)
            adam.step()
            losses.setdefault(half, []).append(names["terms"].loss.detach())
    assert losses[True][0].dtype == torch.float32 and losses[True][-1] < losses[True][0] - 1
    assert losses[True][-1] == pytest.approx(losses[False][-1].item(), rel=0.02)
    assert losses[True][-1] != losses[False][-1]


def module(lightning, objective, torch=torch):
    """The example with what a user adds: networks, an objective and an optimiser."""
    names = {"lightning": lightning, "torch": torch}
    exec(textwrap.dedent(example("class MyModel")), names)

    class Model(names["MyModel"]):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = networks()
            self.objective, self.losses = objective, []

        def encode(self, x):
            self.x = x
            return self.encoder(x).chunk(2, 1)

        def configure_optimizers(self):
            return Adam(self.parameters(), 0.02)

        def on_train_epoch_end(self):
            self.losses.append({name: float(v) for name, v in self.trainer.callback_metrics.items()})

    return Model()


QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
QUIET |= {"enable_model_summary": False}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_lightning(tmp_path, precision):
    """What is logged falls, and is the loss."""
    lightning = pytest.importorskip("lightning", reason="`make test-pythae` runs this")
    options = QUIET | {"default_root_dir": tmp_path}
    trainer = lightning.Trainer(max_epochs=8, accelerator="cpu", precision=precision, **options)
    model = module(lightning, WiSEALE())
    trainer.fit(model, torch.utils.data.DataLoader(DATA, batch_size=32))
    first, last = model.losses[0], model.losses[-1]
    assert set(last) == {"loss", "reconstruction", "prior", "divergence"} and last["loss"] < first["loss"] - 1
    assert last["loss"] == pytest.approx(last["reconstruction"] + last["prior"], rel=1e-5)
    assert last["prior"] == pytest.approx(last["divergence"] / 32, rel=1e-5)


def train(devices, file):
    """Two epochs in float64; the noise belongs to the samples, whichever process has them."""
    import lightning

    numbers = SimpleNamespace(randn_like=lambda mu: (1e3 * model.x[:, :2]).sin())
    model = module(lightning, WiSEALE(weight=1.0), numbers)
    options = QUIET | {"max_epochs": 2, "precision": "64-true", "default_root_dir": Path(file).parent}
    names = {"torch": torch, "lightning": lightning, "model": model, "train": DATA.double(), "M": 32}
    names |= {"devices": int(devices), "accelerator": "cpu", "options": options}
    exec(example("loader = "), names)
    if names["trainer"].is_global_zero:
        torch.save(torch.cat([p.detach().flatten() for p in model.parameters()]), file)


def test_lightning_on_two_processes(tmp_path):
    """The weights are those of one process."""
    pytest.importorskip("lightning", reason="`make test-pythae` runs this")
    for n in (1, 2):
        done = call(sys.executable, __file__, n, tmp_path / f"{n}.pt")
        assert done.returncode == 0, done.stderr
        assert f"{n} processes" in done.stderr  # Lightning says how many there are
    one, two = (torch.load(tmp_path / f"{n}.pt") for n in (1, 2))
    assert one.dtype == torch.float64
    torch.testing.assert_close(two, one, rtol=0, atol=1e-12)


if __name__ == "__main__":
    train(*sys.argv[1:])
