"""Kernels that a server forks: the same as others, and none outlives the one it works for."""

import json
import os
import signal
import subprocess
import time
from functools import partial

import nbformat
import psutil
import pytest
from conftest import BIN, call, environment

from wiseale_tools.kernel import SERVER, kernel_server

pytestmark = pytest.mark.xdist_group("kernel_server")  # one server for all

FACTS = """import os, signal, sys
loaded = "torch" in sys.modules
import json, matplotlib
facts = {"path": sys.path, "argv": sys.argv[0], "folder": os.getcwd(), "env": dict(os.environ),
         "flags": list(sys.flags), "executable": sys.executable, "leader": os.getsid(0) == os.getpid(),
         "backend": matplotlib.get_backend(), "child": str(signal.getsignal(signal.SIGCHLD))}
print(json.dumps(facts | {"loaded": loaded}))"""
OWN = {"JPY_PARENT_PID", "IPYTHONDIR", "PYTEST_CURRENT_TEST", SERVER}  # another one for each kernel
SLEEP = (
    "import os, time\nopen('up.new', 'w').write(str(os.getpid()))\nos.rename('up.new', 'up')\ntime.sleep(60)"
)


def notebook(folder, body):
    cells = [nbformat.v4.new_code_cell("n = 1  # a number", metadata={"tags": ["parameters"]})]
    nbformat.write(
        nbformat.v4.new_notebook(cells=[*cells, nbformat.v4.new_code_cell(body)]), folder / "in.ipynb"
    )
    return ("wiseale-run", "--quiet", "in.ipynb", "out.ipynb")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The variable that names a server."""
    with kernel_server(environment(tmp_path_factory.mktemp("server"))) as path:
        yield {SERVER: path}


def ends(process, seconds=10):
    """Whether a process ends by itself in time."""
    try:
        psutil.Process(process).wait(seconds)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


def test_a_forked_kernel_is_like_one_that_was_started(tmp_path, server):
    """But PyTorch is there already. A server that has gone is no obstacle."""
    words, facts = notebook(tmp_path, FACTS), []
    for env in (server, {SERVER: str(tmp_path / "gone")}, {"PYTHONPATH": "/other", **server}):
        done = call(*words, cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stderr
        facts.append(json.loads(nbformat.read(tmp_path / "out.ipynb", 4).cells[-1].outputs[0].text))
        facts[-1]["env"] = {name: value for name, value in facts[-1]["env"].items() if name not in OWN}
    assert [found.pop("loaded") for found in facts] == [True, False, True]
    assert facts[0] == facts[1]
    assert "/other" in facts[2]["path"] and facts[2]["env"]["PYTHONPATH"] == "/other"


def test_a_kernel_that_dies_fails_the_notebook(tmp_path, server):
    done = call(*notebook(tmp_path, "import os\nos._exit(3)"), cwd=tmp_path, env=server)
    assert done.returncode == 1 and "failed" in done.stderr and "Traceback" not in done.stderr


def started(folder, env):
    """A runner whose notebook sleeps, and the process number of its kernel."""
    words = notebook(folder, SLEEP)
    env, pipe = environment(folder) | env, subprocess.PIPE
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores it
    words = [BIN / words[0], *words[1:]]
    runner = subprocess.Popen(words, cwd=folder, env=env, stderr=pipe, text=True, preexec_fn=heed)
    deadline = time.monotonic() + 60
    while not (folder / "up").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return runner, int((folder / "up").read_text())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_kernel_ends_with_its_runner(tmp_path, server, how):
    runner, kernel = started(tmp_path, server)
    runner.send_signal(how)
    assert ends(kernel) and runner.communicate(timeout=20) is not None


def test_kernels_end_with_their_server(tmp_path):
    """Killed, or left alone by the process that started it; the runner says that the notebook failed."""
    for how in ("killed", "left"):
        folder = tmp_path / how
        folder.mkdir()
        manager = kernel_server(environment(folder))
        path = manager.__enter__()
        runner, kernel = started(folder, {SERVER: path})
        if how == "killed":
            os.kill(psutil.Process(kernel).ppid(), signal.SIGKILL)
        manager.__exit__(None, None, None)
        assert ends(kernel) and "failed" in runner.communicate(timeout=30)[1] and runner.returncode == 1
