"""Every notebook that defines the library runs from top to bottom, every study in a tiny size; their cells hold the assertions."""

import importlib.util

import pandas as pd
import pytest
from conftest import ROOT, call

from wiseale_nb.comparison import paired_test

MODULE_NOTEBOOKS = sorted(p.name for p in (ROOT / "nbs").glob("[05]*.ipynb"))
TINY = (
    "-p",
    "datasets",
    "['mnist']",
    "-p",
    "methods",
    "['wiseale']",
    "-p",
    "seeds",
    "[0]",
    "-p",
    "n",
    "256",
    "-p",
    "epochs",
    "40",
)


@pytest.mark.parametrize("name", MODULE_NOTEBOOKS)
def test_module_notebook(name):
    if name == "51_pythae.ipynb" and not importlib.util.find_spec("pythae"):
        pytest.skip(
            "pythae is not installed; `make test-pythae` runs this one in the environment of make bench"
        )
    done = call("nbdev_test", "--path", f"nbs/{name}", "--n_workers", "0")
    assert done.returncode == 0 and "Success" in done.stdout + done.stderr, (done.stdout + done.stderr)[
        -3000:
    ]


def study(name, folder, *given):
    """Run a study; returns the finished process."""
    return call(
        "wiseale-run", "--quiet", f"nbs/{name}.ipynb", folder / "out.ipynb", "-p", "out", folder, *given
    )


def test_minibatch_bias(tmp_path):
    """The bias falls with M, down to a batch of half the data; figure and data are written."""
    done = study("31_minibatch_bias", tmp_path, *TINY, "-p", "sizes", "[4, 32, 128]")
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / f"minibatch_bias.{form}").stat().st_size > 5_000 for form in ("pdf", "png", "svg"))
    summary = pd.read_csv(tmp_path / "data" / "minibatch_bias.csv")
    table = summary.pivot(index="quantity", columns="M", values="excess")
    assert (
        (table[4] > 1.5 * table[32]).all() and (table[32] > 2 * table[128]).all() and (table[128] > 0).all()
    )
    kl = summary[summary.quantity == "monte_carlo"]
    assert (kl.excess / kl.bound).between(0.5, 1.05).all()
    directions = pd.read_csv(tmp_path / "data" / "minibatch_bias_gradient.csv")
    assert (directions[directions.M == 128].cosine > 0.9).all()


@pytest.mark.parametrize("given", ["[16, 24]", "[64, 16]"])
def test_minibatch_bias_refuses_sizes(tmp_path, given):
    done = study("31_minibatch_bias", tmp_path, *TINY, "-p", "sizes", given)
    assert done.returncode == 1 and "sizes must increase and divide n = 256" in done.stderr


TINY_EQ15 = ("-p", "datasets", "['mnist']", "-p", "seeds", "[0]", "-p", "n", "1024", "-p", "epochs", "14")


def test_learning_with_eq15(tmp_path):
    """Eq. 15 ends at the data mean, Eq. 16 at one answer for all; on the way to Eq. 15 the answers shrink as predicted."""
    done = study(
        "34_learning_with_eq15", tmp_path, *TINY_EQ15, "-p", "recipes", "['own', 'log_mean', 'own_to_all']"
    )
    assert done.returncode == 0, done.stderr
    assert all(
        (tmp_path / f"learning_with_eq15.{form}").stat().st_size > 5_000 for form in ("pdf", "png", "svg")
    )
    runs = pd.read_csv(tmp_path / "data" / "learning_with_eq15.csv").set_index(["recipe", "epoch"])
    constant = pd.read_csv(tmp_path / "data" / "learning_with_eq15_constant.csv").iloc[0]
    assert runs.own["own", 14] < constant["all"] - 5  # the code is used
    assert abs(runs["all"]["own_to_all", 14] / constant["all"] - 1) < 0.02
    assert (
        runs.log_mean["log_mean", 14] < runs.log_mean["own", 14] - 20
        and runs.own["log_mean", 14] > constant["all"] + 50
    )
    slope = runs.slope["own_to_all"] / runs.slope["own_to_all", 8]
    assert slope[10] > slope[12] > slope[14] and slope[14] < 0.1
    assert pd.read_csv(tmp_path / "data" / "learning_with_eq15_gradient.csv").cosine.between(-1, 1).all()


