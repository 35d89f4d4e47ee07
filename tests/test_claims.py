"""The claims: verdicts follow from the tables, by rule, and those of the committed tables do not change."""

import math
import re
from dataclasses import replace

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, call

from wiseale_nb import figures
from wiseale_nb.claims import Tables, read_claims
from wiseale_nb.claims_measure import curve_values
from wiseale_nb.claims_tables import read_readings, read_tables
from wiseale_nb.claims_text import claim_text, theme_text
from wiseale_nb.comparison import equivalence
from wiseale_nb.core import ParameterError
from wiseale_nb.figures import figure_job
from wiseale_nb.representation import dci, separation, tiling
from wiseale_nb.verdicts import equivalence_table, judge, verdict_of, verdict_table

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
    return judge(claim(key), tables, CLAIMS, method).verdict


def joined(*parts):
    """Tables with the values of several."""
    values, runs = pd.concat([t.values for t in parts]), pd.concat([t.runs for t in parts])
    return replace(parts[0], values=values, runs=runs)


def outcomes(key, tables, method="wiseale", claims=CLAIMS):
    return [o.holds for o in judge(claim(key), tables, claims, method).outcomes]


RIVALS = {"aevb": [2.0, 2.1, 1.9], "beta_vae": [3.0, 3.1, 2.9], "wae_mmd": [2.5, 2.6, 2.4]}


@pytest.mark.parametrize(
    "ours, expected",
    [
        ([1.0, 1.1, 0.9], "undecided"),  # MSE below all three; there are no runs for the other metric
        ([2.2, 2.3, 2.1], "not reproduced"),  # below two of them
        ([4.0, 4.1, 3.9], "not reproduced"),
        ([2.0, 3.1, 2.4], "undecided"),
        ([1.0], "cannot be tested here"),
        ([], "cannot be tested here"),
    ],
)
def test_a_difference(ours, expected):
    """A superlative: a smaller error than all, a larger one than any is not; one seed is not enough."""
    assert verdict("5.1-2", made(RIVALS | {"wiseale": ours})) == expected


def test_a_superlative_holds_against_all():
    """Both metrics below all three rivals; above one of them in one metric refutes it."""
    best = {"wiseale": [1.0, 1.1, 0.9], **RIVALS}
    nll = made({name: [100 * v for v in values] for name, values in best.items()}, "nll")
    assert verdict("5.1-2", joined(made(best), nll)) == "reproduced"
    second = made(best | {"aevb": [0.5, 0.6, 0.4]})
    assert verdict("5.1-2", joined(second, nll)) == "not reproduced"


def test_superlatives_are_marked():
    """A quotation that puts one method above all others needs all comparisons, and is never "partly"."""
    above_all = re.compile("highest|consistently|closest|significantly lower")
    marked = {c.key for c in CLAIMS.claims if c.needs_all}
    assert {c.key for c in CLAIMS.claims if above_all.search(c.quote)} == marked - {"1-7"}
    kinds = ["yes", "no", "open", "one seed", "no runs", "collapsed"]
    random = np.random.default_rng(0)
    for drawn in (random.choice(kinds, random.integers(1, 6)).tolist() for _ in range(300)):
        found = verdict_of(drawn, needs_all=True)
        assert found != "partly"
        assert (found == "not reproduced") == ("no" in drawn)
        assert verdict_of(drawn + ["collapsed"]) == verdict_of(drawn)


def test_specks_have_no_narrow_borders():
    """Separated means apart and near: specks are too far, merged posteriors overlap as AEVB's do."""
    overlap = {"aevb": [0.4, 0.42, 0.38]}
    cases = {  # overlap and distance of the nearest
        "reproduced": ([0.2, 0.21, 0.19], [2.0, 2.1, 2.2]),
        "not reproduced": ([0.001, 0.002, 0.001], [100.0, 120.0, 90.0]),
    }
    for expected, (own, distance) in cases.items():
        near = made({"wiseale": distance}, "neighbour_distance")
        assert verdict("1-7", joined(made(overlap | {"wiseale": own}, "neighbour_overlap"), near)) == expected
    specks = made(overlap | {"wiseale": [0.001, 0.002, 0.001]}, "neighbour_overlap")
    assert verdict("1-7", specks) == "not reproduced"  # by the overlap, where the distance was not measured
    merged = joined(made(overlap | {"wiseale": [0.5, 0.52, 0.48]}, "neighbour_overlap"))
    assert verdict("1-7", merged) == "not reproduced"


