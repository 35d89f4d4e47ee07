"""Every study runs at its smoke size; what it measures has the properties that it derives."""

import json

import pandas as pd
import pytest
from conftest import call

from wiseale_nb.comparison import paired_test

pytestmark = pytest.mark.nightly

FORMS = ("pdf", "png", "svg")


def study(name, folder, *given):
    """Run a study at its smoke size; returns the finished process."""
    words = ("-p", "size", "smoke", "-p", "redraw", "false", "-p", "out", folder, *given)
    return call("wiseale-run", "--quiet", f"nbs/{name}.ipynb", folder / "out.ipynb", *words)


def test_minibatch_bias(tmp_path):
    """The bias falls with M, down to a batch of half the data; figure and data are written."""
    done = study("31_minibatch_bias", tmp_path)
    assert done.returncode == 0, done.stderr
    figures = [tmp_path / f"minibatch_bias_smoke.{form}" for form in ("pdf", "png", "svg")]
    assert all(path.stat().st_size > 5_000 for path in figures)
    summary = pd.read_csv(tmp_path / "data" / "minibatch_bias_smoke.csv")
    table = summary.pivot(index="quantity", columns="M", values="excess")
    assert (table[4] > 1.5 * table[32]).all() and (table[32] > 2 * table[128]).all()
    assert (table[128] > 0).all()
    kl = summary[summary.quantity == "monte_carlo"]
    assert (kl.excess / kl.bound).between(0.5, 1.05).all()
    directions = pd.read_csv(tmp_path / "data" / "minibatch_bias_smoke_gradient.csv")
    assert (directions[directions.M == 128].cosine > 0.9).all()
    networks = pd.read_csv(tmp_path / "data" / "minibatch_bias_smoke_networks.csv")
    assert (networks["exp(I)"] <= networks["1 + C"]).all()
    assert (tmp_path / "minibatch_bias_smoke" / "mnist" / "wiseale" / "seed0" / "run.json").is_file()


@pytest.mark.parametrize("given", [[16, 24], [64, 16]])
def test_minibatch_bias_refuses_sizes(tmp_path, given):
    done = study("31_minibatch_bias", tmp_path, "-p", "changes", f"{{'sizes': {given}}}")
    assert done.returncode == 1 and "sizes must increase and divide n = 256" in done.stderr


def test_how_wrong(tmp_path):
    """The map of Eq. 21's error has its limits; figure and data are written."""
    done = study("32_how_wrong", tmp_path)
    assert done.returncode == 0, done.stderr
    files = [tmp_path / f"how_wrong_smoke.{form}" for form in ("pdf", "png", "svg")]
    assert all(file.stat().st_size > 5_000 for file in files)
    data = tmp_path / "data"
    one_width = pd.read_csv(data / "how_wrong_smoke_map.csv").query("tau == 0")
    assert one_width.query("width > 9 or width < 0.002 and d_z > 2")["error"].between(0.95, 1.05).all()
    least = one_width.groupby(["d_z", "M"])["error"].min()
    assert least[1, 1024] < 0.1 < 0.9 < least[64, 64] and (least[1].diff().dropna() < 0).all()
    terms = pd.read_csv(data / "how_wrong_smoke_reconstruction.csv")
    assert (terms["Eq. 16"] >= terms[["Eq. 15", "Eq. 17"]].max(axis=1)).all()
    assert terms["own share"].between(0, 1).all()
    weights = pd.read_csv(data / "how_wrong_smoke_weights.csv")
    assert (weights["N/M"] == 4).all() and weights["ratio"].between(3.9, 8).all()
    assert len(pd.read_csv(data / "how_wrong_smoke.csv")) == 2


def test_how_wrong_refuses_unknown_runs(tmp_path):
    changes = "{'datasets': ['mnist', 'sine'], 'methods': ['vae']}"
    done = study("32_how_wrong", tmp_path, "-p", "changes", changes)
    assert done.returncode == 1 and "not in config: ['mnist vae', 'sine vae']" in done.stderr
    done = study("32_how_wrong", tmp_path, "-p", "changes", "{'epochs': 0}")
    assert done.returncode == 1 and "epochs at least 1, got 256 and 0" in done.stderr


