"""The claims: verdicts follow from the tables, by rule, and those of the committed tables do not change."""

import re

import nbformat
import pandas as pd
import pytest
from conftest import ROOT, call

from wiseale_nb.claims import Tables, judge, read_claims, verdict_table
from wiseale_nb.claims_measure import read_tables
from wiseale_nb.claims_text import theme_text
from wiseale_nb.core import ParameterError
from wiseale_nb.figures import figure_job

CLAIMS = read_claims()
COLUMNS = ["profile", "dataset", "seed", "metric", "method", "other", "difference", "standard_error"]


def made(values, metric="mse", dataset="mnist", **pairs):
    """Tables with a metric of some methods by seed, and differences by sample of WiSE-ALE and another."""
    rows = [(m, seed, v) for m, by_seed in values.items() for seed, v in enumerate(by_seed)]
    frame = pd.DataFrame(rows, columns=["method", "seed", "value"])
    frame = frame.assign(profile="quick", dataset=dataset, metric=metric)
    samples = [
        ("quick", dataset, seed, metric, other, "wiseale", -d, error)
        for other, by_seed in pairs.items()
        for seed, (d, error) in enumerate(by_seed)
    ]
    studies = pd.DataFrame(columns=["dataset", "method", "seed", "metric", "value"])
    runs = frame[["profile", "dataset", "method", "seed"]].assign(d_z=2)
    return Tables("quick", frame, pd.DataFrame(samples, columns=COLUMNS), runs, studies)


def claim(key):
    return next(c for c in CLAIMS.claims if c.key == key)


def verdict(key, tables, method="wiseale"):
    return judge(claim(key), tables, CLAIMS.metrics, method).verdict


RIVALS = {"aevb": [2.0, 2.1, 1.9], "beta_vae": [3.0, 3.1, 2.9], "wae_mmd": [2.5, 2.6, 2.4]}


@pytest.mark.parametrize(
    "ours, expected",
    [
        ([1.0, 1.1, 0.9], "partly"),  # MSE below all three; there are no runs for the other metric
        ([2.2, 2.3, 2.1], "partly"),  # below two of them
        ([4.0, 4.1, 3.9], "not reproduced"),
        ([2.0, 3.1, 2.4], "undecided"),
        ([1.0], "cannot be tested here"),
        ([], "cannot be tested here"),
    ],
)
def test_a_difference(ours, expected):
    """A smaller error is what the claim says, a larger one is not; one seed is not enough."""
    assert verdict("5.1-2", made(RIVALS | {"wiseale": ours})) == expected


def test_all_comparisons_must_hold():
    """A claim with a single metric is reproduced by it."""
    tables = made({"wiseale": [1.0, 1.1, 0.9], **RIVALS}, "low_mse", "sine")
    assert verdict("5.1-6", tables) == "partly"  # no runs for the limits
    tables = made({"wiseale": [1.0, 1.1, 0.9], **RIVALS}, "amplitude_error", "sine")
    assert verdict("5.1-7", tables) == "reproduced"
    assert verdict("5.1-7", tables, "wae_mmd") == "partly"  # in WiSE-ALE's place: below one of two
    assert verdict("5.1-7", tables, "gm_vae") == "cannot be tested here"


def test_two_seeds_are_a_hint():
    """With two seeds the differences by sample must agree."""
    two = {"wiseale": [1.0, 1.1], "aevb": [2.0, 2.1], "beta_vae": [2.0, 2.1]}
    sure = {"aevb": [(-1.0, 0.1), (-1.0, 0.1)], "beta_vae": [(-1.0, 0.1), (-1.0, 0.1)]}
    unsure = {name: [(-1.0, 0.1), (-1.0, 0.5)] for name in sure}
    assert verdict("5.1-7", made(two, "amplitude_error", "sine")) == "reproduced"
    assert verdict("5.1-7", made(two, "amplitude_error", "sine", **sure)) == "reproduced"
    assert verdict("5.1-7", made(two, "amplitude_error", "sine", **unsure)) == "undecided"


@pytest.mark.parametrize(
    "values, expected",
    [
        ([0.003, 0.004, 0.005], "reproduced"),
        ([0.1, 0.11, 0.12], "not reproduced"),
        ([0.0, 0.01, 0.02], "undecided"),
        ([0.009, 0.0099], "reproduced"),
    ],
)
def test_a_level(values, expected):
    """A limit holds if the interval over seeds is on its side."""
    assert verdict("5.1-5", made({"wiseale": values}, "unexplained", "sine")) == expected


def test_a_small_difference_does_not_matter():
    """Shares must differ by 0.02, however sure that is; nats by half of one."""
    share = {"wiseale": [0.10, 0.20, 0.30], "beta_vae": [0.09, 0.19, 0.29]}
    assert verdict("D-2", made(share, "mig", "sine")) == "undecided"
    share["wiseale"] = [0.13, 0.23, 0.33]
    assert verdict("D-2", made(share, "mig", "sine")) == "partly"
    nats = {"wiseale": [-100.0, -101.0, -102.0], "aevb": [-100.4, -101.4, -102.4], "beta_vae": [-200.0] * 3}
    judged = judge(claim("5.2-1"), made(nats, "elbo", "sine"), CLAIMS.metrics)
    assert [o.holds for o in judged.outcomes] == ["no runs", "no runs", "open", "yes"]


