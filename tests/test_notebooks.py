"""Every notebook that defines the library runs from top to bottom, every study in a tiny size; their cells hold the assertions."""
import re

import nbformat
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


def test_sensitivity(tmp_path):
    """Every choice is judged for both weights; a comparison is listed as flipped exactly if its outcome changed."""
    given = ("-p", "datasets", "['mnist']", "-p", "n", "128", "-p", "epochs", "1", "-p", "n_test", "128")
    done = study("38_sensitivity", tmp_path, *given)
    assert done.returncode == 0, done.stderr
    flips = pd.read_csv(tmp_path / "data" / "sensitivity_flips.csv")
    assert flips.groupby("choice").size().to_dict() == {"Gaussian pixels": 10, "β = 2": 2, "β = 10": 2, "λ = 1": 4, "λ = 100": 4}
    assert ((flips["as reported"] != flips["with the choice"]) == flips.flips.astype(bool)).all()
    values = pd.read_csv(tmp_path / "data" / "sensitivity_values.csv")
    assert len(values) == 2 * 14 and not values.isna().any(axis=None)


@pytest.fixture
def claims(tmp_path):
    """Run the claims report on the committed tables, edited; returns its printed text and Markdown."""
    def run(edit=lambda name, table: table):
        for path in (ROOT / "figures/quick/data").glob("claims_*.csv"):
            (tmp_path / "data").mkdir(exist_ok=True)
            edit(path.stem, pd.read_csv(path)).to_csv(tmp_path / "data" / path.name, index=False)
        done = call("wiseale-run", "--quiet", "nbs/30_claims.ipynb", tmp_path / "out.ipynb", "-p", "out", tmp_path)
        assert done.returncode == 0, done.stderr
        outputs = [o for c in nbformat.read(tmp_path / "out.ipynb", 4).cells for o in c.get("outputs", [])]
        return "\n".join("".join(o.get("data", {}).get("text/markdown", o.get("text", ""))) for o in outputs)

    return run


def verdict(text, key):
    """The verdict of one claim."""
    return re.search(r"\*\*Verdict: (.*?)\.\*\*", text[text.index(f"**{key} "):])[1]


def scaled(method, factor):
    """Edit the squared errors of a method on MNIST; differences by sample are left out."""
    def edit(name, table):
        if name == "claims_pairs":
            return table[table.metric != "mse"]
        if name == "claims_values":
            table.loc[(table.dataset == "mnist") & (table.metric.isin(["mse", "nll"])) & (table.method == method), "value"] *= factor
        return table

    return edit


def test_claims_verdicts_follow_the_tables(claims):
    """A better WiSE-ALE is reproduced, a worse one is not; one seed is said to be one."""
    better = claims(scaled("wiseale", 0.5))
    assert verdict(better, "5.1-2") == "reproduced" and "6 of 6 comparisons hold" in better
    worse = claims(scaled("wiseale", 2))
    assert verdict(worse, "5.1-2") == "not reproduced" and "contradicted by MSE on mnist (AEVB, β-VAE, WAE-MMD)" in worse
    assert verdict(worse, "3-1") == "partly"  # a digit's error is one of its four comparisons
    single = claims(lambda name, table: table[table.seed == 0])
    assert verdict(single, "5.1-2") == "cannot be tested here" and "(one seed)" in single and "One seed only for MSE on mnist" in single
    assert verdict(single, "3-5") == "reproduced"  # measured by the benchmark
