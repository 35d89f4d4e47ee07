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
