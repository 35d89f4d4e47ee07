"""Compare what was trained and drawn here, below runs/, with what is committed in figures/.

The bits of a training run follow from settings, seeds and code, and from what `bits_depend_on` lists. If that
is the same for all runs, the files must be the same to the byte. Otherwise rounding differs, training
amplifies it, and only the metrics can be compared, within the spread of the committed seeds.
"""

import json
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from wiseale_nb.config import load_config, profile_runs, select
from wiseale_nb.core import csv_text, read_csv, read_json
from wiseale_nb.runs import load_run, run_folder, runs_folder
from wiseale_tools import CallError
from wiseale_tools.manifest import NAME, Entry, checksum, metrics_table, read_manifest, run_name

MACHINE = ("architecture", "cpu", "instruction_set", "threads", "device", "gpu")
ENOUGH, FAR = 0.95, 3  # share of the metrics that lie within the tolerance; none beyond so many tolerances
RULE = "no farther from the committed mean over seeds than two committed seeds of one method lie apart"


class Comparison(NamedTuple):
    """What came of comparing one folder of figures."""

    same: bool | None  # None: there was nothing to compare with
    text: str  # one line
    details: tuple = ()  # files and metrics that differ, a line for each


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

    Another seed changes data, first weights and order; another machine changes the rounding only. So a
    method's mean over seeds may move by no more than two committed seeds of one method differ, in that data
    set and metric, for the method where they differ most. With one seed there is no spread, and the metric is
    not compared.

    Returns a frame with a row for each data set, metric and method: the difference of the means, the
    tolerance, and whether it is `same` (None: not compared).
    """
    keys = ["dataset", "metric", "method"]
    old, new = (table.groupby([*keys, "seed"])["value"].mean() for table in (committed, fresh))
    if not old.index.equals(new.index):
        raise CallError("the committed metrics are of other runs than those the profile now has")
    rows = (new.groupby(keys).mean() - old.groupby(keys).mean()).abs().rename("difference").reset_index()
    allowed = old.groupby(keys).agg(spread).groupby(keys[:2]).max().rename("tolerance")
    rows = rows.join(allowed, on=keys[:2])
    same = rows["difference"] <= rows["tolerance"] * (1 + 1e-9)  # a sum of floats is not exact
    return rows.assign(same=same.astype(object).where(rows["tolerance"].notna(), None))


def spread(values):
    """Largest minus smallest; not a number for a single value."""
    return values.max() - values.min() if len(values) > 1 else float("nan")


def judge_metrics(table):
    """Whether the metrics of `compare_metrics` agree as a whole, in words, with a line for each outside."""
    compared = table[table["same"].notna()]
    if compared.empty:
        return Comparison(None, "no metric has two seeds whose spread it could be compared with")
    inside = int(compared["same"].sum())
    outside = compared[compared["same"] == False]  # noqa: E712  the column holds None too
    times = (outside["difference"] / outside["tolerance"]).sort_values(ascending=False)
    agree = inside >= ENOUGH * len(compared) and not (times[times < float("inf")] > FAR).any()
    text = (
        f"{inside} of {len(compared)} metrics are {'within' if agree else 'NOT all within'} the seeds' spread"
    )
    lines = []
    for row in (outside.loc[index] for index in times.index):
        what = f"{row.dataset} {row.metric} of {row.method}"
        lines.append(f"{what} is {row.difference:.3g} off, beyond {row.tolerance:.3g}")
    if lines:
        text += f"; farthest out: {lines[0]}"
    if len(compared) < len(table):
        text += f"; {len(table) - len(compared)} have one seed and no spread"
    return Comparison(agree, text, lines)


def differing(entries, root, committed, sums):
    """The files of some figures that are not as committed; a committed PDF is known by its checksum only."""
    found = []
    for entry in entries:
        made = entry.made_in(root)
        for file in entry.data + entry.pictures:
            there = checksum(committed / file) if (committed / file).is_file() else sums.get(file)
            if not (made / file).is_file() or checksum(made / file) != there:
                found.append(file)
    return found


def shared_entries(entries, folder, manifest):
    """Those of some figures that belong into a folder of figures, and are in its manifest."""
    place = Path("figures", folder)
    return [e for e in entries if e.folder_in() == place and e.stem in manifest["figures"]]


def count_files(entries):
    return sum(len(entry.data + entry.pictures) for entry in entries)


def compare_drawn(folder, entries, root, here):
    """Compare figures that no training is behind: the bytes must be the same on every machine."""
    manifest = read_manifest(root / "figures" / folder)
    entries = shared_entries(entries, folder, manifest)
    different = differing(entries, here, root / "figures" / folder, manifest["files"])
    if different:
        text = f"{len(different)} of {count_files(entries)} files have OTHER bytes than in figures/{folder}"
        return Comparison(False, text, different)
    return Comparison(True, f"the same bytes as in figures/{folder} ({count_files(entries)} files)")


def described(info):
    """A machine, by its record."""
    machine = info["machine"]
    return machine.get("gpu") or f"{machine['cpu']} {machine['instruction_set']}"


def compare_profile(profile, entries, root, here=None, datasets=""):
    """Compare the figures of a profile and the metrics of its runs with the committed ones.

    They were made below `here`, another copy of the project if it is not `root`.
    """
    here, committed = here or root, root / "figures" / profile
    if not (committed / NAME).is_file():
        return Comparison(None, f"there is no committed figures/{profile} to compare with")
    manifest, config = read_manifest(committed), select(load_config(profile), datasets)
    entries = shared_entries(entries, profile, manifest)
    config = {name: values for name, values in config.items() if name in manifest["config"]}
    if not entries or not config:
        return Comparison(None, f"figures/{profile} has none of this to compare with")
    other = [name for name in config if json.loads(json.dumps(config[name])) != manifest["config"][name]]
    if other:
        text = f"not compared: figures/{profile} was made with other settings for {', '.join(other)}"
        return Comparison(None, text)

    keys = profile_runs(config)
    runs = {key: load_run(run_folder(runs_folder(here, profile), *key)) for key in keys}
    old = {run_name(*key): manifest["runs"].get(run_name(*key)) for key in keys}
    if None in old.values():
        return Comparison(None, f"not compared: figures/{profile} was made from other runs")
    metrics = pd.read_csv(committed / "data/metrics.csv")  # its units are words and numbers
    metrics, fresh = metrics[metrics["dataset"].isin(config)], metrics_table(runs)
    different = differing(entries, here, committed, manifest["files"])
    if csv_text(metrics) != csv_text(fresh):
        different.append("data/metrics.csv")
    if not different:
        return Comparison(True, f"the same bytes as in figures/{profile} ({count_files(entries)} files)")

    new = {name: run.info for name, run in zip(old, runs.values())}
    if all(bits_depend_on(old[name]) == bits_depend_on(new[name]) for name in old):
        text = f"{len(different)} files have OTHER bytes than in figures/{profile}, though trained alike"
        return Comparison(False, f"{text}: code, settings or samples have changed since", different)
    machines = [sorted({described(info) for info in infos.values()}) for infos in (old, new)]
    before, now = (", ".join(names) for names in machines)
    judged = judge_metrics(compare_metrics(metrics, fresh))
    why = f"figures/{profile} was trained on {before}, this on {now}, so rounding differs"
    return judged._replace(text=f"{why}: {judged.text}")


def compare_study(entry: Entry, root):
    """Compare a study with the committed one: its bytes, else the tables that have a row for each seed."""
    committed, made = entry.folder_in(root), entry.made_in(root)
    record = f"data/{entry.stem}.json"  # of the machine: it differs on another one
    tables = [file for file in entry.data if file != record]
    if not all((committed / file).is_file() for file in entry.data):
        return Comparison(None, f"{entry.stem}: it is not committed, so there is nothing to compare with")
    different = [file for file in tables if checksum(committed / file) != checksum(made / file)]
    if not different:
        return Comparison(True, f"{entry.stem}: the same bytes as committed ({len(tables)} files)")
    text = f"{entry.stem}: {len(different)} of {len(tables)} files have other bytes"
    old, new = (read_json(folder / record, dict, {"machine", "versions"}) for folder in (committed, made))
    if bits_depend_on(old) == bits_depend_on(new):
        return Comparison(
            False, f"{text} than committed, though made alike: code or samples changed", different
        )
    text += f" than those from {described(old)}"
    names = [Path(file).stem for file in different if file.endswith(".csv")]
    pairs = [[read_csv(folder / f"data/{name}.csv") for folder in (committed, made)] for name in names]
    pairs = [tidy_pair(name, *pair) for name, pair in zip(names, pairs) if is_by_seed(*pair)]
    if not pairs:
        return Comparison(None, f"{text}; no table has two seeds to compare within")
    judged = judge_metrics(compare_metrics(*(pd.concat(tables) for tables in zip(*pairs))))
    return judged._replace(text=f"{text}; {judged.text}")


def is_by_seed(*tables):
    """Whether tables have a row for each seed, and the same columns."""
    return all("seed" in t and t["seed"].dtype.kind == "i" and list(t) == list(tables[0]) for t in tables)


def tidy_pair(name, old, new):
    """Two tables of a study in the form of metrics; rows that only one of them has are left out.

    What is text, or has the same values in both, says which setting a row is of; other numbers are metrics.
    """
    same = {c for c in old if set(old[c]) == set(new[c])}
    metrics = [c for c in old if c not in same | {"seed"} and old[c].dtype.kind in "if"]
    settings = [c for c in old if c not in [*metrics, "seed"] and (c in same or old[c].dtype.kind == "O")]
    tables = []
    for table in (old, new):
        tidy = table.melt([*settings, "seed"], metrics, "metric", "value").dropna(subset="value")
        tidy["method"] = tidy[settings].astype(str).agg(" ".join, axis=1) if settings else ""
        tables.append(tidy.assign(dataset=name)[["dataset", "metric", "method", "seed", "value"]])
    keys = ["metric", "method", "seed"]
    common = tables[0].merge(tables[1][keys].drop_duplicates(), on=keys)[keys].drop_duplicates()
    return [table.merge(common, on=keys) for table in tables]
