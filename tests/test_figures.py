"""The committed figures come out of their committed data with the same bytes, however they are drawn."""

import json
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, call

from wiseale_tools.manifest import checksum, folder_entries, read_manifest

ANALYTIC = ROOT / "figures/analytic"
FOLDERS = {
    "quick": "claims figure_1 figure_5a figure_5b_teapot figure_6 figure_teapot_traversal",
    "paper": "claims figure_1 figure_5a figure_6",
    "tenth": "claims figure_5a figure_6",
    "images": "claims figure_5b_teapot figure_teapot_traversal",
    "pictured": "claims figure_1",
    "pictured_quick": "claims figure_1",
    "analytic": "figure_2 figure_3 figure_4",
    "studies": "bank beta_vae beta_vae_paper cited_methods cited_methods_longer equal_rate how_wrong "
    "learning_with_eq15 likelihood_mnist_quick likelihood_mnist_paper minibatch_bias rate_distortion "
    "rate_distortion_paper slack teapot_plateau tighter_bound weight_sweep when_it_matters",
    "bench": "bench cost_curve",
}
UGLY = """font.size: 30
figure.dpi: 37
svg.fonttype: none
savefig.bbox: tight
axes.formatter.use_locale: True
lines.linewidth: 9
"""
SCRIPT = """
import sys
from wiseale_nb.figures import draw_figure, figure_job
draw_figure(figure_job("figure_4", out=sys.argv[1]))
"""


@pytest.mark.nightly
def test_verify_finds_the_committed_figures_the_same():
    done = call("wiseale-pipeline", "verify", "--jobs", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    drawn = {f"{folder}/{name}  pdf png svg  same" for folder in FOLDERS for name in FOLDERS[folder].split()}
    assert drawn | {"studies/sensitivity  tables  same"} <= set(done.stdout.splitlines())


def test_every_committed_file_is_in_a_manifest():
    """Manifests list what figures.yaml says, and git knows all they list but the PDFs."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "figures"], cwd=ROOT, capture_output=True, text=True
    ).stdout.splitlines()
    known = []
    for folder in FOLDERS:
        manifest = read_manifest(ROOT / "figures" / folder)
        entries = {entry.stem: entry for entry in folder_entries(folder)}
        assert manifest["figures"].keys() <= entries.keys()
        for stem, figure in manifest["figures"].items():
            assert figure["files"] == entries[stem].pictures and figure["data"] == entries[stem].data
            assert set(figure["files"] + figure["data"]) <= manifest["files"].keys()
        committed = [file for file in manifest["files"] if not file.endswith(".pdf")]
        known += [f"figures/{folder}/{file}" for file in ["MANIFEST.json", *committed]]
    assert sorted(known) == sorted(file for file in listed if (ROOT / file).is_file())


def test_verify_names_what_differs(project):
    for folder in FOLDERS.keys() - {"analytic"}:
        shutil.rmtree(project / "figures" / folder)
    analytic = project / "figures/analytic"
    manifest = json.loads((analytic / "MANIFEST.json").read_text())
    del manifest["figures"]["figure_4"]
    (analytic / "MANIFEST.json").write_text(json.dumps(manifest))
    text = (analytic / "data/figure_3_kl.csv").read_text()
    (analytic / "data/figure_3_kl.csv").write_text(text.replace("0.", "0.5", 1))
    (analytic / "figure_4.svg").write_text("<svg/>")
    (analytic / "figure_9.png").write_bytes(b"")
    done = call("wiseale-pipeline", "verify", "--jobs", "2", cwd=project)
    assert done.returncode == 1
    two, three, *rest = done.stdout.splitlines()
    assert two == "analytic/figure_2  pdf png svg  same"
    assert "data/figure_3_kl.csv is not in the manifest's state" in three
    assert "figure_3.png is drawn with other bytes" in three
    assert "analytic/figure_9.png  is not listed in the manifest" in rest
    assert "analytic/figure_4.svg  is not in the manifest's state" in rest


def test_redraw_restores_what_was_lost(project):
    """A figure, and the PDFs that a clone does not have; the manifest stays as it is."""
    for folder in FOLDERS.keys() - {"analytic"}:
        shutil.rmtree(project / "figures" / folder)
    analytic = project / "figures/analytic"
    before = {path.name: path.read_bytes() for path in analytic.glob("*.*") if path.suffix != ".pdf"}
    (analytic / "figure_4.png").unlink()
    done = call("wiseale-pipeline", "redraw", cwd=project)
    lines = [f"analytic/figure_{number}  as before" for number in (2, 3, 4)]
    assert done.returncode == 0 and done.stdout.splitlines() == lines, done.stderr
    assert {path.name: path.read_bytes() for path in analytic.glob("*.*") if path.suffix != ".pdf"} == before
    sums = read_manifest(analytic)["files"]
    pdfs = [f"figure_{number}.pdf" for number in (2, 3, 4)]
    assert all(checksum(analytic / name) == sums[name] for name in pdfs)


WISEALE = ("wiseale-run", "--quiet")
PAPERMILL = ("papermill", "-k", "python3", "--log-level", "ERROR", "--no-progress-bar")


@pytest.mark.parametrize(
    "how, env",
    [
        (
            WISEALE,
            {"TZ": "Asia/Tokyo", "LC_ALL": "C", "MPLBACKEND": "svg", "ATEN_CPU_CAPABILITY": "default"},
        ),
        (
            PAPERMILL,
            {"TZ": "America/St_Johns", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "random", "PYTHONUTF8": "1"},
        ),
        ("script", {"TZ": "Asia/Tokyo", "LC_ALL": "POSIX", "PYTHONHASHSEED": "7", "MPLBACKEND": "pdf"}),
    ],
    ids=["wiseale-run", "papermill", "script"],
)
def test_same_bytes_anywhere(tmp_path, how, env):
    """Time zone, locale, hash seed, backend, a matplotlibrc in the way; runner, papermill, plain script.

    The runner computes the data too, without the vector units of this processor; the others draw them.
    """
    (tmp_path / "matplotlibrc").write_text(UGLY)
    if how != WISEALE:
        shutil.copytree(ANALYTIC / "data", tmp_path / "data")
    env = env | {"MATPLOTLIBRC": str(tmp_path / "matplotlibrc")}
    if how == "script":
        done = call(sys.executable, "-c", SCRIPT, tmp_path, cwd=ROOT / "tests", env=env)
    else:
        given = ("-p", "profile", "quick", "-p", "redraw", str(how != WISEALE), "-p", "out", tmp_path)
        notebook = ROOT / "nbs/24_figure_4.ipynb"
        done = call(*how, notebook, tmp_path / "out.ipynb", *given, cwd=ROOT / "tests", env=env)
    assert done.returncode == 0, done.stderr
    sums = read_manifest(ANALYTIC)["files"]
    files = [f"figure_4.{form}" for form in ("pdf", "png", "svg")]
    for file in [*files, *(f"data/figure_4_{name}.csv" for name in ("curves", "kl", "minima"))]:
        assert checksum(tmp_path / file) == sums[file], file