def test_tighter_bound(tmp_path):
    """Bounds are in order; the smaller upper one depends on dimension and width; one row a network."""
    done = study("33_tighter_bound", tmp_path)
    assert done.returncode == 0, done.stderr
    files = [tmp_path / f"tighter_bound_smoke.{form}" for form in ("pdf", "png", "svg")]
    assert all(file.stat().st_size > 5_000 for file in files)
    slack = pd.read_csv(tmp_path / "data" / "tighter_bound_smoke_slack.csv")
    smaller = (slack["pairs"] < slack["Eq. 21"]).groupby(slack["d_z"])
    assert smaller.all()[64] and not smaller.all()[2] and smaller.any()[1]
    runs = pd.read_csv(tmp_path / "data" / "tighter_bound_smoke.csv")
    assert runs["bound"].tolist() == ["upper", "pairwise", "best", "monte_carlo"]
    assert (runs["pairs, lower"] < runs["best"]).all()
    assert (runs["best"] <= runs[["pairs", "Eq. 21"]].min(axis=1) + 1e-6).all()
    # They trained with different terms; `best` may have been `pairwise` all the way.
    assert runs["aevb_kl"].nunique() >= 3


def test_tighter_bound_refuses_other_methods(tmp_path):
    changes = "{'datasets': ['mnist', 'sine'], 'methods': ['aevb']}"
    done = study("33_tighter_bound", tmp_path, "-p", "changes", changes)
    assert done.returncode == 1 and "no WiSE-ALE runs of config: mnist aevb, sine aevb" in done.stderr
    done = study("33_tighter_bound", tmp_path, "-p", "changes", "{'bounds': ['tight']}")
    assert done.returncode == 1 and "tight" in done.stderr


def test_learning_with_eq15(tmp_path):
    """Eq. 15 ends at the data mean, Eq. 16 at one answer for all; the answers shrink as predicted."""
    done = study("34_learning_with_eq15", tmp_path)
    assert done.returncode == 0, done.stderr
    figures = [tmp_path / f"learning_with_eq15_smoke.{form}" for form in ("pdf", "png", "svg")]
    assert all(path.stat().st_size > 5_000 for path in figures)
    runs = pd.read_csv(tmp_path / "data" / "learning_with_eq15_smoke.csv").set_index(["recipe", "epoch"])
    constant = pd.read_csv(tmp_path / "data" / "learning_with_eq15_smoke_constant.csv").iloc[0]
    assert runs.own["own", 14] < constant["all"] - 5  # the code is used
    assert abs(runs["all"]["own_to_all", 14] / constant["all"] - 1) < 0.02
    assert runs.log_mean["log_mean", 14] < runs.log_mean["own", 14] - 20
    assert runs.own["log_mean", 14] > constant["all"] + 50
    slope = runs.slope["own_to_all"] / runs.slope["own_to_all", 8]
    assert slope[10] > slope[12] > slope[14] and slope[14] < 0.1
    gradient = pd.read_csv(tmp_path / "data" / "learning_with_eq15_smoke_gradient.csv")
    assert gradient.cosine.between(-1, 1).all()
    record = json.loads((tmp_path / "data" / "learning_with_eq15_smoke.json").read_text())
    assert record["step_time"]["mnist"]["AEVB"] == 1


def test_learning_with_eq15_refuses_sizes(tmp_path):
    done = study("34_learning_with_eq15", tmp_path, "-p", "changes", "{'n': 100}")
    assert done.returncode == 1 and "n must be a multiple of 64" in done.stderr


def test_beta_vae(tmp_path):
    """Partners differ only in the prior term: fresh networks are the same, the ends are not."""
    done = study("35_beta_vae", tmp_path)
    assert done.returncode == 0, done.stderr
    pictures = [tmp_path / f"beta_vae_smoke.{form}" for form in ("pdf", "png", "svg")]
    assert all(picture.stat().st_size > 5_000 for picture in pictures)
    paths = [tmp_path / "data" / f"beta_vae_smoke_{name}.csv" for name in ("way", "networks", "ends")]
    before = [path.read_bytes() for path in paths]
    way, networks, ends = (pd.read_csv(path) for path in paths)
    start = way[way.epoch == 0].pivot(index=["M", "seed"], columns="method", values="cosine")
    assert (start.wiseale == start.wiseale_per_sample).all() and (start.wiseale > 0.9).all()
    assert way.cosine.max() <= 1 + 1e-5
    assert len(way) == 2 * 2 * 2 * 2 and len(networks) == 4 * 2 * 2
    nll = networks.groupby(["M", "method"])["nll"].mean().unstack()
    found = ends[(ends.method == "wiseale") & (ends.metric == "nll")].set_index("M")["mean"]
    assert ((nll.wiseale - nll.beta_vae_inverse_m - found).abs() < 1e-2).all() and (found != 0).all()

    checkpoints = {path: path.stat().st_mtime_ns for path in tmp_path.glob("beta_vae_smoke/**/*.safetensors")}
    assert checkpoints
    done = study("35_beta_vae", tmp_path)  # nothing is trained again
    assert done.returncode == 0, done.stderr
    assert checkpoints == {
        path: path.stat().st_mtime_ns for path in tmp_path.glob("beta_vae_smoke/**/*.safetensors")
    }
    assert before == [path.read_bytes() for path in paths]


