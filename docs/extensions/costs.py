"""What the numbers behind each claim cost: the runs that they come from, the hardware, the time."""

import json
from functools import cache

from wiseale_nb.verdicts import judge
from wiseale_tools.progress import in_words


@cache
def manifest(root, profile):
    """The runs of a committed profile, with machine and time."""
    file = root / f"figures/{profile}/MANIFEST.json"
    return json.loads(file.read_text())["runs"] if file.is_file() else {}


def training(root, profile, dataset, methods, tables):
    """One phrase for some methods of a data set: how much was trained, on what, for how long."""
    recorded = manifest(root, profile)
    folders = {f"{dataset}/{method}" for method in methods}
    runs = [run for name, run in recorded.items() if name.rsplit("/seed", 1)[0] in folders]
    if not runs:
        return "", "", 0
    by = tables.runs.query("profile == @profile and dataset == @dataset and method in @methods")
    row, machine = by.iloc[0], runs[0]["machine"]
    counts = [counted(by.method.nunique(), "method"), counted(by.seed.nunique(), "seed")]
    size = ", ".join([f"{row.n_train:,} samples", f"{row.epochs} epochs", *counts])
    # Seeds that were trained side by side share their time.
    seconds = sum(run["wall_seconds"] / len(run["trained_with"]) for run in runs)
    return size, f"{machine['cpu']}, {counted(machine['threads'], 'thread')}", seconds


def counted(number, noun):
    return f"{number} {noun}" + "s" * (number != 1)


def cost_rows(root, known, tables):
    """A line of a table for each claim and data set."""
    yield "| Claim | Judged on | Size | Hardware | Time |"
    yield "|---|---|---|---|---|"
    for claim in known.claims:
        outcomes = judge(claim, tables, known, known.ours[0]).outcomes
        if not outcomes:
            yield f"| {claim.key} {claim.name} | not measured | | | |"
        studies = {known.metrics[outcome.comparison.metric].study for outcome in outcomes} - {"", None}
        for study in sorted(studies):
            link = f"[`{study}`](/nbs/{study}.ipynb)"
            yield f"| {claim.key} {claim.name} | {link} | runs of its own, described there | AMD EPYC | |"
        own = [o.comparison for o in outcomes if not known.metrics[o.comparison.metric].study]
        for dataset in dict.fromkeys(comparison.dataset for comparison in own):
            profile = tables.judged_on.get(dataset, tables.profile)
            here = [comparison for comparison in own if comparison.dataset == dataset]
            named = [name for c in here for name in (c.method, c.against, c.times, c.of)]
            methods = {name for name in named if isinstance(name, str)}
            size, machine, seconds = training(root, profile, dataset, methods, tables)
            cells = [f"{claim.key} {claim.name}", f"{dataset}, `{profile}`", size or "no runs", machine]
            yield f"| {' | '.join([*cells, in_words(seconds) if seconds else ''])} |"