def test_learning_with_eq15_refuses_sizes(tmp_path):
    done = study("34_learning_with_eq15", tmp_path, "-p", "n", "100")
    assert done.returncode == 1 and "n must be a multiple of 64" in done.stderr


CITED = (
    "-p",
    "seeds",
    "[0]",
    "-p",
    "n",
    "256",
    "-p",
    "n_test",
    "128",
    "-p",
    "epochs",
    "20",
    "-p",
    "weights",
    "[1.0, 100.0]",
    "-p",
    "components",
    "[2]",
)


def test_cited_methods(tmp_path):
    """Every cited method trains at every weight; figure and data are written; a heavy weight brings the codes nearer to the prior."""
    done = study("37_cited_methods", tmp_path, *CITED)
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / f"cited_methods.{form}").stat().st_size > 5_000 for form in ("pdf", "png", "svg"))
    runs = pd.read_csv(tmp_path / "data" / "cited_methods.csv")
    assert len(runs) == 14 and {"wae_gan", "wae_gan_added", "aae", "sinkhorn_ae", "gm_vae"} < set(runs.method)
    sinkhorn = runs[runs.method == "sinkhorn_ae"].set_index("setting").sinkhorn
    assert sinkhorn.loc["weight 100"] < 0.7 * sinkhorn.loc["weight 1"]


def test_cited_methods_refuses_nothing_to_do(tmp_path):
    done = study("37_cited_methods", tmp_path, *CITED[:-1], "[]")
    assert done.returncode == 1 and "need an entry each" in done.stderr


TWO_EPOCHS = (*TINY[:-1], "2")


def test_how_wrong(tmp_path):
    """The map of Eq. 21's error has its limits; figure and data are written."""
    done = study("32_how_wrong", tmp_path, *TWO_EPOCHS)
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / f"how_wrong.{form}").stat().st_size > 5_000 for form in ("pdf", "png", "svg"))
    one_width = pd.read_csv(tmp_path / "data" / "how_wrong_map.csv").query("tau == 0")
    assert one_width.query("width > 9 or width < 0.002 and d_z > 2")["error"].between(0.95, 1.05).all()
    least = one_width.groupby(["d_z", "M"])["error"].min()
    assert least[1, 1024] < 0.1 < 0.9 < least[64, 64] and (least[1].diff().dropna() < 0).all()
    terms = pd.read_csv(tmp_path / "data" / "how_wrong_reconstruction.csv")
    assert (terms["Eq. 16"] >= terms[["Eq. 15", "Eq. 17"]].max(axis=1)).all() and terms["own share"].between(
        0, 1
    ).all()
    weights = pd.read_csv(tmp_path / "data" / "how_wrong_weights.csv")
    assert (weights["N/M"] == 4).all() and weights["ratio"].between(3.9, 8).all()
    assert len(pd.read_csv(tmp_path / "data" / "how_wrong.csv")) == 2


def test_tighter_bound(tmp_path):
    """Bounds of one batch are in order, and the smaller upper bound depends on dimension and width; one row a network."""
    done = study("33_tighter_bound", tmp_path, *TWO_EPOCHS)
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / f"tighter_bound.{form}").stat().st_size > 5_000 for form in ("pdf", "png", "svg"))
    slack = pd.read_csv(tmp_path / "data" / "tighter_bound_slack.csv")
    smaller = (slack["pairs"] < slack["Eq. 21"]).groupby(slack["d_z"])
    assert smaller.all()[64] and not smaller.all()[2] and smaller.any()[1]
    runs = pd.read_csv(tmp_path / "data" / "tighter_bound.csv")
    assert runs["prior"].tolist() == ["upper_bound", "pairwise", "best", "monte_carlo"]
    assert (runs["pairs, lower"] < runs["best"]).all() and (
        runs["best"] <= runs[["pairs", "Eq. 21"]].min(axis=1) + 1e-6
    ).all()
    assert (
        runs["aevb_kl"].nunique() >= 3
    )  # they trained with different terms; `best` may have been `pairwise` all the way