def test_beta_vae_refuses_sizes(tmp_path):
    done = study("35_beta_vae", tmp_path, "-p", "changes", "{'sizes': [64, 16]}")
    assert done.returncode == 1 and "to n_train" in done.stderr


def test_likelihood(tmp_path):
    """Widened proposals find what quadrature finds; the comparison is what its tables say."""
    runs = tmp_path / "smoke"
    for method in ("aevb", "wae_mmd"):
        given = (
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
            "progress",
            "false",
        )
        train = ("nbs/10_train.ipynb", tmp_path / "train.ipynb", *given, "-p", "out", runs / "mnist" / method)
        done = call("wiseale-run", "--quiet", *train)
        assert done.returncode == 0, done.stderr
    done = study("36_likelihood", tmp_path, "-p", "runs", runs)
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / f"likelihood_mnist_smoke.{form}").stat().st_size > 5_000 for form in FORMS)
    images = pd.read_csv(tmp_path / "data" / "likelihood_mnist_smoke_images.csv")
    error = images[["iwae", "widened", "annealed"]].sub(images.quadrature, axis=0)
    assert error.widened.abs().max() < 1
    assert (
        error.iwae.mean() < 0.5 and error.annealed.max() < 1
    )  # from below; far below where the true posterior lies far out
    table = pd.read_csv(tmp_path / "data" / "likelihood_mnist_smoke.csv").set_index("method")
    means = images.groupby("method").quadrature.mean()
    difference = means.wae_mmd - means.aevb
    assert abs(table.difference.wae_mmd - difference) < 1e-3
    assert table.low.wae_mmd <= difference <= table.high.wae_mmd
    assert (table.elbo - (table.reconstruction - table.information - table.aggregate_kl)).abs().max() < 1e-2


def test_likelihood_says_what_is_missing(tmp_path):
    done = study("36_likelihood", tmp_path, "-p", "runs", tmp_path / "none")
    assert done.returncode == 1 and "is not a finished run" in done.stderr and "make figures" in done.stderr


@pytest.mark.parametrize("changes", ["{'n_annealed': 7}", "{'n_codes': 1}", "{'methods': ['vae']}"])
def test_likelihood_refuses_sizes(tmp_path, changes):
    done = study("36_likelihood", tmp_path, "-p", "changes", changes)
    assert done.returncode == 1 and "n_annealed <= n_images <= n_posteriors" in done.stderr


def test_cited_methods(tmp_path):
    """Every cited method trains at every weight; a heavy weight brings the codes nearer to the prior."""
    done = study("37_cited_methods", tmp_path)
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / f"cited_methods_smoke.{form}").stat().st_size > 5_000 for form in FORMS)
    runs = pd.read_csv(tmp_path / "data" / "cited_methods_smoke.csv")
    assert len(runs) == 14 and {"wae_gan", "wae_gan_added", "aae", "sinkhorn_ae", "gm_vae"} < set(runs.method)
    sinkhorn = runs[runs.method == "sinkhorn_ae"].set_index("setting").sinkhorn
    assert sinkhorn.loc["weight 100"] < 0.7 * sinkhorn.loc["weight 1"]


def test_cited_methods_refuses_nothing_to_do(tmp_path):
    done = study("37_cited_methods", tmp_path, "-p", "changes", "{'components': []}")
    assert done.returncode == 1 and "need an entry each" in done.stderr


