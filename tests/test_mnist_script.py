"""data_scripts/mnist.py with faulty mirrors and disks; no network is used."""

import gzip
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torchvision
from conftest import mnist_script

from wiseale_nb.core import data_root
from wiseale_nb.data import MNIST_SHA256, read_mnist

script = mnist_script()
LABELS = "t10k-labels-idx1-ubyte"


class Mirror(BaseHTTPRequestHandler):
    """/good/ serves the right files; the other folders fail in their own way."""

    def do_GET(self):
        _, kind, name = self.path.split("/")
        body = (data_root() / "mnist" / name).read_bytes()
        if kind == "absent":
            return self.send_error(404)
        if kind == "silent":
            return time.sleep(6)
        bad = {
            "page": b"<html>log in</html>",
            "cut": body[: len(body) // 2],
            "wrong": gzip.compress(b"no idx"),
        }
        body = (
            bad
            | {
                "bomb": gzip.compress(bytes(2**27), 1),
                "bit": body[:999] + bytes([body[999] ^ 1]) + body[1000:],
            }
        ).get(kind, body)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def mirrors(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def use(*kinds):
        monkeypatch.setattr(script, "TIMEOUT", 2 if "silent" in kinds else 30)  # a busy machine answers late
        urls = [f"http://127.0.0.1:{server.server_port}/{kind}/" for kind in kinds]
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", urls)

    yield use
    server.shutdown()


@pytest.fixture
def almost(tmp_path):
    """A data folder in which only the smallest file is missing."""
    (tmp_path / "mnist").mkdir()
    for name in MNIST_SHA256:
        if name != LABELS:
            (tmp_path / "mnist" / f"{name}.gz").symlink_to((data_root() / "mnist" / f"{name}.gz").resolve())
    return tmp_path


@pytest.mark.parametrize("kind", ["absent", "silent", "page", "cut", "wrong", "bomb", "bit"])
def test_bad_mirror_is_skipped_and_nothing_bad_is_stored(mirrors, almost, capsys, kind):
    mirrors(kind)
    assert script.main(["--root", str(almost), "--source", "mirrors"]) == 1
    message = capsys.readouterr().err
    assert "could not be fetched" in message and f"{LABELS}.gz" in message and "127.0.0.1" in message
    assert len(list((almost / "mnist").iterdir())) == 3
    mirrors(kind, "good")
    assert script.main(["--root", str(almost), "--source", "mirrors"]) == 0
    read_mnist(LABELS, almost)
    assert script.main(["--root", str(almost)]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_damaged_file_alone_is_fetched_again(mirrors, almost):
    mirrors("good")
    (almost / "mnist" / f"{LABELS}.gz").write_bytes(b"half a file")
    assert script.main(["--root", str(almost), "--source", "mirrors"]) == 0
    assert sum(path.is_symlink() for path in (almost / "mnist").iterdir()) == 3


def test_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert script.main(["--root", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err.startswith("error: cannot write to ")


def test_full_disk_leaves_no_file(mirrors, almost, capsys, monkeypatch):
    mirrors("good")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert script.main(["--root", str(almost), "--source", "mirrors"]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert len(list((almost / "mnist").iterdir())) == 3


SLOW = f"""
import gzip, os, sys, time
sys.path.insert(0, os.path.dirname({script.__file__!r}))
import mnist
def stored(wanted):
    for name in wanted:
        yield name, gzip.decompress((mnist.data_root() / "mnist" / (name + ".gz")).read_bytes())
mnist.SOURCES["npm"] = stored
os.fsync = lambda fd: (print("writing", flush=True), time.sleep(30))
sys.exit(mnist.main(["--root", sys.argv[1], "--source", "npm"]))
"""


def test_sigterm_leaves_no_temporary_file(tmp_path):
    command = [sys.executable, "-c", SLOW, tmp_path]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
    assert list((tmp_path / "mnist").iterdir()) == []
