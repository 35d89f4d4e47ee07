"""The command `wiseale-pipeline`: draw figures, compare, publish, verify and reproduce them."""

import argparse
import contextlib
import logging
import os
import signal
import sys
from functools import partial
from pathlib import Path

import yaml

from wiseale_nb.config import config_folder, load_config, load_studies, select
from wiseale_nb.core import ParameterError
from wiseale_nb.data import DATASETS
from wiseale_nb.formats import DataError
from wiseale_tools import CallError
from wiseale_tools.compare import RULE, compare_drawn, compare_profile, compare_study
from wiseale_tools.process import end_with_parent, exclusive_lock, own_commands_first
from wiseale_tools.progress import Progress, trainings
from wiseale_tools.publish import publish
from wiseale_tools.readme import readme
from wiseale_tools.reproduce import reproduce
from wiseale_tools.rules import analytic_entries, fetched, profile_entries, shown_datasets, study_entries
from wiseale_tools.verify import redraw, verify


def run_snakemake(targets, jobs, root, cluster="", progress=None, **config):
    """Make some targets in this process; returns Snakemake's exit code. The caller holds the lock.

    With a cluster, the folder of a profile that says how to send jobs there, `jobs` are those that run here.
    `progress` says what happens.

    Its own locks stay behind when it is killed, so they are left out. What was running then is done again,
    and training goes on from its checkpoint.
    """
    from snakemake.cli import main as snakemake  # here, because it takes a second

    from wiseale_tools.kernel import SERVER, kernel_server

    own_commands_first()
    where = ["--local-cores", str(jobs), "--workflow-profile", str(Path(cluster).resolve())]
    where = where if cluster else ["--cores", str(jobs), "--workflow-profile", "none"]
    words = [*targets, *where, "--nolock", *default_options(root)]
    words += ["--quiet", "rules", "host", "reason"]
    # Without its records Snakemake takes what is there as current; what is current is not trained again.
    words += [] if (root / ".snakemake/metadata").is_dir() else ["--forceall"]
    words += ["--config", *(f"{name}={value}" for name, value in config.items())]
    progress = progress or Progress({})
    logger = logging.getLogger("snakemake.logging")
    logger.addFilter(progress)
    with contextlib.chdir(root), kernel_server() as os.environ[SERVER], progress:
        try:
            snakemake(words)
        except SystemExit as end:
            return end.code
        finally:
            logger.removeFilter(progress)


def default_options(root):
    """The options in profiles/default, as words, and none of a user's profile, $SNAKEMAKE_PROFILE.

    Snakemake would announce every time that it reads them.
    """
    options = yaml.safe_load((root / "profiles/default/config.yaml").read_text())
    words = ["--profile", "none"]
    for name, value in options.items():
        words.append(f"--{name}")
        if value is not True:
            words += map(str, value if isinstance(value, list) else [value])
    return words


def draw(target, jobs, root, profile, needed, cluster="", **config):
    """Get the files of the needed data sets, then make a target of the Snakefile; returns an exit code.

    The files come first, because what they hold is part of what decides whether a job has to run.
    """
    settings = load_config(profile, root / "config")
    files = [file for name in needed if name in settings for file in fetched(name, settings[name])]
    missing = [file for file in files if not Path(file).exists()]
    config = {"profile": profile, **config}
    jobs_that_train = trainings(select(settings, config.get("datasets", "")), profile, root)
    code = 0
    for targets in ([missing] if missing else []) + [[target]]:
        code = code or run_snakemake(targets, jobs, root, cluster, Progress(jobs_that_train), **config)
    return code


def check_supplied(config):
    """`CallError` that says what to do if a data set that users bring is not there, or has too few samples.

    Nobody can fetch it for the reader, so this is checked before anything is done.
    """
    for name, settings in config.items():
        dataset = DATASETS[name]
        if not dataset.user_supplied:
            continue
        try:
            there = dataset.counts()
        except DataError as error:
            script = f"run `python {dataset.script} SOURCE` (--help says more)"
            how = f"get it from its makers and {script if dataset.script else 'put its files there'}"
            what = f"{dataset.label} cannot be fetched for you"
            raise CallError(f"{what}: {how}; nothing was changed ({error})") from None
        for split in ("train", "test"):
            wanted = settings[f"n_{split}"]
            if there[split] < wanted:
                short = f"{name} has {there[split]} {split} samples and the profile asks for {wanted}"
                raise CallError(f"{short}; change n_{split} in config/, nothing was changed")


def show(entries, comparisons):
    """List what was drawn, and how it compares with what is committed."""
    for entry in entries:
        if entry.pictures:
            endings = ",".join(Path(name).suffix[1:] for name in entry.pictures)
            print(f"{entry.made_in() / entry.stem}.{f'{{{endings}}}' if ',' in endings else endings}")
    for comparison in comparisons:
        print(comparison.text)
    if any("spread" in comparison.text for comparison in comparisons):
        print(f"(within the seeds' spread: {RULE}, in that data set and metric)")


def figures(args, root):
    """Train what is missing, draw a profile's figures, list them, and compare with what is committed."""
    config = select(load_config(args.profile), args.datasets)
    check_supplied(config)
    with exclusive_lock(root / "runs"):
        code = draw("all", args.jobs, root, args.profile, config, args.cluster, datasets=args.datasets)
    if code == 0:
        entries = profile_entries(args.profile, args.datasets)
        found = [compare_profile(args.profile, entries, root, datasets=args.datasets)]
        found += [] if args.datasets else [compare_drawn("analytic", analytic_entries(), root, root)]
        show(entries, found)
    return code


