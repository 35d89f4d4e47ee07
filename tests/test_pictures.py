"""Baselines for pictures, and the study of the teapots' plateau."""

import pandas as pd
import pytest
import torch
from conftest import call

from wiseale_nb.data import build
from wiseale_nb.pictures import colour_correlation, pca_reconstruction


def study(folder, *given):
    """Run the study at its smoke size; returns the finished process."""
    words = ("-p", "size", "smoke", "-p", "redraw", "false", "-p", "out", folder, *given)
    return call("wiseale-run", "--quiet", "nbs/44_teapot_plateau.ipynb", folder / "out.ipynb", *words)


@pytest.mark.nightly
def test_teapot_plateau(tmp_path):
    """Networks are looked at before training and after each pass; colour is most of what varies."""
    done = study(tmp_path)
    assert done.returncode == 0, done.stderr
    pictures = [tmp_path / f"teapot_plateau_smoke.{form}" for form in ("pdf", "png", "svg")]
    assert all(picture.stat().st_size > 5_000 for picture in pictures)
    table = pd.read_csv(tmp_path / "data" / "teapot_plateau_smoke.csv")
    keys = ["scale", "deviation", "rate", "seed", "step"]
    assert len(table) == len(table[keys].drop_duplicates()) == 2 * 2 * 3
    assert sorted(table.step.unique()) == [0, 2, 4]
    assert table["layer 0"].nunique() == 1 and 0.3 < table["layer 0"].iloc[0] < 0.6
    shares = table[[f"layer {k}" for k in range(1, 5)]]
    assert shares.stack().between(0, 1).all() and (shares.nunique() > 4).all()
    halves = pd.read_csv(tmp_path / "data" / "teapot_plateau_smoke_halves.csv")
    assert (
        set(halves.half) == {"decoder, scale 1", "decoder, scale 0.2", "encoder"} and len(halves) == 3 * 2 * 2
    )


@pytest.mark.nightly
def test_teapot_plateau_refuses_deviations(tmp_path):
    done = study(tmp_path, "-p", "changes", "{'settings': [[1.0, 0.0, 0.001]]}")
    assert done.returncode == 1 and "teapot_plateau: settings must be list of list of num" in done.stderr


def test_the_decoder_of_images_starts_quietly():
    """Batch normalisation of CelebA's network starts at 0.2, and its first pictures are faint."""
    model = build("teapot", width=1 / 16)
    scales = [m.weight for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(scales) == 3 and all((scale == 0.2).all() for scale in scales)
    decoded = model.decode(torch.randn(64, 10, generator=torch.Generator().manual_seed(0)))
    assert decoded.std() < 0.3  # with a scale of 1 it is above 0.5


def test_components_of_the_training_pictures_alone():
    """What is reconstructed has no influence on the components."""
    generator = torch.Generator().manual_seed(0)
    train = torch.rand(40, 3, 4, 4, generator=generator)
    x = torch.rand(6, 3, 4, 4, generator=generator)
    both = pca_reconstruction(train, torch.cat([x, 100 * x]), 5)
    torch.testing.assert_close(both[:6], pca_reconstruction(train, x, 5), rtol=0, atol=1e-5)
    assert 0 < colour_correlation(pca_reconstruction(train, train, 5), train) < 0.9