def test_sensitivity(tmp_path):
    """Every choice is judged for both weights; a comparison is flipped exactly if its outcome changed."""
    done = study("38_sensitivity", tmp_path)
    assert done.returncode == 0, done.stderr
    flips = pd.read_csv(tmp_path / "data" / "sensitivity_smoke_flips.csv")
    counts = {"Gaussian pixels": 10, "β = 2": 2, "β = 10": 2, "λ = 1": 4, "λ = 100": 4}
    assert flips.groupby("choice").size().to_dict() == counts
    assert ((flips["as reported"] != flips["with the choice"]) == flips.flips.astype(bool)).all()
    values = pd.read_csv(tmp_path / "data" / "sensitivity_smoke_values.csv")
    assert len(values) == 2 * 14 and not values.isna().any(axis=None)
    # Judged here from the networks: the choice's own where it touches the method, else the reported ones.
    networks = {key: rows.set_index("seed")["mse"] for key, rows in values.groupby(["choice", "method"])}
    judged = flips[flips.comparison.str.startswith("mse smaller than")]
    assert judged.flips.any()  # or a wrong row would not be seen
    for row in judged.itertuples():
        other = row.comparison.split("than ")[1].removesuffix("'s")
        for choice, found in (("as reported", row[6]), (row.choice, row[7])):
            pair = [
                networks.get((choice, method), networks["as reported", method])
                for method in (row.method, other)
            ]
            outcome = paired_test(*pair).outcome
            assert found == {"smaller": "yes", "larger": "no"}.get(outcome, outcome), row


def test_sensitivity_refuses_other_datasets(tmp_path):
    done = study("38_sensitivity", tmp_path, "-p", "changes", "{'datasets': ['teapot']}")
    assert done.returncode == 1 and "datasets must be some of mnist and sine" in done.stderr


def test_rate_distortion(tmp_path):
    """The rate is information plus aggregate KL; nothing lies below and left of the front."""
    done = study("39_rate_distortion", tmp_path)
    assert done.returncode == 0, done.stderr
    pictures = [tmp_path / f"rate_distortion_smoke.{form}" for form in ("pdf", "png", "svg")]
    assert all(picture.stat().st_size > 5_000 for picture in pictures)
    table = pd.read_csv(tmp_path / "data" / "rate_distortion_smoke.csv")
    methods = {"aevb", "beta_vae", "wae_mmd", "wiseale", "wiseale_per_sample"}
    assert len(table) == 8 and set(table.method[table.marked]) == methods
    assert set(table.M[table.marked]) == {64} and (table.steps == 2 * (192 // table.M)).all()
    assert ((table.rate - table["aggregate"] - table["information"]).abs() < 1e-3 * (1 + table.rate)).all()
    for x, front in (("rate", "R, D"), ("aggregate", "A, D")):
        points = list(zip(table[x], table.distortion))
        best = [not any(p != q and p[0] <= q[0] and p[1] <= q[1] for p in points) for q in points]
        assert table[front].tolist() == best and any(best)


def test_weight_sweep(tmp_path):
    """A network for each point and seed; a second call reads what the first has trained."""
    done = study("43_weight_sweep", tmp_path)
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / f"weight_sweep_smoke.{form}").stat().st_size > 5_000 for form in FORMS)
    table = pd.read_csv(tmp_path / "data" / "weight_sweep_smoke.csv")
    keys = ["likelihood", "network", "method", "weight", "seed"]
    assert len(table) == len(table[keys].drop_duplicates()) == 16
    assert table["ascribed"].between(1 / 64 - 0.001, 1).all() and table["overlap"].between(0, 1).all()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("weight_sweep_smoke/*/*.csv")}
    assert len(kept) == 8
    assert study("43_weight_sweep", tmp_path).returncode == 0
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())


def test_weight_sweep_refuses_networks(tmp_path):
    done = study("43_weight_sweep", tmp_path, "-p", "changes", "{'networks': ['transformer']}")
    assert done.returncode == 1 and "networks must be convolutional or perceptron" in done.stderr


