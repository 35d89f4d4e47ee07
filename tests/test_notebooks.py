"""Every notebook that defines the library runs from top to bottom; its cells hold the assertions."""

import importlib.util

import pytest
from conftest import ROOT, call

MODULE_NOTEBOOKS = sorted(p.name for p in (ROOT / "nbs").glob("[05]*.ipynb"))
NIGHTLY = {
    "00b_kernels.ipynb": "kernels of a GPU, in Triton's slow interpreter",
    "01c_distributed.ipynb": "four processes; test_distributed.py has two and four in any case",
}


def marked(name):
    return pytest.param(name, marks=pytest.mark.nightly if name in NIGHTLY else ())


@pytest.mark.parametrize("name", [marked(name) for name in MODULE_NOTEBOOKS])
def test_module_notebook(name):
    if name == "51_pythae.ipynb" and not importlib.util.find_spec("pythae"):
        pytest.skip(
            "pythae is not installed; `make test-pythae` runs this one in the environment of make bench"
        )
    done = call("nbdev_test", "--path", f"nbs/{name}", "--n_workers", "0")
    output = done.stdout + done.stderr
    assert done.returncode == 0 and "Success" in output, output[-3000:]


def test_bench_beside_pythae_and_keops(tmp_path):
    """It measures and draws into a folder that has nothing yet."""
    if not importlib.util.find_spec("pykeops"):
        pytest.skip("pykeops is not installed; `make test-pythae` runs this one")
    words = ("-p", "redraw", "false", "-p", "size", "smoke", "-p", "out", str(tmp_path / "out"))
    done = call("wiseale-run", "--quiet", "nbs/40_bench.ipynb", str(tmp_path / "bench.ipynb"), *words)
    assert done.returncode == 0, done.stderr[-3000:]
    names = {"bench_smoke.png", "bench_smoke.svg", "cost_curve_smoke.png", "cost_curve_smoke.svg"}
    assert names <= {path.name for path in (tmp_path / "out").iterdir()}
