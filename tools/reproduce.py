"""Train a profile again from nothing, in a copy of the project, and compare with what is committed."""

import os
import shutil

from wiseale_nb.core import data_root
from wiseale_nb.figures import load_figures
from wiseale_tools.compare import compare_drawn, compare_profile
from wiseale_tools.manifest import read_manifest
from wiseale_tools.rules import analytic_entries, profile_entries

SOURCES = (
    *("Snakefile", "settings.ini", "figures.yaml", "claims.yaml"),
    *("config", "profiles", "nbs", "wiseale_nb", "data_scripts"),
)
FINISHED = "finished"  # a file in the copy: it was trained and drawn


def copy_sources(root, copy):
    """Copy what training and drawing need into another folder."""
    tables = {f"figures/{name}" for figure in load_figures(root).values() for name in figure.inputs}
    for name in (*SOURCES, *tables):
        source, target = root / name, copy / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def reproduce(profile, root, draw_figures):
    """Train and draw a profile in a copy of the project; True if the committed figures came out again.

    The copy, runs/reproduce/<profile>, starts without runs. One that was interrupted is continued; a finished
    one is started over. `draw_figures(copy)` trains and draws there, and returns an exit code.
    """
    copy = root / "runs" / "reproduce" / profile
    for name in (profile, "analytic"):
        read_manifest(root / "figures" / name)  # nothing is trained if there is nothing to compare with
    if (copy / FINISHED).is_file():
        shutil.rmtree(copy)
    copy_sources(root, copy)
    os.environ["WISEALE_DATA"] = str(data_root().resolve())
    if draw_figures(copy):
        raise RuntimeError(f"training or drawing failed in {copy}")
    (copy / FINISHED).touch()
    return compare(profile, root, copy)


def compare(profile, root, copy):
    """Compare a copy's figures with the committed ones, and print how they differ; True if they agree."""
    found = [
        compare_profile(profile, profile_entries(profile), root, copy),
        compare_drawn("analytic", analytic_entries(), root, copy),
    ]
    for comparison in found:
        print(comparison.text)
        for line in comparison.details:
            print(f"  {line}")
    return all(comparison.same for comparison in found)
