"""Processes: one at a time in a folder, none that outlives its parent, and where their sockets can be."""

import contextlib
import fcntl
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from wiseale_tools import CallError

LONGEST = 65  # bytes of a folder for sockets: a socket's path may have 103, of which ours take 32


@contextlib.contextmanager
def exclusive_lock(folder):
    """Hold a folder for this process; `CallError` that names the process which already does.

    Two pipelines in one checkout would train the same runs into the same folders. The lock belongs to the
    operating system: it is gone with the process that holds it, however that ended.
    """
    path = Path(folder) / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read()
            message = f"already running in {folder}, as process {holder}; this call changed nothing"
            raise CallError(message) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def end_with_parent(parent, how=signal.SIGTERM):
    """Send this process a signal within a fifth of a second of its parent's end.

    A kernel whose runner is killed ends by itself. A runner has to do the same when Snakemake is killed, or
    it would train on for nobody, in the way of the next call.
    """

    def watch():
        while os.getppid() == parent:
            time.sleep(0.2)
        os.kill(os.getpid(), how)

    threading.Thread(target=watch, daemon=True).start()


def short_temporary_folder():
    """TMPDIR, or a system folder if it is too deep for sockets; `CallError` if there is none."""
    own = tempfile.gettempdir()  # not TMPDIR if that cannot be written
    for folder in (own, "/tmp", "/var/tmp"):
        if len(os.fsencode(folder)) <= LONGEST and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise CallError(f"the path of {own} is too long for sockets; set TMPDIR to a folder with a shorter one")


def own_commands_first():
    """Let the shells of jobs find the commands of this Python before others, and run no script first."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ.pop("BASH_ENV", None)