# A rival that has collapsed


def collapsed(method, metric="aevb_kl", dataset="mnist", **others):
    """A method with next to no KL, beside the values of others."""
    return made({method: [1e-4, 2e-4, 1e-4], **{m: [v] * 3 for m, v in others.items()}}, metric, dataset)


def test_a_collapsed_rival_does_not_count():
    """Better than a rival that has learnt nothing is no merit; its own collapse is the judged method's."""
    tables = made(RIVALS | {"wiseale": [2.2, 2.3, 2.1], "beta_vae": [9.0, 9.1, 8.9]})
    assert outcomes("5.1-2", tables)[:3] == ["no", "yes", "yes"]
    assert outcomes("5.1-2", joined(tables, collapsed("beta_vae", aevb=5.0)))[:3] == [
        "no",
        "collapsed",
        "yes",
    ]
    of_points = collapsed("wae_mmd", "decoding_spread", aevb=0.2)  # a deterministic encoder has no KL
    assert outcomes("5.1-2", joined(tables, of_points))[:3] == ["no", "yes", "collapsed"]
    assert outcomes("5.1-2", joined(tables, collapsed("wiseale")))[:3] == ["no", "yes", "yes"]


def test_a_claim_about_collapse_counts_it():
    """β-VAE's bottleneck is what the paper says of it; its errors at low frequencies are no evidence."""
    overlap = made({"beta_vae": [1.0, 1.0, 1.0], "aevb": [0.2, 0.21, 0.19]}, "neighbour_overlap")
    assert outcomes("1-4", joined(overlap, collapsed("beta_vae", aevb=5.0)))[:2] == ["yes", "yes"]
    low = made({"beta_vae": [2.0, 2.1, 2.2], "aevb": [0.5, 0.5, 0.5]}, "low_to_high", "sine")
    low = joined(low, collapsed("beta_vae", dataset="sine", aevb=5.0))
    assert outcomes("5.1-6", low)[2:] == ["no", "collapsed"]


def test_a_collapsed_rival_is_replaced_by_the_best_of_its_grid():
    """The smallest loss at the rival's own weight decides, and a grid that collapses too is no help."""
    errors = made(
        RIVALS | {"wiseale": [2.2, 2.3, 2.1], "beta_vae_2": [1.0, 1.1, 0.9], "beta_vae_3": [5.0] * 3}
    )
    kl = collapsed("beta_vae", beta_vae_2=3.0, beta_vae_3=2.0, aevb=5.0, wae_mmd=5.0)

    def with_losses(**losses):
        return joined(errors, kl, made({m: [v] * 3 for m, v in losses.items()}, "own_loss"))

    best = judge(claim("5.1-2"), with_losses(beta_vae=9.0, beta_vae_2=5.0, beta_vae_3=6.0), CLAIMS)
    assert [o.comparison.against for o in best.outcomes[:3]] == ["aevb", "beta_vae_2", "wae_mmd"]
    assert best.outcomes[1].holds == "no"
    assert outcomes("5.1-2", with_losses(beta_vae=4.0, beta_vae_2=5.0))[1] == "collapsed"


# Whole curves


def curves_of(**methods):
    """Training curves, the same for three seeds."""
    tables = [
        pd.DataFrame(
            {"epoch": range(len(e)), "elbo": e, "method": m, "seed": k, "reconstruction": -np.array(e)}
        )
        for m, e in methods.items()
        for k in range(3)
    ]
    values = curve_values(pd.concat(tables).assign(aevb_kl=1.0)).assign(profile="quick", dataset="sine")
    empty = made({})
    return replace(empty, values=values, runs=values.assign(d_z=4))


