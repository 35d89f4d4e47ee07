"""Shared helpers: a scratch copy of the project, and the commands as a user calls them."""

import importlib.util
import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from forked import Server

from wiseale_nb.core import data_root

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


def call(*words, cwd=ROOT, **options):
    """Run a command of this environment; returns the finished process with its text.

    Without options, in a process that is forked; see forked.py.
    """
    words = [str(w) for w in words]
    env = environment(cwd) | {"WISEALE_DATA": str(data_folder())}
    if not options and SERVER.can(words, env):
        return SERVER.call(words, cwd, env)
    return subprocess.run(
        words,
        cwd=cwd,
        env=env | options.pop("env", {}),
        capture_output=True,
        text=True,
        **options,
    )


def stop_at_work(work, root, how):
    """Start `work(root, busy)` in a process and send it a signal once it has set `busy`; the exit code."""
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=work, args=(root, busy := fork.Event()))
    process.start()
    assert busy.wait(20)
    os.kill(process.pid, how)
    process.join(20)
    return process.exitcode


def environment(cwd):
    """Variables under which the commands of this environment use the library of a folder."""
    outer = {name: value for name, value in os.environ.items() if "MAKE" not in name}  # those of `make test`
    env = outer | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    return env | ({"PYTHONPATH": str(cwd)} if Path(cwd, "wiseale_nb").is_dir() else {})


def data_folder():
    """Where MNIST is, or will be."""
    return (ROOT / data_root(os.environ.get("WISEALE_DATA") or "data")).resolve()


SERVER = Server(environment(ROOT))


def pytest_addoption(parser):
    parser.addoption(
        "--kills", type=int, default=4, help="how often tests/test_faults.py kills a process; make faults: 30"
    )


def pytest_unconfigure():
    SERVER.close()


def pytest_collection_modifyitems(items):
    """The longest tests first, so that no core waits for another one at the end."""
    items.sort(key=lambda item: item.path.stem not in ("test_notebooks", "test_studies"))


@pytest.fixture
def kills(request):
    return request.config.getoption("--kills")


def copy_project(copy):
    """Copy the tracked and the new files of the project, without runs and data."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


@pytest.fixture
def project(tmp_path):
    """A copy of the project, without runs and data."""
    return copy_project(tmp_path / "project")


def mnist_script():
    """data_scripts/mnist.py as a module."""
    spec = importlib.util.spec_from_file_location("mnist_script", ROOT / "data_scripts" / "mnist.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