def studies(args, root):
    """Run the studies at one of their sizes; they start from the profile of that name, if there is one."""
    profile = args.size if (root / "config" / f"{args.size}.yaml").is_file() else "quick"
    known = [entry.name for entry in study_entries("studies", args.size)]
    if not known:
        raise CallError(f"no study has the size {args.size!r}; the sizes are {', '.join(load_studies())}")
    unknown = [name for name in args.only.split() if name not in known]
    if unknown:
        raise CallError(f"no study {unknown[0]!r} has the size {args.size!r}; there are {', '.join(known)}")
    entries = study_entries("studies", args.size, args.only)
    read = {name for entry in entries for name in shown_datasets(entry)}
    with exclusive_lock(root / "runs"):
        config = {"size": args.size, "studies": args.only}
        code = draw("studies", args.jobs, root, profile, read, args.cluster, **config)
    if code == 0:
        show(entries, [compare_study(entry, root) for entry in entries])
    return code


def run_task(args, root):
    """Do what the command line asks for; returns an exit code."""
    if args.task == "figures":
        return figures(args, root)
    if args.task == "studies":
        return studies(args, root)
    if args.task == "reproduce":
        with exclusive_lock(root / "runs" / "reproduce"):
            read = select(load_config(args.profile))
            again = partial(draw, "all", args.jobs, profile=args.profile, needed=read)
            return 0 if reproduce(args.profile, root, lambda copy: again(root=copy)) else 1
    if args.task == "verify":
        return 0 if verify(root, args.jobs) else 1
    if args.task == "notebooks":
        from wiseale_tools.refresh import refresh_all  # here, because a plain pipeline needs no nbdev

        return 0 if refresh_all(root, args.names) else 1
    if args.task == "redraw":
        redraw(root, args.jobs)
    elif args.task == "publish":
        print(publish(args.folder, root, args.datasets).relative_to(root))
    elif args.task == "readme":
        print(readme(root), end="")
    return 0


def command_line():
    """The parser of the command line."""
    parser = argparse.ArgumentParser("wiseale-pipeline", description=__doc__)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--jobs", type=int, default=1, help="how many notebooks or figures side by side")
    common.add_argument("--parent", type=int, metavar="PID", help="end when this process, the parent, ends")
    tasks = parser.add_subparsers(dest="task", required=True)

    def add(name, help, more=""):
        description = f"{help[0].upper()}{help[1:]}. {more}".strip()
        return tasks.add_parser(name, help=help, description=description, parents=[common])

    profile = "a file in config/, such as smoke, quick or paper (default: quick)"

    brought = " and ".join(name for name in DATASETS if DATASETS[name].user_supplied)
    datasets = f"data sets, with spaces between (default: all but {brought})"
    cluster = "folder of a profile that sends jobs to a cluster, such as profiles/slurm (default: none)"
    more = "All that it makes is in runs/, and a second call repeats only what has changed."
    task = add("figures", "train what is missing, and draw the figures of a profile", more)
    task.add_argument("profile", nargs="?", default="quick", help=profile)
    task.add_argument("--datasets", default="", help=datasets)
    task.add_argument("--cluster", default="", help=cluster)
    task = add("studies", "run the studies beyond the paper", more)
    task.add_argument("size", nargs="?", default="quick", help="one of config/studies.yaml (default: quick)")
    task.add_argument("--only", default="", help="studies, with spaces between (default: all of that size)")
    task.add_argument("--cluster", default="", help=cluster)
    more = "It works in a copy of the project, in runs/reproduce, and goes on there after an interruption."
    task = add("reproduce", "train a profile again from nothing, and compare with its committed data", more)
    task.add_argument("profile", nargs="?", default="quick", help=profile)
    more = "For maintainers, after `figures`, `studies` or the benchmark, and a look at the pictures."
    task = add(
        "publish", "copy what was drawn to the committed figures, and record what it was made from", more
    )
    task.add_argument("folder", help="below figures/: a profile, analytic, studies or bench")
    task.add_argument("--datasets", default="", help=datasets)
    more = "What they show is committed. Cells that are marked `eval: false` keep what they have."
    task = add("notebooks", "execute documentation notebooks in place", more)
    task.add_argument("names", nargs="*", help="such as 24 or 24_figure_4 (default: all)")
    more = "It draws from the committed data, in a temporary folder, and trains nothing."
    add("verify", "draw every committed figure again, and compare the bytes", more)
    more = "For maintainers, after a change of the style. It trains nothing."
    add("redraw", "draw every committed figure again, in its place", more)
    add("readme", "print README.md, which is made from nbs/index.ipynb")
    return parser


def main(words=None):
    """Returns the exit code: 0 done, 1 something failed or differs, 2 a mistake in the words of the call.

    To be called in the project's folder. With `--parent` it ends when that process does, at once; what it has
    started ends by itself.
    """
    args, root = command_line().parse_args(words), Path.cwd()
    if args.parent:
        end_with_parent(args.parent, signal.SIGKILL)
    try:
        config_folder(root / "config")
        cluster = getattr(args, "cluster", "")
        if cluster and not Path(cluster, "config.yaml").is_file():
            raise CallError(f"{cluster} is no profile of a cluster: it has no config.yaml")
        return run_task(args, root)
    except (CallError, ParameterError, RuntimeError, OSError) as error:
        print(f"wiseale-pipeline: {error}", file=sys.stderr)
        return 1
