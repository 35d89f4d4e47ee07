"""The examples of 50_own_networks: a loop in mixed precision, and a module of Lightning."""

import json
import textwrap

import pytest
import torch
from conftest import ROOT
from torch import nn

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


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_lightning(tmp_path, precision):
    """A user adds networks, an objective and an optimiser."""
    lightning = pytest.importorskip("lightning", reason="`make test-pythae` runs this")
    names = {"lightning": lightning, "torch": torch}
    exec(textwrap.dedent(example("class MyModel")), names)

    class Model(names["MyModel"]):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = networks()
            self.objective, self.losses = WiSEALE(), []

        def encode(self, x):
            return self.encoder(x).chunk(2, 1)

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 0.02)

        def on_train_epoch_end(self):
            self.losses.append({name: float(v) for name, v in self.trainer.callback_metrics.items()})

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "default_root_dir": tmp_path}
    trainer = lightning.Trainer(max_epochs=8, accelerator="cpu", precision=precision, **quiet)
    model = Model()
    trainer.fit(model, torch.utils.data.DataLoader(DATA, batch_size=32))
    first, last = model.losses[0], model.losses[-1]
    assert set(last) == {"loss", "reconstruction", "prior", "divergence"} and last["loss"] < first["loss"] - 1
    assert last["loss"] == pytest.approx(last["reconstruction"] + last["prior"], rel=1e-5)
    assert last["prior"] == pytest.approx(last["divergence"] / 32, rel=1e-5)
