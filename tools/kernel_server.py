"""Kernels that are forked from a process which has loaded PyTorch, because that takes three seconds of each.

`wiseale-pipeline` keeps this server while its jobs run, see `kernel.kernel_server`. A connection brings the
command line of one kernel; its process number goes back, and its exit code when it has ended. The kernel is
killed when the other end of the connection is gone, and all are when the process that started the server is.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys

# Nothing of the project, whose code may be another one for each kernel, and nothing that reads the
# environment when it is imported, as Matplotlib does.
LOADED = (
    *("torch", "torch.utils.data", "torch.fx.experimental.proxy_tensor", "numba", "pandas", "pydantic"),
    *("safetensors.torch", "scipy.stats", "sklearn.linear_model", "yaml", "IPython"),
)


def load_libraries(names=LOADED):
    """Import what is installed, out of the garbage collector's reach: it would copy all into each process."""
    for name in names:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()


def become(argv, cwd, env, path):
    """What a new interpreter starts with; `path` is the first place where it looks for modules."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    others = [place for place in sys.path[1:] if place not in given]
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = argv
    sys.path[:] = [path, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep)), *others]


def become_kernel(job):
    """Be `python -m ipykernel_launcher ...`, in a session of its own."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parent = {"JPY_PARENT_PID": str(os.getppid())}  # it ends when this one does
    words = job["words"][job["words"].index("-m") + 1 :]
    become(words, job["cwd"], job["env"] | parent, job["cwd"])
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    sys.exit()


class KernelServer:
    """Sockets and processes; `run` ends when the standard input does."""

    def __init__(self, path):
        self.kernels = {}  # connection -> process number
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.woken, self.waker = socket.socketpair()  # a kernel that ends wakes `select` up
        self.waker.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.waker.fileno(), warn_on_full_buffer=False)

    def run(self):
        while True:
            sources = [sys.stdin, self.woken, self.listener, *self.kernels]
            ready = select.select(sources, [], [])[0]
            if sys.stdin in ready:
                break
            if self.woken in ready:
                self.woken.recv(4096)
            for connection in self.kernels.keys() & set(ready):  # nothing is ever sent: it was closed
                self.kill(self.kernels[connection])
            self.answer_for_the_dead()
            if self.listener in ready:
                self.start_kernel()
        for pid in self.kernels.values():
            self.kill(pid)

    def start_kernel(self):
        """Fork the kernel that a new connection asks for."""
        load_libraries()
        connection, _ = self.listener.accept()
        with connection.makefile() as file:
            line = file.readline()
        pid = os.fork() if line else None
        if pid == 0:
            for end in (self.listener, self.woken, self.waker, connection, *self.kernels):
                end.close()
            become_kernel(json.loads(line))
        elif pid:
            self.kernels[connection] = pid
            self.send(connection, pid)

    def answer_for_the_dead(self):
        for connection, pid in list(self.kernels.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self.send(connection, os.waitstatus_to_exitcode(status))
                connection.close()
                del self.kernels[connection]

    def send(self, connection, number):
        with contextlib.suppress(OSError):  # nobody listens any more
            connection.sendall(f"{number}\n".encode())

    def kill(self, pid):
        with contextlib.suppress(ProcessLookupError):  # it has not begun, or has ended
            os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started it
    KernelServer(sys.argv[1]).run()