def test_slack(tmp_path):
    """Two weights of each objective around its predicted boundary; a second call trains nothing."""
    done = study("45_slack", tmp_path)
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / f"slack_smoke.{form}").stat().st_size > 5_000 for form in FORMS)
    table = pd.read_csv(tmp_path / "data" / "slack_smoke.csv")
    assert len(table) == (2 + 2 * 2) * 2 * 2 and (table["rate"] >= 0).all()
    assert ((table["larger"] + table["smaller"]) / table["rate"] - 1).abs().max() < 1e-3
    variance = json.loads((tmp_path / "data" / "slack_smoke.json").read_text())["variances"][0]
    prices = table["objective"].map({"vae": 1.0}).fillna((1 + 1 / table["M"]) / 2)
    prices[table["objective"] == "upper"] = 1 / table["M"]
    assert (table["weight"] / (table["factor"] * variance / prices) - 1).abs().max() < 0.01
    linear = pd.read_csv(tmp_path / "data" / "slack_smoke_linear.csv").set_index(["objective", "M"])
    heavy = linear[linear["weight"] == 4096]
    assert (heavy["from_heap"] < 0.01).all() and heavy.loc[("upper", 32), "from_apart"] > 0.5
    assert (heavy.loc["pairwise", "from_apart"] < 0.01).all()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("slack_smoke/*/*.csv")}
    assert study("45_slack", tmp_path).returncode == 0
    assert kept and all(path.stat().st_mtime_ns == at for path, at in kept.items())


@pytest.mark.parametrize("given", ["{'bounds': ['joint']}", "{'sizes': [20]}"])
def test_slack_refuses_sizes(tmp_path, given):
    done = study("45_slack", tmp_path, "-p", "changes", given)
    assert done.returncode == 1 and "make whole epochs of the steps" in done.stderr


def test_when_it_matters(tmp_path):
    """Eq. 21 is below the VAE's term at high rates; free posteriors are better than random ones."""
    done = study("46_when_it_matters", tmp_path)
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / f"when_it_matters_smoke.{form}").stat().st_size > 5_000 for form in FORMS)
    cost, free = (
        pd.read_csv(tmp_path / "data" / f"when_it_matters_smoke{name}.csv") for name in ("", "_free")
    )
    assert (free.set_index("M")["cost"] < cost.groupby("M")["cost"].min()).all()
    high = cost[cost["rate"] > 6]
    assert len(high) and (high["cost"] < high["rate"]).all()


def test_when_it_matters_refuses_sizes(tmp_path):
    done = study("46_when_it_matters", tmp_path, "-p", "changes", "{'sizes': [16]}")
    assert done.returncode == 1 and "the networks' batch size among them" in done.stderr


def test_rate_distortion_refuses_sizes(tmp_path):
    done = study("39_rate_distortion", tmp_path, "-p", "changes", "{'sizes': [16, 1024]}")
    assert done.returncode == 1 and "to n_train" in done.stderr


def test_equal_rate(tmp_path):
    """A network for each weight and seed; no search is longer than allowed; a second call trains nothing."""
    done = study("48_equal_rate", tmp_path)
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / f"equal_rate_smoke.{form}").stat().st_size > 5_000 for form in FORMS)
    table = pd.read_csv(tmp_path / "data" / "equal_rate_smoke.csv")
    assert len(table) == len(table[["method", "weight", "seed"]].drop_duplicates()) == 4 * 3
    for task in ("completing", "cleaning"):
        found, steps = table[f"{task}_found"], table[f"{task}_steps"]
        assert found.between(0, 1).all() and steps.between(0, 10).all() and (steps[found == 0] == 10).all()
    assert (table["cleaning_error"] > table["completing_error"]).all()  # of all pixels, of half of them
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("equal_rate_smoke/*/*.csv")}
    assert study("48_equal_rate", tmp_path).returncode == 0
    assert len(kept) == 4 and all(path.stat().st_mtime_ns == at for path, at in kept.items())


@pytest.mark.parametrize("given", ["{'seeds': [0, 1]}", "{'n_search': 65}", "{'noise': 0.0}"])
def test_equal_rate_refuses_sizes(tmp_path, given):
    done = study("48_equal_rate", tmp_path, "-p", "changes", given)
    assert done.returncode == 1 and ("are needed" in done.stderr or "must be" in done.stderr)


def test_cited_methods_refuses_unknown_ones(tmp_path):
    done = study("37_cited_methods", tmp_path, "-p", "changes", "{'methods': ['wae']}")
    assert done.returncode == 1 and "methods must be some of ['aae', 'aevb'," in done.stderr
