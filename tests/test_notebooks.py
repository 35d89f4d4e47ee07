"""Every notebook that defines the library runs from top to bottom, every study in a tiny size; their cells hold the assertions."""
import pandas as pd
import pytest
from conftest import ROOT, call

MODULE_NOTEBOOKS = sorted(p.name for p in (ROOT / "nbs").glob("0*.ipynb"))
TINY = ("-p", "datasets", "['mnist']", "-p", "methods", "['wiseale']", "-p", "seeds", "[0]", "-p", "n", "256", "-p", "epochs", "40")


@pytest.mark.parametrize("name", MODULE_NOTEBOOKS)
def test_module_notebook(name):
    done = call("nbdev_test", "--path", f"nbs/{name}", "--n_workers", "0")
    assert done.returncode == 0 and "Success" in done.stdout + done.stderr, (done.stdout + done.stderr)[-3000:]


def study(name, folder, *given):
    """Run a study; returns the finished process."""
    return call("wiseale-run", "--quiet", f"nbs/{name}.ipynb", folder / "out.ipynb", "-p", "out", folder, *given)


def test_minibatch_bias(tmp_path):
    """The bias falls with M, down to a batch of half the data; figure and data are written."""
    done = study("31_minibatch_bias", tmp_path, *TINY, "-p", "sizes", "[4, 32, 128]")
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / f"minibatch_bias.{form}").stat().st_size > 5_000 for form in ("pdf", "png", "svg"))
    summary = pd.read_csv(tmp_path / "data" / "minibatch_bias.csv")
    table = summary.pivot(index="quantity", columns="M", values="excess")
    assert (table[4] > 1.5 * table[32]).all() and (table[32] > 2 * table[128]).all() and (table[128] > 0).all()
    kl = summary[summary.quantity == "monte_carlo"]
    assert (kl.excess / kl.bound).between(0.5, 1.05).all()
    directions = pd.read_csv(tmp_path / "data" / "minibatch_bias_gradient.csv")
    assert (directions[directions.M == 128].cosine > 0.9).all()


@pytest.mark.parametrize("given", ["[16, 24]", "[64, 16]"])
def test_minibatch_bias_refuses_sizes(tmp_path, given):
    done = study("31_minibatch_bias", tmp_path, *TINY, "-p", "sizes", given)
    assert done.returncode == 1 and "sizes must increase and divide n = 256" in done.stderr


LITTLE = {"profile": "smoke", "methods": "['aevb', 'wae_mmd']", "n_images": 6, "n_importance": 400, "n_widened": 4000, "n_annealed": 3,
          "n_temperatures": 60, "n_posteriors": 64, "n_codes": 500, "step": 0.1}
LITTLE = [word for name, value in LITTLE.items() for word in ("-p", name, value)]


def test_likelihood(tmp_path):
    """Widened proposals find what quadrature finds on networks that hardly learnt, and the comparison is what its tables say."""
    runs = tmp_path / "runs"
    for method in ("aevb", "wae_mmd"):
        done = call("wiseale-run", "--quiet", "nbs/10_train.ipynb", tmp_path / "train.ipynb", "-p", "dataset", "mnist", "-p", "method", method,
                    "-p", "profile", "smoke", "-p", "out", runs / "mnist" / method, "-p", "progress", "false")
        assert done.returncode == 0, done.stderr
    done = study("36_likelihood", tmp_path, *LITTLE, "-p", "runs", runs)
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / f"likelihood_mnist_smoke.{form}").stat().st_size > 5_000 for form in ("pdf", "png", "svg"))
    images = pd.read_csv(tmp_path / "data" / "likelihood_mnist_smoke_images.csv")
    error = images[["iwae", "widened", "annealed"]].sub(images.quadrature, axis=0)
    assert error.widened.abs().max() < 1
    assert error.iwae.mean() < 0.5 and error.annealed.max() < 1  # from below; far below where the true posterior lies far out
    table = pd.read_csv(tmp_path / "data" / "likelihood_mnist_smoke.csv").set_index("method")
    difference = images[images.method == "wae_mmd"].quadrature.mean() - images[images.method == "aevb"].quadrature.mean()
    assert abs(table.difference.wae_mmd - difference) < 1e-3 and table.low.wae_mmd <= difference <= table.high.wae_mmd
    assert (table.elbo - (table.reconstruction - table.information - table.aggregate_kl)).abs().max() < 1e-2


def test_likelihood_says_what_is_missing(tmp_path):
    done = study("36_likelihood", tmp_path, *LITTLE, "-p", "runs", tmp_path / "none")
    assert done.returncode == 1 and "is not a finished run" in done.stderr and "make figures" in done.stderr
