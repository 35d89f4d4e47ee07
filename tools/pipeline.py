"""The command `wiseale-pipeline`: draw figures, record, verify and reproduce them."""

import argparse
import contextlib
import logging
import signal
import sys
from functools import partial
from pathlib import Path

import numpy as np
import yaml

from wiseale_nb.config import config_folder, load_config, load_studies, select
from wiseale_nb.core import ParameterError, data_root
from wiseale_nb.data import DATASETS
from wiseale_nb.figures import profile_figures
from wiseale_nb.formats import DataError, open_array
from wiseale_nb.style import FORMATS
from wiseale_tools import CallError
from wiseale_tools.manifest import write_manifest
from wiseale_tools.process import end_with_parent, exclusive_lock
from wiseale_tools.readme import readme
from wiseale_tools.reproduce import reproduce
from wiseale_tools.rules import fetched, shown_datasets, study_entries
from wiseale_tools.verify import redraw, verify


def is_told(record):
    """Whether a message of Snakemake is shown: warnings, errors, and how many jobs are done.

    Not that the files of a failed job are as they were before: it has a line for each.
    """
    about_files = record.getMessage().startswith(("Restored previous version", "Cannot restore"))
    important = record.levelno >= logging.WARNING and not about_files
    return important or getattr(record, "event", None) == "progress"


def run_snakemake(targets, jobs, root, **config):
    """Make some targets in this process; returns Snakemake's exit code. The caller holds the lock.

    Its own locks stay behind when it is killed, so they are left out. What was running then is done again,
    and training goes on from its checkpoint.
    """
    from snakemake.cli import main as snakemake  # here, because it takes a second

    logger = logging.getLogger("snakemake.logging")
    if is_told not in logger.filters:
        logger.addFilter(is_told)
    words = [*targets, "--cores", str(jobs), "--nolock", *default_options(root)]
    words += ["--quiet", "rules", "host", "reason"]
    # Without its records Snakemake takes what is there as current; what is current is not trained again.
    words += [] if (root / ".snakemake/metadata").is_dir() else ["--forceall"]
    words += ["--config", *(f"{name}={value}" for name, value in config.items())]
    with contextlib.chdir(root):
        try:
            snakemake(words)
        except SystemExit as end:
            return end.code


def default_options(root):
    """The options in profiles/default, as words: Snakemake would announce every time that it reads them."""
    options = yaml.safe_load((root / "profiles/default/config.yaml").read_text())
    words = ["--workflow-profile", "none"]
    for name, value in options.items():
        words.append(f"--{name}")
        if value is not True:
            words += map(str, value if isinstance(value, list) else [value])
    return words


def draw(target, jobs, root, profile, needed, **config):
    """Get the files of the needed data sets, then make a target of the Snakefile; returns an exit code.

    The files come first, because what they hold is part of what decides whether a job has to run.
    """
    settings = load_config(profile, root / "config")
    files = [file for name in needed if name in settings for file in fetched(name, settings[name])]
    missing = [file for file in files if not Path(file).exists()]
    config = {"profile": profile, **config}
    code = run_snakemake(missing, jobs, root, **config) if missing else 0
    return code or run_snakemake([target], jobs, root, **config)


def check_photographs(settings):
    """`CallError` that says what to do if CelebA is not prepared or has too few images.

    Nobody can fetch the photographs for the reader, so this is checked before anything is done.
    """
    folder, names = data_root() / "celeba", DATASETS["celeba"].parts
    try:
        parts = open_array(folder / "partition.npy", (None,), np.uint8)
        open_array(folder / "images.npy", (len(parts), 3, 64, 64), np.uint8)
    except DataError as error:
        source = "with the folder or archive that has img_align_celeba"
        how = f"get them from its makers and run `python data_scripts/celeba.py SOURCE`, {source}"
        what = "CelebA's photographs cannot be fetched for you"
        raise CallError(f"{what}: {how}; nothing was changed ({error})") from None
    for part in ("train", "test"):
        there, wanted = int((parts == names.index(part)).sum()), settings[f"n_{part}"]
        if there < wanted:
            short = f"celeba has {there} {part} images and the profile asks for {wanted}"
            raise CallError(f"{short}; change n_{part} in config/, nothing was changed")


def figures(args, root):
    """Train what is missing, draw the figures of a profile, and list them."""
    config = select(load_config(args.profile), args.datasets)
    if "celeba" in config:
        check_photographs(config["celeba"])
    with exclusive_lock(root / "runs"):
        code = draw("all", args.jobs, root, args.profile, config, datasets=args.datasets)
    for name, figure in profile_figures(config).items() if code == 0 else ():
        print(f"{figure.folder_in('', args.profile) / name}.{{{','.join(FORMATS)}}}")
    return code


def studies(args, root):
    """Run the studies at one of their sizes; they start from the profile of that name, if there is one."""
    profile = args.size if (root / "config" / f"{args.size}.yaml").is_file() else "quick"
    entries = study_entries("studies", args.size)
    if not entries:
        raise CallError(f"no study has the size {args.size!r}; the sizes are {', '.join(load_studies())}")
    read = {name for entry in entries for name in shown_datasets(entry)}
    with exclusive_lock(root / "runs"):
        return draw("studies", args.jobs, root, profile, read, size=args.size)


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
    elif args.task == "manifest":
        write_manifest(args.folder, root, args.datasets)
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

    def add(name, help):
        return tasks.add_parser(name, help=help, description=help, parents=[common])

    datasets = "data sets, with spaces between (default: all but celeba)"
    task = add("figures", "train what is missing, and draw the figures of a profile")
    task.add_argument("profile", nargs="?", default="quick")
    task.add_argument("--datasets", default="", help=datasets)
    task = add("studies", "run the studies beyond the paper")
    task.add_argument("size", nargs="?", default="quick", help="one of config/studies.yaml")
    task = add("reproduce", "train a profile again from nothing, and compare with its committed data")
    task.add_argument("profile", nargs="?", default="quick")
    task = add("manifest", "record what lies in a folder of figures")
    task.add_argument("folder", help="below figures/: a profile, analytic, studies or bench")
    task.add_argument("--datasets", default="", help=datasets)
    task = add("notebooks", "execute documentation notebooks in place")
    task.add_argument("names", nargs="*", help="such as 24 or 24_figure_4 (default: all)")
    add("verify", "draw every committed figure again, and compare the bytes")
    add("redraw", "draw every committed figure again, in its place")
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
        return run_task(args, root)
    except (CallError, ParameterError, RuntimeError, OSError) as error:
        print(f"wiseale-pipeline: {error}", file=sys.stderr)
        return 1
