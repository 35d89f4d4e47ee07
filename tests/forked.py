"""Commands of this environment in processes that are forked from one which has loaded PyTorch.

To load it takes three seconds of a command. The server, this file run as a script, forks a process for each
command, which runs its script. The kernels of notebooks are forked too, as those of the pipeline are. Nothing
of the project is loaded before, so each process uses the library of the folder that it is called in.
"""

import contextlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

from wiseale_tools.kernel_server import LOADED, become, load_libraries

COMMANDS = {"nbdev_test", "snakemake", "wiseale-pipeline", "wiseale-run"}
FREE = {"PYTEST_CURRENT_TEST", "PYTHONPATH", "WISEALE_DATA"}  # no library reads these when it is imported


def fixed(env):
    """The variables that may decide how a library is loaded."""
    return {name: value for name, value in env.items() if name not in FREE}


class Server:
    """The process that forks, as the tests see it; it starts with the first command."""

    def __init__(self, env):
        self.env, self.process, self.kernels = fixed(env), None, contextlib.ExitStack()

    def can(self, words, env):
        """Whether it knows the command, and loads the libraries under the same variables."""
        return words[0] in COMMANDS and fixed(env) == self.env

    def start(self):
        from wiseale_tools.kernel import SERVER, kernel_server  # here, because the server needs it not

        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, __file__], env=self.env, **pipes)
        self.variable = {SERVER: self.kernels.enter_context(kernel_server(self.env))}

    def call(self, words, cwd, env):
        """Run a command to its end; returns what `subprocess.run` does."""
        if not self.process:
            self.start()
        with tempfile.TemporaryDirectory() as folder:
            files = [f"{folder}/stdout", f"{folder}/stderr"]
            job = {"words": words, "cwd": str(cwd), "env": env | self.variable, "files": files}
            print(json.dumps(job), file=self.process.stdin, flush=True)
            code = int(self.process.stdout.readline())
            return subprocess.CompletedProcess(words, code, *(Path(file).read_text() for file in files))

    def close(self):
        """End both servers; they end by themselves when the tests are killed."""
        self.kernels.close()
        if self.process:
            self.process.communicate()


def serve():
    """Fork a process for each line of the input, and print its exit code."""
    load_libraries((*LOADED, "snakemake.cli", "fastcore.all", "papermill.execute"))
    assert not [name for name in sys.modules if name.startswith(("matplotlib.", "wiseale_nb"))]
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run_command(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def run_command(job):
    """Be the command, and end."""
    for number, file in enumerate([os.devnull, *job["files"]]):
        os.dup2(os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
    name, *words = job["words"]
    script = Path(sys.executable).with_name(name)
    become([str(script), *words], job["cwd"], job["env"], str(script.parent))
    runpy.run_path(str(script), run_name="__main__")
    sys.exit()


if __name__ == "__main__":
    serve()
