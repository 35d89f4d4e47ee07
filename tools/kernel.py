"""The kernel of every notebook: this interpreter, out of reach of the user's settings."""

import contextlib
import importlib.util
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from traitlets import Unicode
from traitlets.config import Config

from wiseale_tools.process import short_temporary_folder

STEERING = (  # beginnings of variables that change what a kernel runs, shows or draws
    *("JUPYTER", "JPY_", "IPYTHON", "IPYKERNEL", "MPLBACKEND", "MATPLOTLIB"),
    *("PYTHONSTARTUP", "PYTHONOPTIMIZE", "PYTHONWARNINGS", "PYTHONDEVMODE"),
)
SERVER = "WISEALE_KERNELS"  # variable with the socket of a server that forks kernels
LOCAL = {"kernel_provisioner": {"provisioner_name": "local-provisioner"}}  # a process of this machine


def kernel_environment(env, folder):
    """The variables of a kernel, without those that steer it; IPython finds its settings in `folder`."""
    env = {name: value for name, value in env.items() if not name.startswith(STEERING)}
    env["IPYTHONDIR"] = str(folder)
    matplotlib = importlib.util.find_spec("matplotlib")
    if matplotlib:  # its own settings, instead of those in ~/.config/matplotlib
        env["MATPLOTLIBRC"] = str(Path(matplotlib.origin).parent / "mpl-data" / "matplotlibrc")
    return env


@contextlib.contextmanager
def kernel_server(env=os.environ):
    """While the `with` lasts, a server forks kernels; it gives the socket, for a variable named `SERVER`.

    It loads PyTorch for the first kernel.
    """
    above = Path(env.get(SERVER) or "none")
    if above.is_socket():
        yield str(above)
        return
    with kernel_folder() as folder:
        path = f"{folder}/server"
        words = [sys.executable, "-m", "wiseale_tools.kernel_server", path]
        env = kernel_environment(env, folder)
        with subprocess.Popen(words, stdin=subprocess.PIPE, env=env):  # it ends when its input does
            yield path


class ForkedKernel:
    """A kernel from the server, with what jupyter_client needs of `Popen`; `OSError` without a server."""

    stdin = stdout = stderr = returncode = None

    def __init__(self, path, words, env, cwd):
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(path)
        self.answers = self.connection.makefile()
        job = {"words": words, "env": env, "cwd": str(Path(cwd or "").absolute())}
        self.connection.sendall(json.dumps(job).encode() + b"\n")
        line = self.answers.readline()
        if not line:
            raise ConnectionResetError(f"no answer from {path}")
        self.pid = int(line)

    def poll(self):
        if self.returncode is None and select.select([self.connection], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self):
        if self.returncode is None:
            line = self.answers.readline()
            self.returncode = int(line) if line else -signal.SIGKILL  # without the server it ends too
        return self.returncode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def terminate(self):
        self.send_signal(signal.SIGTERM)


class ThisInterpreter(AsyncKernelManager):
    """Starts the Python that runs this, whatever Jupyter's kernel specifications call `python3`."""

    folder = Unicode(config=True)  # for the settings of IPython

    @property
    def kernel_spec(self):
        return KernelSpec(**get_kernel_dict() | {"metadata": LOCAL})

    def start_kernel(self, **options):
        env = kernel_environment(options.pop("env", os.environ), self.folder)
        return super().start_kernel(**options, env=env)

    async def _async_launch_kernel(self, kernel_cmd, **options):
        """By the server if there is one, else as a new process."""
        try:
            kernel = ForkedKernel(os.environ[SERVER], kernel_cmd, options["env"], options.get("cwd"))
        except (KeyError, OSError):
            return await super()._async_launch_kernel(kernel_cmd, **options)
        self.provisioner.process = kernel
        self.provisioner.pid = self.provisioner.pgid = kernel.pid
        self.provisioner.cwd = options.get("cwd") or Path.cwd()
        self._reconcile_connection_info(self.provisioner.connection_info)


def kernel_folder():
    """A folder for one kernel, which is removed when the `with` that it is for ends."""
    folder = short_temporary_folder()
    return tempfile.TemporaryDirectory(prefix="wiseale-", dir=folder, ignore_cleanup_errors=True)


def kernel_options(folder):
    """Options of the notebook client: this interpreter, its sockets in a folder, an immediate end.

    Kernels side by side on TCP could take each other's ports.
    """
    kernel = {"transport": "ipc", "ip": f"{folder}/kernel", "connection_file": f"{folder}/kernel.json"}
    client = {"kernel_manager_class": ThisInterpreter, "shutdown_kernel": "immediate"}
    return Config(KernelManager=kernel, ThisInterpreter={"folder": str(folder)}, NotebookClient=client)
