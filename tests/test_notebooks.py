"""Every notebook that defines the library runs from top to bottom; its cells hold the assertions."""
import pytest
from conftest import ROOT, call

MODULE_NOTEBOOKS = sorted(p.name for p in (ROOT / "nbs").glob("0*.ipynb"))


@pytest.mark.parametrize("name", MODULE_NOTEBOOKS)
def test_module_notebook(name):
    done = call("nbdev_test", "--path", f"nbs/{name}", "--n_workers", "0")
    assert done.returncode == 0 and "Success" in done.stdout + done.stderr, (done.stdout + done.stderr)[-3000:]