def test_a_claim_can_be_added(tmp_path):
    """One block in claims.yaml, and it is judged."""
    block = """
  5.1-11:
    theme: waves
    name: amplitudes within a tenth
    where: a test
    quote: nothing
    statement: the mean error is at most a tenth
    comparisons:
      - {dataset: sine, metric: amplitude_error, at_most: 0.1}
"""
    path = tmp_path / "claims.yaml"
    path.write_text((ROOT / "claims.yaml").read_text().rstrip() + block)
    claims = read_claims(path)
    table = verdict_table(claims, made({"wiseale": [0.05, 0.06, 0.07]}, "amplitude_error", "sine"))
    assert table.iloc[-1][["claim", "wiseale"]].tolist() == ["5.1-11", "reproduced"]
    path.write_text(path.read_text() + block)
    with pytest.raises(ParameterError, match=r"5.1-11 more than once"):
        read_claims(path)


@pytest.mark.parametrize("profile", ["quick", "tenth", "paper"])
def test_committed_verdicts(profile):
    """The verdicts of the committed tables are those of tests/verdicts.csv; a change there must be meant."""
    expected = pd.read_csv(ROOT / "tests" / "verdicts.csv").query("profile == @profile")
    table = verdict_table(CLAIMS, read_tables(figure_job("claims", profile=profile), CLAIMS))
    found = table.drop(columns="name").set_index("claim")
    pd.testing.assert_frame_equal(found, expected.drop(columns="profile").set_index("claim"))


@pytest.fixture
def report(tmp_path):
    """The text of the claims report on the committed tables, edited."""

    def run(edit=lambda name, table: table, profile="quick"):
        (tmp_path / "data").mkdir(exist_ok=True)
        for path in (ROOT / "figures" / profile / "data").glob("claims_*.csv"):
            edit(path.stem, pd.read_csv(path)).to_csv(tmp_path / "data" / path.name, index=False)
        tables = read_tables(figure_job("claims", profile=profile, out=str(tmp_path)), CLAIMS)
        return "\n".join(theme_text(theme, tables, CLAIMS) for theme in CLAIMS.themes)

    return run


def printed(text, key):
    """The verdict of one claim in the text."""
    return re.search(r"\*\*Verdict: (.*?)\.\*\*", text[text.index(f"**{key} ") :])[1]


def scaled(method, factor):
    """Edit the errors of a method on MNIST; differences by sample are left out."""

    def edit(name, table):
        if name == "claims_pairs":
            return table[table.metric != "mse"]
        if name == "claims_values":
            errors = (table.dataset == "mnist") & table.metric.isin(["mse", "nll"]) & (table.method == method)
            table.loc[errors, "value"] *= factor
        return table

    return edit


def test_report_follows_the_tables(report):
    """A better WiSE-ALE is reproduced, a worse one is not; one seed is said to be one."""
    better = report(scaled("wiseale", 0.5))
    assert printed(better, "5.1-2") == "reproduced" and "6 of 6 comparisons hold" in better
    worse = report(scaled("wiseale", 2))
    assert printed(worse, "5.1-2") == "not reproduced"
    assert "contradicted by MSE on mnist (AEVB, β-VAE, WAE-MMD)" in worse
    assert printed(worse, "3-1") == "partly"  # a digit's error is one of its four comparisons
    single = report(lambda name, table: table[table.seed == 0])
    assert printed(single, "5.1-2") == "cannot be tested here"
    assert "(one seed)" in single and "One seed only for MSE on mnist" in single
    assert printed(single, "3-5") == "reproduced"  # measured by the benchmark


def test_report_at_the_papers_size(report):
    """Data sets with one seed or none come from the profile that has more, and say so."""
    text = report(profile="paper")
    assert "| mnist: MSE | WiSE-ALE: " in text and "5 seeds" in text
    assert "| mnist: log p(x), quadrature |" in text
    assert "| sine (tenth): MSE | WiSE-ALE: " in text and "[paper: " in text
    assert "3 seeds" in text and "| sine: MSE " not in text
    assert "| teapot (quick): MSE | WiSE-ALE: " in text
    assert printed(text, "5.1-3") == "cannot be tested here"


def test_equal_values_are_undecided(report):
    """Where all methods have the same values nothing is smaller or larger."""

    def edit(name, table):
        return table.assign(value=table.seed.astype(float)) if name == "claims_values" else table

    assert printed(report(edit, profile="paper"), "1-7") == "undecided"


def test_damaged_tables(report):
    """A table that is cut short is named."""
    with pytest.raises(ParameterError, match=r"claims_values\.csv"):
        report(lambda name, table: table[:0] if name == "claims_values" else table)


def test_notebook(tmp_path):
    """The report itself, drawn and printed from the committed tables."""
    for path in (ROOT / "figures" / "quick" / "data").glob("claims_*.csv"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / path.name).write_bytes(path.read_bytes())
    notebook, out = "nbs/30_claims.ipynb", tmp_path / "out.ipynb"
    done = call("wiseale-run", "--quiet", notebook, out, "-p", "profile", "quick", "-p", "out", tmp_path)
    assert done.returncode == 0, done.stderr
    outputs = [o for cell in nbformat.read(out, 4).cells for o in cell.get("outputs", [])]
    text = "\n".join(o.get("data", {}).get("text/markdown", "") for o in outputs)
    assert len(re.findall(r"\*\*Verdict: ", text)) == len(CLAIMS.claims)
    committed = ROOT / "figures" / "quick" / "claims.png"
    assert (tmp_path / "claims.png").read_bytes() == committed.read_bytes()
