"""The pipeline end to end on a small profile, and the committed figures drawn again from their data."""
import shutil

import pytest
from conftest import ROOT, call

MINI = """base: smoke
sine: {seeds: [0], n_train: 128, n_test: 64, n_posteriors: 64}
mnist: {seeds: [0]}
"""
TARGET = "figures/mini/figure_6.png"


def snakemake(project, *words):
    return call("snakemake", "--cores", "1", "--config", "profile=mini", *words, "--", TARGET, cwd=project)


def planned(project):
    """The runs and figures a call would make, by output folder."""
    done = snakemake(project, "-n")
    assert done.returncode == 0, done.stderr
    outputs = [line.split(": ", 1)[1].split(", ")[0] for line in (done.stdout + done.stderr).splitlines() if line.startswith("    output: ")]
    return sorted(out.removeprefix("runs/mini/").removesuffix("/run.json") for out in outputs)


def test_pipeline_trains_draws_and_redoes_only_what_changed(project):
    (project / "config" / "mini.yaml").write_text(MINI)
    methods = ["aevb", "beta_vae", "beta_vae_inverse_m", "wiseale", "wiseale_per_sample"]
    assert planned(project) == ["figures/mini/figure_6.pdf", *(f"sine/{m}/seed0" for m in methods)]
    done = snakemake(project, "--quiet", "rules", "host", "reason")
    assert done.returncode == 0, done.stderr
    assert (project / TARGET).stat().st_size > 10_000
    assert planned(project) == []
    settings = (project / "config/paper.yaml").read_text()
    (project / "config/paper.yaml").write_text(settings.replace("beta: 4.0", "beta: 5.0", 1))
    assert planned(project) == ["figures/mini/figure_6.pdf", "sine/beta_vae/seed0"]
    (project / "config/paper.yaml").write_text(settings.replace("learning_rate: 0.001", "learning_rate: 0.002", 1))  # MNIST's
    assert planned(project) == []
    (project / "config/paper.yaml").write_text(settings)
    (project / TARGET).unlink()
    assert planned(project) == ["figures/mini/figure_6.pdf"]


@pytest.mark.parametrize("name", ["1", "2", "3", "4", "5a", "6"])
def test_committed_figure_is_drawn_again_from_its_data(name, tmp_path):
    """Same bytes in all three formats, without run folders."""
    quick = ROOT / "figures" / "quick"
    shutil.copytree(quick / "data", tmp_path / "data")
    notebook = f"nbs/2{name[0]}_figure_{name[0]}.ipynb"
    done = call("wiseale-run", "--quiet", notebook, tmp_path / "out.ipynb", "-p", "profile", "quick", "-p", "redraw", "true", "-p", "out", tmp_path)
    assert done.returncode == 0, done.stderr
    for form in ("pdf", "png", "svg"):
        assert (tmp_path / f"figure_{name}.{form}").read_bytes() == (quick / f"figure_{name}.{form}").read_bytes(), form
