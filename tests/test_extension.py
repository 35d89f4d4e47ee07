"""A new method and a new data set: one class and one block of settings each, nothing else in the project."""

import sys

import nbformat
import pandas as pd
import pytest
import yaml
from conftest import call

from wiseale_tools.manifest import read_manifest

pytestmark = pytest.mark.nightly

METHOD = """#| export
@typed
class Ridge(Objective):
    "Divergence: half the mean squared length of the codes."

    name = "ridge"
    label = "Ridge"
    divergence_name = "half_square"
    weight: Weight = 1.0

    def divergence(self, mu, log_var, z, draws=None):
        return 0.5 * z.square().sum(1).mean()
"""
DATASET = """#| export
class SquareWaves(DataSet):
    "Square waves of one amplitude."

    name, label = "square", "square waves"
    factors = {"phase": circle}
    network = Network(make=sine_net, d_z=4)

    periods: PositiveInt = 2

    def read(self, split, n, seed, root) -> Split:
        generator = random_stream(seed, "data", part=split)
        phase = 2 * math.pi * torch.rand(n or 1000, generator=generator)
        time = 2 * math.pi * self.periods * torch.arange(256) / 256
        return Split((time + phase[:, None]).sin().sign()[:, None], phase)
"""
LABELS = """
from wiseale_nb.figures import draw_figure, figure_job
job = figure_job("claims", profile="toys")
print([text.get_text() for legend in draw_figure(job).legends for text in legend.get_texts()])
"""


def add_cell(path, source):
    """Add a cell before the last one that is exported, as an author might."""
    notebook = nbformat.read(path, 4)
    exported = [k for k, cell in enumerate(notebook.cells) if cell.source.startswith("#| export")]
    notebook.cells.insert(exported[-1], nbformat.v4.new_code_cell(source))
    nbformat.write(notebook, path)


def add_settings(project):
    """A profile with the new data set alone, for which the new method and two others are trained."""
    sine = yaml.safe_load((project / "config/paper.yaml").read_text())["sine"]
    sizes = {"n_train": 256, "n_test": 64, "epochs": 2, "n_importance": 4, "n_posteriors": 64}
    sizes |= {"seeds": [0], "compiled": False}
    methods = {name: sine["methods"][name] for name in ("aevb", "wiseale")}
    methods["ridge"] = {"method": "ridge", "weight": 0.5}
    square = sine | sizes | {"data": {"periods": 3}, "methods": methods}
    (project / "config/toys.yaml").write_text(yaml.safe_dump({"square": square}))


def test_a_class_and_a_block_of_settings_are_enough(project):
    """Trained by the pipeline, measured, drawn with their names, and verified."""
    add_cell(project / "nbs/01a_cited.ipynb", METHOD)
    add_cell(project / "nbs/03b_data.ipynb", DATASET)
    add_settings(project)
    assert call("nbdev_export", cwd=project).returncode == 0
    for words in (("figures", "toys", "--datasets", "square", "--jobs", "2"), ("publish", "toys")):
        done = call("wiseale-pipeline", *words, cwd=project)
        assert done.returncode == 0, done.stderr[-3000:]

    manifest = read_manifest(project / "figures/toys")
    runs = [f"square/{method}/seed0" for method in ("aevb", "ridge", "wiseale")]
    assert sorted(manifest["runs"]) == sorted(manifest["figures"]["claims"]["runs"]) == runs
    metrics = pd.read_csv(project / "figures/toys/data/metrics.csv")
    measured = metrics.groupby("method").metric.nunique()
    assert measured["ridge"] == measured["wiseale"] > 10
    history = pd.read_csv(project / "runs/toys/square/ridge/seed0/history.csv")
    assert history.objective.notna().all() and history.epoch.max() == 2

    done = call(sys.executable, "-c", LABELS, cwd=project)
    assert done.returncode == 0 and "'Ridge'" in done.stdout, done.stdout + done.stderr