def test_figure_6_is_judged_by_the_whole_curve():
    """Ahead in most epochs and caught up; and behind until the last epoch."""
    early, late, low = [-9.0, -4.0, -3.0, -3.0], [-20.0, -15.0, -10.0, -2.0], [-30.0, -30.0, -30.0, -30.0]
    quick = curves_of(wiseale=early, aevb=late, beta_vae=low)
    assert verdict("5.2-1", quick) == verdict("5.2-2", quick) == "reproduced"
    slow = curves_of(wiseale=late, aevb=early, beta_vae=low)
    assert verdict("5.2-1", slow) == verdict("5.2-2", slow) == "not reproduced"
    assert outcomes("5.2-1", slow) == ["no", "yes", "no", "yes"]


def test_a_curve_without_kl_is_not_ahead():
    """A deterministic encoder has no ELBO: nothing is claimed of its curve."""
    nothing = curves_of(wiseale=[math.nan] * 3, aevb=[-3.0, -2.0, -1.0], beta_vae=[-9.0] * 3)
    assert verdict("5.2-1", nothing) != "not reproduced" and "no" not in outcomes("5.2-1", nothing)


# The same


def test_no_difference_shown_is_not_the_same():
    """Only an interval inside the margin proves equality; noise, few seeds and a wide interval do not."""
    noisy = {"wiseale": [1.0, 3.0, 2.0], "beta_vae_inverse_m": [2.0, 1.0, 3.0]}
    tight = {"wiseale": [100.0, 101.0, 102.0], "beta_vae_inverse_m": [100.1, 100.9, 102.1]}
    apart = {"wiseale": [100.0, 101.0, 102.0], "beta_vae_inverse_m": [110.1, 110.9, 112.1]}
    for values, expected in ((noisy, "open"), (tight, "same"), (apart, "apart")):
        table = equivalence_table(CLAIMS, made(values, "nll"))
        assert table[["metric", "margin", "outcome"]].values.tolist() == [["nll", 1.0, expected]]
    two = {name: values[:2] for name, values in tight.items()}
    assert equivalence_table(CLAIMS, made(two, "nll")).outcome.tolist() == ["open"]


def test_equivalence_is_the_interval_inside_the_margin():
    """By hand for three differences: mean 0.1, standard error 0.0577, t(0.95, 2) = 2.92."""
    one, zero = pd.Series([0.0, 0.1, 0.2]), pd.Series([0.0, 0.0, 0.0])
    half = 2.919986 * 0.1 / math.sqrt(3)
    found = equivalence(one, zero, 0.1 + half + 1e-3)
    assert found.outcome == "same"
    assert (found.low, found.high) == pytest.approx((0.1 - half, 0.1 + half), rel=1e-5)
    assert equivalence(one, zero, 0.1 + half - 1e-3).outcome == "open"
    assert equivalence(zero, one, 0.1 + half + 1e-3).outcome == "same"


# Shapes of posteriors


def placed(width, seed, d=2, scale=1.0):
    """64 random posteriors, scaled and moved."""
    g = torch.Generator().manual_seed(seed)
    mu = torch.randn(64, d, generator=g, dtype=torch.float64)
    return scale * mu + 5 * torch.rand(d, generator=g), torch.full(
        (64, d), 2 * math.log(width * scale)
    ).double()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("d", [2, 4, 10])
def test_specks_and_heaps_do_not_tile(seed, d):
    """Zero at both ends, something between, whatever place and unit the codes have."""
    scale = 10.0 ** (seed - 1)
    ends = [tiling(*placed(w, seed, d, scale))["tiling"] for w in (1e-6, 1e-4, 100.0)]
    assert 0 <= min(ends) and max(ends) < 1e-3
    between = [tiling(*placed(w, seed, d, scale))["tiling"] for w in np.geomspace(0.05, 2, 9)]
    assert 0.05 < max(between) <= 1
    assert tiling(*placed(0.3, seed, d, scale)) == pytest.approx(tiling(*placed(0.3, seed, d)))