def test_studies_refuse_runs(tmp_path):
    done = study("33_tighter_bound", tmp_path, "-p", "methods", "['aevb']")
    assert done.returncode == 1 and "no WiSE-ALE runs of config: mnist aevb, sine aevb" in done.stderr
    done = study("32_how_wrong", tmp_path, "-p", "methods", "['vae']")
    assert done.returncode == 1 and "not in config: ['mnist vae', 'sine vae']" in done.stderr


def test_sensitivity(tmp_path):
    """Every choice is judged for both weights; a comparison is listed as flipped exactly if its outcome changed."""
    given = (
        "-p",
        "datasets",
        "['mnist']",
        "-p",
        "seeds",
        "[0, 1]",
        "-p",
        "n",
        "512",
        "-p",
        "epochs",
        "4",
        "-p",
        "n_test",
        "128",
    )
    done = study("38_sensitivity", tmp_path, *given)
    assert done.returncode == 0, done.stderr
    flips = pd.read_csv(tmp_path / "data" / "sensitivity_flips.csv")
    assert flips.groupby("choice").size().to_dict() == {
        "Gaussian pixels": 10,
        "β = 2": 2,
        "β = 10": 2,
        "λ = 1": 4,
        "λ = 100": 4,
    }
    assert ((flips["as reported"] != flips["with the choice"]) == flips.flips.astype(bool)).all()
    values = pd.read_csv(tmp_path / "data" / "sensitivity_values.csv")
    assert len(values) == 2 * 14 and not values.isna().any(axis=None)
    # Judged here from the networks: the choice's own where it touches the method, else the reported ones.
    networks = {key: rows.set_index("seed")["mse"] for key, rows in values.groupby(["choice", "method"])}
    judged = flips[flips.comparison.str.startswith("mse smaller than")]
    assert judged.flips.any()  # or a wrong row would not be seen
    for row in judged.itertuples():
        other = row.comparison.split("than ")[1].removesuffix("'s")
        for choice, found in (("as reported", row[6]), (row.choice, row[7])):
            ours, theirs = (
                networks.get((choice, method), networks["as reported", method])
                for method in (row.method, other)
            )
            outcome = paired_test(ours, theirs).outcome
            assert found == {"smaller": "yes", "larger": "no"}.get(outcome, outcome), row


SMALL = (
    "-p",
    "datasets",
    "['mnist']",
    "-p",
    "seeds",
    "[0, 1]",
    "-p",
    "n_train",
    "192",
    "-p",
    "n_test",
    "64",
    "-p",
    "epochs",
    "2",
)


def test_beta_vae(tmp_path):
    """Partners differ in nothing but the prior term: the fresh networks are the same, the ends are not; the differences are those of the networks."""
    done = study("35_beta_vae", tmp_path, *SMALL, "-p", "sizes", "[16, 64]", "-p", "stages", "2")
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / f"beta_vae.{form}").stat().st_size > 5_000 for form in ("pdf", "png", "svg"))
    way, networks, ends = (
        pd.read_csv(tmp_path / "data" / f"beta_vae_{name}.csv") for name in ("way", "networks", "ends")
    )
    start = way[way.epoch == 0].pivot(index=["M", "seed"], columns="method", values="cosine")
    assert (
        (start.wiseale == start.wiseale_per_sample).all()
        and (start.wiseale > 0.9).all()
        and way.cosine.max() <= 1 + 1e-5
    )
    assert len(way) == 2 * 2 * 2 * 2 and len(networks) == 4 * 2 * 2
    nll = networks.groupby(["M", "method"])["nll"].mean().unstack()
    found = ends[(ends.method == "wiseale") & (ends.metric == "nll")].set_index("M")["mean"]
    assert ((nll.wiseale - nll.beta_vae_inverse_m - found).abs() < 1e-2).all() and (found != 0).all()


