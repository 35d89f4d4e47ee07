"""The committed figures come out of their committed data with the same bytes, wherever and however they are drawn."""

import json
import shutil
import sys

import pytest
from conftest import ROOT, call

QUICK = ROOT / "figures/quick"
UGLY = "font.size: 30\nfigure.dpi: 37\nsvg.fonttype: none\nsavefig.bbox: tight\naxes.formatter.use_locale: True\nlines.linewidth: 9\n"
SCRIPT = """
import sys
from pathlib import Path
import pandas as pd
from wiseale_nb.plotting import figure_4, save_figure
tables = (pd.read_csv(Path(sys.argv[1]) / f"figure_4_{name}.csv") for name in ("curves", "kl", "minima"))
save_figure(figure_4(*tables), Path(sys.argv[2]), "figure_4")
"""


def test_verify_finds_the_committed_figures_the_same():
    done = call("wiseale-pipeline", "verify", "--jobs", "2")
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout
    for name in (
        "figure_1",
        "figure_2",
        "figure_3",
        "figure_4",
        "figure_5a",
        "figure_5b_teapot",
        "figure_6",
        "figure_teapot_traversal",
        "claims",
    ):
        assert f"quick/{name}  pdf png svg  same" in lines
    for profile, names in {
        "paper": ("claims", "figure_1", "figure_5a", "figure_6"),
        "tenth": ("claims", "figure_5a", "figure_6"),
    }.items():
        assert {f"{profile}/{name}  pdf png svg  same" for name in names} <= set(lines)


def test_verify_names_what_differs(project):
    quick = project / "figures/quick"
    for other in ("paper", "tenth"):
        shutil.rmtree(project / "figures" / other)
    manifest = json.loads((quick / "MANIFEST.json").read_text())
    manifest["figures"] = {name: manifest["figures"][name] for name in ("figure_2", "figure_3")}
    (quick / "MANIFEST.json").write_text(json.dumps(manifest))
    text = (quick / "data/figure_3_kl.csv").read_text()
    (quick / "data/figure_3_kl.csv").write_text(text.replace("0.", "0.5", 1))
    (quick / "figure_6.svg").write_text("<svg/>")
    (quick / "figure_9.png").write_bytes(b"")
    done = call("wiseale-pipeline", "verify", "--jobs", "2", cwd=project)
    assert done.returncode == 1
    two, three, *rest = done.stdout.splitlines()
    assert two.endswith("same")
    assert (
        "data/figure_3_kl.csv is not in the manifest's state" in three
        and "figure_3.png is drawn with other bytes" in three
    )
    assert rest == [
        "quick/figure_9.png  is not listed in the manifest",
        "quick/figure_6.svg  is not in the manifest's state",
    ]


WISEALE, PAPERMILL = (
    ("wiseale-run", "--quiet"),
    ("papermill", "-k", "python3", "--log-level", "ERROR", "--no-progress-bar"),
)


@pytest.mark.parametrize(
    "how, env",
    [
        (WISEALE, {"TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "1", "MPLBACKEND": "svg"}),
        (
            PAPERMILL,
            {"TZ": "America/St_Johns", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "random", "PYTHONUTF8": "1"},
        ),
        ("script", {"TZ": "Asia/Tokyo", "LC_ALL": "POSIX", "PYTHONHASHSEED": "7", "MPLBACKEND": "pdf"}),
    ],
)
def test_same_bytes_anywhere(tmp_path, how, env):
    """Time zone, locale, hash seed, backend, a matplotlibrc in the way, another folder; runner, papermill, plain script."""
    (tmp_path / "matplotlibrc").write_text(UGLY)
    shutil.copytree(QUICK / "data", tmp_path / "data")
    if how == "script":
        done = call(sys.executable, "-c", SCRIPT, tmp_path / "data", tmp_path, cwd=tmp_path, env=env)
    else:
        given = ("-p", "profile", "quick", "-p", "redraw", "True", "-p", "out", tmp_path)
        rc = {"MATPLOTLIBRC": str(tmp_path / "matplotlibrc")}
        done = call(
            *how,
            ROOT / "nbs/24_figure_4.ipynb",
            tmp_path / "out.ipynb",
            *given,
            cwd=ROOT / "tests",
            env=env | rc,
        )
    assert done.returncode == 0, done.stderr
    for form in ("pdf", "png", "svg"):
        assert (tmp_path / f"figure_4.{form}").read_bytes() == (QUICK / f"figure_4.{form}").read_bytes(), form