def test_points_are_specks():
    """The posteriors of a deterministic encoder have no width; nothing that is measured is NaN."""
    mu, _ = placed(1.0, 0)
    points = mu, torch.full_like(mu, -70.0)
    assert tiling(*points)["tiling"] < 1e-9
    shapes = separation(*points)
    assert (
        shapes["own_share"] == 1 and shapes["neighbour_overlap"] == 0 and shapes["neighbour_distance"] > 1e6
    )


@pytest.mark.parametrize("factor", [1e-6, 1.0, 3.0])
def test_outer_minus_inner_is_steady(factor):
    """Specks, of which few touch, do not blow it up; merging in the outer half is positive."""
    mu, log_var = placed(0.01 * factor, 1)
    mu = mu - mu.mean(0)
    assert abs(separation(mu, log_var)["outer_minus_inner"]) < 0.2
    far = mu.norm(dim=1, keepdim=True) > mu.norm(dim=1).median()
    assert separation(mu, torch.where(far, 0.0, log_var))["outer_minus_inner"] > 0.3


def test_dci_does_not_see_where_an_angle_begins():
    """A turned azimuth has the same scores; so does a turned phase."""
    g = torch.Generator().manual_seed(0)
    angle, other = 6.2832 * torch.rand(600, generator=g), torch.rand(600, generator=g)
    blurred = 0.1 * torch.randn(600, 2, generator=g) + torch.stack([angle.cos(), angle.sin()], 1)
    codes = torch.cat([blurred, other[:, None]], 1)
    scores = []
    for zero in (0.0, 2.0):
        circle = torch.stack([(angle - zero).sin(), (angle - zero).cos()], 1)
        scores.append(dci(codes, {"angle": circle.numpy(), "other": other.numpy()}, trees=5))
    assert scores[0] == pytest.approx(scores[1], abs=0.01)


# Reports of committed tables


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
    assert outcomes("5.2-6", made(nats, "elbo", "sine")) == ["no runs", "no runs", "open", "yes"]


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


COMMITTED = sorted(path.parents[1].name for path in ROOT.glob("figures/*/data/claims_values.csv"))


@pytest.mark.parametrize("profile", COMMITTED)
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
        return "\n".join(theme_text(theme, {profile: tables}, CLAIMS) for theme in CLAIMS.themes)

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
    assert "| teapot (images): MSE | WiSE-ALE: " in text
    assert printed(text, "5.1-3") == "undecided" and printed(text, "4-1") == "partly"


def test_each_reading_has_its_verdicts(monkeypatch):
    """Where the tables of the second reading are committed, every claim is judged by them too."""
    job, known = figure_job("claims", profile="paper"), figures.committed_table
    assert list(read_readings(job, CLAIMS))[0] == "as printed"

    def half_the_error(name):
        table = known(name.replace("pictured", "quick"))
        if name != "pictured/data/claims_values.csv":
            return table
        ours = (table.method == "wiseale") & table.metric.isin(["mse", "nll"]) & (table.dataset == "mnist")
        return table.assign(value=table.value.where(~ours, 0.1 * table.value))

    monkeypatch.setattr(figures, "committed_table", half_the_error)
    readings = read_readings(job, CLAIMS)
    assert list(readings) == ["as printed", "as pictured"]
    assert readings["as pictured"].judged_on["mnist"] == "pictured"
    text = claim_text(claim("5.1-2"), readings, CLAIMS)
    assert (
        "**Verdict: undecided.**" in text
        and "\n\nAs pictured: WiSE-ALE: reproduced; WiSE-ALE, per-sample" in text
    )
    assert list(read_readings(figure_job("claims", profile="quick"), CLAIMS)) == ["quick"]


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