def test_rate_distortion(tmp_path):
    """The rate is information and KL of the aggregate; nothing below and left of the front; the profile's settings are marked."""
    done = study(
        "39_rate_distortion",
        tmp_path,
        *SMALL,
        "-p",
        "betas",
        "[4.0]",
        "-p",
        "weights",
        "[10.0]",
        "-p",
        "sizes",
        "[16, 64]",
    )
    assert done.returncode == 0, done.stderr
    assert all(
        (tmp_path / f"rate_distortion.{form}").stat().st_size > 5_000 for form in ("pdf", "png", "svg")
    )
    table = pd.read_csv(tmp_path / "data" / "rate_distortion.csv")
    assert len(table) == 8 and set(table.method[table.marked]) == {
        "aevb",
        "beta_vae",
        "wae_mmd",
        "wiseale",
        "wiseale_per_sample",
    }
    assert set(table.M[table.marked]) == {64} and (table.steps == 2 * (192 // table.M)).all()
    assert ((table.rate - table["aggregate"] - table["information"]).abs() < 1e-3 * (1 + table.rate)).all()
    for x, front in (("rate", "R, D"), ("aggregate", "A, D")):
        points = list(zip(table[x], table.distortion))
        best = [not any(p != q and p[0] <= q[0] and p[1] <= q[1] for p in points) for q in points]
        assert table[front].tolist() == best and any(best)


@pytest.mark.parametrize(
    ("name", "given"), [("35_beta_vae", "[64, 16]"), ("39_rate_distortion", "[16, 1024]")]
)
def test_studies_refuse_sizes(tmp_path, name, given):
    done = study(name, tmp_path, *SMALL, "-p", "sizes", given)
    assert done.returncode == 1 and "to n_train" in done.stderr


LITTLE = {
    "profile": "smoke",
    "methods": "['aevb', 'wae_mmd']",
    "n_images": 6,
    "n_importance": 400,
    "n_widened": 4000,
    "n_annealed": 3,
    "n_temperatures": 60,
    "n_posteriors": 64,
    "n_codes": 500,
    "step": 0.2,
}
LITTLE = [word for name, value in LITTLE.items() for word in ("-p", name, value)]


def test_likelihood(tmp_path):
    """Widened proposals find what quadrature finds on networks that hardly learnt, and the comparison is what its tables say."""
    runs = tmp_path / "runs"
    for method in ("aevb", "wae_mmd"):
        done = call(
            "wiseale-run",
            "--quiet",
            "nbs/10_train.ipynb",
            tmp_path / "train.ipynb",
            "-p",
            "dataset",
            "mnist",
            "-p",
            "method",
            method,
            "-p",
            "profile",
            "smoke",
            "-p",
            "out",
            runs / "mnist" / method,
            "-p",
            "progress",
            "false",
        )
        assert done.returncode == 0, done.stderr
    done = study("36_likelihood", tmp_path, *LITTLE, "-p", "runs", runs)
    assert done.returncode == 0, done.stderr
    assert all(
        (tmp_path / f"likelihood_mnist_smoke.{form}").stat().st_size > 5_000 for form in ("pdf", "png", "svg")
    )
    images = pd.read_csv(tmp_path / "data" / "likelihood_mnist_smoke_images.csv")
    error = images[["iwae", "widened", "annealed"]].sub(images.quadrature, axis=0)
    assert error.widened.abs().max() < 1
    assert (
        error.iwae.mean() < 0.5 and error.annealed.max() < 1
    )  # from below; far below where the true posterior lies far out
    table = pd.read_csv(tmp_path / "data" / "likelihood_mnist_smoke.csv").set_index("method")
    difference = (
        images[images.method == "wae_mmd"].quadrature.mean()
        - images[images.method == "aevb"].quadrature.mean()
    )
    assert (
        abs(table.difference.wae_mmd - difference) < 1e-3
        and table.low.wae_mmd <= difference <= table.high.wae_mmd
    )
    assert (table.elbo - (table.reconstruction - table.information - table.aggregate_kl)).abs().max() < 1e-2


def test_likelihood_says_what_is_missing(tmp_path):
    done = study("36_likelihood", tmp_path, *LITTLE, "-p", "runs", tmp_path / "none")
    assert done.returncode == 1 and "is not a finished run" in done.stderr and "make figures" in done.stderr
