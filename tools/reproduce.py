"""Train a profile again from nothing, and compare what comes out with its committed data.

The bits of a training run follow from settings, seeds and code, and from what `bits_depend_on` lists. If
that is the same for all runs, the figure data must be the same to the byte. Otherwise rounding differs,
training amplifies it, and only the metrics can be compared, within the spread of the committed seeds.
"""

import json
import os
import shutil

import pandas as pd

from wiseale_nb.core import data_root
from wiseale_nb.figures import load_figures
from wiseale_tools import CallError
from wiseale_tools.manifest import checksum, read_manifest

SOURCES = (
    *("Snakefile", "settings.ini", "figures.yaml", "claims.yaml"),
    *("config", "profiles", "nbs", "wiseale_nb", "data_scripts"),
)
MACHINE = ("architecture", "cpu", "instruction_set", "threads", "device", "gpu")


def bits_depend_on(info):
    """What, besides settings and code, decides the bits of a run; `info` is its run.json or its record."""
    kind = {key: info["machine"].get(key) for key in MACHINE}
    on_gpu = kind["device"] != "cpu"  # there the seeds share their computation
    return kind | {
        "torch": info["versions"]["torch"],
        "trained_with": info["trained_with"] if on_gpu else None,
    }


def compare_metrics(committed, fresh):
    """Compare two tables of metrics within the spread of the committed seeds.

    Another seed changes data, first weights and order; another machine changes the rounding only. So a run
    may differ from its committed counterpart by no more than two committed seeds of one method differ, in
    that data set and metric, for the method where they differ most. With one seed there is no spread, and
    the metric is not compared.

    Returns a frame with a row for each data set and metric: the largest difference, with its method and
    seed, the tolerance, and whether it is `same` (None: not compared).
    """
    keys = ["dataset", "metric", "method", "seed"]
    old, new = (table.groupby(keys)["value"].mean() for table in (committed, fresh))  # over axes, if any
    if not old.index.equals(new.index):
        raise CallError("the committed metrics are of other runs than those the profile now has")
    tolerance = old.groupby(keys[:3]).agg(spread).groupby(keys[:2]).max()
    rows = []
    for (dataset, metric), difference in (new - old).abs().groupby(keys[:2]):
        _, _, method, seed = difference.idxmax()
        largest, allowed = difference.max(), tolerance[dataset, metric]
        same = None if pd.isna(allowed) else bool(largest <= allowed)
        rows.append((dataset, metric, largest, method, seed, allowed, same))
    columns = ["dataset", "metric", "difference", "method", "seed", "tolerance", "same"]
    return pd.DataFrame(rows, columns=columns)


def spread(values):
    """Largest minus smallest; not a number for a single value."""
    return values.max() - values.min() if len(values) > 1 else float("nan")


def same_numbers(one, other):
    """True if two CSV files agree in everything but the sixth digit of their numbers (1e-6 below 0.1)."""
    try:
        pd.testing.assert_frame_equal(pd.read_csv(one), pd.read_csv(other), rtol=1e-5, atol=1e-6)
    except AssertionError:
        return False
    return True


def same_bytes(one, other):
    """True if both files are there, with the same bytes."""
    return other.is_file() and checksum(one) == checksum(other)


def compare(root, copy, profile):
    """Compare the figure data of two projects: byte by byte if trained alike, else number by number.

    Prints which of the two, and a line for each comparison. Returns True if they agree.
    """
    pairs = [(root / "figures" / name, copy / "figures" / name) for name in (profile, "analytic")]
    old, new = (read_manifest(folder)["runs"] for folder in pairs[0])
    before, now = (
        {json.dumps(bits_depend_on(run), sort_keys=True) for run in runs.values()} for runs in (old, new)
    )
    if before == now:
        print(f"trained alike, comparing bytes: {'; '.join(now)}")
        return all([compare_files(*pair, same_bytes) for pair in pairs])
    which = f"committed {'; '.join(before)}, now {'; '.join(now)}"
    print(f"not trained alike, comparing within the spread of the seeds: {which}")
    return all([compare_runs(*pairs[0]), compare_files(*pairs[1], same_numbers)])


def compare_files(committed, fresh, same):
    """Compare all figure data, file by file."""
    names = [name for name in read_manifest(committed)["files"] if name.startswith("data/")]
    found = {name: same(committed / name, fresh / name) for name in names}
    for name, agree in found.items():
        print(f"  {name}  {'same' if agree else 'differs'}")
    return all(found.values())


def compare_runs(committed, fresh):
    """Compare the metrics of all runs."""
    if "data/metrics.csv" not in read_manifest(committed)["files"]:
        raise CallError(f"{committed} has no data/metrics.csv to compare with")
    table = compare_metrics(*(pd.read_csv(folder / "data/metrics.csv") for folder in (committed, fresh)))
    verdicts = {True: "within", False: "beyond", None: "not compared, one seed has no spread;"}
    for row in table.itertuples():
        where = f"({row.method}, seed {row.seed}), {verdicts[row.same]} {row.tolerance:.3g}"
        print(f"  {row.dataset} {row.metric}: {row.difference:.3g} apart at most {where}")
    return False not in table["same"].tolist()


def copy_sources(root, copy, profile):
    """Copy what training and drawing a profile need into another folder."""
    tables = {f"figures/{name}" for figure in load_figures(root).values() for name in figure.inputs}
    for name in (*SOURCES, *tables):
        source, target = root / name, copy / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.is_file() and root / "figures" / profile not in source.parents:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def reproduce(profile, root, draw_figures):
    """Train and draw a profile in a copy of the project; True if the committed data came out again.

    The copy, runs/reproduce/<profile>, starts without runs. One that was interrupted is continued; a finished
    one is started over. `draw_figures(copy)` trains and draws there, and returns an exit code.
    """
    copy = root / "runs" / "reproduce" / profile
    for name in (profile, "analytic"):
        read_manifest(root / "figures" / name)  # nothing is trained if there is nothing to compare with
    if (copy / "figures" / profile / "MANIFEST.json").is_file():
        shutil.rmtree(copy)
    copy_sources(root, copy, profile)
    os.environ["WISEALE_DATA"] = str(data_root().resolve())
    if draw_figures(copy):
        raise RuntimeError(f"training or drawing failed in {copy}")
    return compare(root, copy, profile)
