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


SMALL = ("-p", "datasets", "['mnist']", "-p", "seeds", "[0, 1]", "-p", "n_train", "192", "-p", "n_test", "64", "-p", "epochs", "2")


def test_beta_vae(tmp_path):
    """Partners differ in nothing but the prior term: the fresh networks are the same, the ends are not; the differences are those of the networks."""
    done = study("35_beta_vae", tmp_path, *SMALL, "-p", "sizes", "[16, 64]", "-p", "stages", "2")
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / f"beta_vae.{form}").stat().st_size > 5_000 for form in ("pdf", "png", "svg"))
    way, networks, ends = (pd.read_csv(tmp_path / "data" / f"beta_vae_{name}.csv") for name in ("way", "networks", "ends"))
    start = way[way.epoch == 0].pivot(index=["M", "seed"], columns="method", values="cosine")
    assert (start.wiseale == start.wiseale_per_sample).all() and (start.wiseale > 0.9).all() and way.cosine.max() <= 1 + 1e-5
    assert len(way) == 2 * 2 * 2 * 2 and len(networks) == 4 * 2 * 2
    nll = networks.groupby(["M", "method"])["nll"].mean().unstack()
    found = ends[(ends.method == "wiseale") & (ends.metric == "nll")].set_index("M")["mean"]
    assert ((nll.wiseale - nll.beta_vae_inverse_m - found).abs() < 1e-2).all() and (found != 0).all()


def test_rate_distortion(tmp_path):
    """The rate is information and KL of the aggregate; nothing below and left of the front; the profile's settings are marked."""
    done = study("39_rate_distortion", tmp_path, *SMALL, "-p", "betas", "[4.0]", "-p", "weights", "[10.0]", "-p", "sizes", "[16, 64]")
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / f"rate_distortion.{form}").stat().st_size > 5_000 for form in ("pdf", "png", "svg"))
    table = pd.read_csv(tmp_path / "data" / "rate_distortion.csv")
    assert len(table) == 8 and set(table.method[table.marked]) == {"aevb", "beta_vae", "wae_mmd", "wiseale", "wiseale_per_sample"}
    assert set(table.M[table.marked]) == {64} and (table.steps == 2 * (192 // table.M)).all()
    assert ((table.rate - table["aggregate"] - table["information"]).abs() < 1e-3 * (1 + table.rate)).all()
    for x, front in (("rate", "R, D"), ("aggregate", "A, D")):
        points = list(zip(table[x], table.distortion))
        best = [not any(p != q and p[0] <= q[0] and p[1] <= q[1] for p in points) for q in points]
        assert table[front].tolist() == best and any(best)


@pytest.mark.parametrize(("name", "given"), [("35_beta_vae", "[64, 16]"), ("39_rate_distortion", "[16, 1024]")])
def test_studies_refuse_sizes(tmp_path, name, given):
    done = study(name, tmp_path, *SMALL, "-p", "sizes", given)
    assert done.returncode == 1 and "to n_train" in done.stderr
