"""Convert CelebA's photographs into the data folder: images.npy, and partition.npy, the part that each belongs to.

CelebA may not be passed on; its makers' page, or torchvision.datasets.CelebA(root, download=True), gives it for research.
This script takes what you have: the folder "celeba" of torchvision's download, img_align_celeba.zip, or a folder of JPEG
files of 178x218. Nothing is unpacked to disk. A call that was killed is continued by the next one; a file appears under
its final name only when it is complete. Files that cannot be read are counted, listed, and left out.
"""

import argparse
import hashlib
import io
import os
import signal
import stat
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torchvision.transforms.v2 import functional

from wiseale_nb.data import (
    CELEBA_PARTS,
    DataError,
    data_root,
    open_array,
    random_stream,
    write_rows,
    write_whole,
)

NAME = "img_align_celeba"  # of the folder and of the archive that CelebA comes in
PARTITION = "list_eval_partition.txt"
SIZE, CROP, SIDE = (178, 218), 178, 64  # of a photograph, of the square at its centre, of the result
DAMAGED = CELEBA_PARTS.index("damaged")
LARGEST = 2**24  # bytes; no genuine photograph is a hundredth of that
SAMPLES = 64  # files that are converted before all others: do they fit, and are those on the disk the same?
UNREADABLE = (  # what reading a damaged photograph or archive may raise
    OSError, ValueError, RuntimeError, SyntaxError, EOFError, struct.error, zlib.error,
    zipfile.BadZipFile, Image.DecompressionBombError,
)  # fmt: skip


class SourceError(Exception):
    """The photographs cannot be used; the text says why."""


class Source(NamedTuple):
    """Where photographs come from; row i of the data set is the file names[i]."""

    place: Path
    names: list[str]  # sorted
    sizes: list[int]  # in bytes
    read: Callable[[str], bytes]
    partition: tuple[str, str] | None  # where it was found, and its text


# --- What the user has -------------------------------------------------------------------------------------------


def is_jpeg(name: str) -> bool:
    """Whether a path inside a source counts as a photograph."""
    path = PurePosixPath(name)
    return path.suffix.lower() in (".jpg", ".jpeg") and not path.name.startswith("._")


def nearby_partition(place: Path) -> tuple[str, str] | None:
    """The partition file in a folder, if it is there."""
    path = place / PARTITION
    return (str(path), path.read_text("utf-8", errors="replace")) if path.is_file() else None


def from_folder(place: Path) -> Source:
    """The JPEG files of a folder."""
    files = sorted(
        (entry.name, entry.stat().st_size)
        for entry in os.scandir(place)
        if is_jpeg(entry.name) and entry.is_file()
    )
    names, sizes = [name for name, _ in files], [size for _, size in files]
    return Source(
        place,
        names,
        sizes,
        lambda name: (place / name).read_bytes(),
        nearby_partition(place) or nearby_partition(place.parent),
    )


def from_archive(place: Path) -> Source:
    """The JPEG files of a zip archive; one that names files outside itself, or links, is refused as a whole."""
    archive = zipfile.ZipFile(place)
    for member in archive.infolist():
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in str(path).split("/")[0]:
            raise SourceError(f"{place} is refused: its member {member.filename!r} points out of the archive")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise SourceError(f"{place} is refused: its member {member.filename!r} is a link")
    members = {m.filename: m for m in archive.infolist() if not m.is_dir()}
    names = sorted(filter(is_jpeg, members))
    partition = nearby_partition(place.parent)
    for name in members:
        if PurePosixPath(name).name == PARTITION and members[name].file_size <= LARGEST:
            partition = f"{name} in {place}", archive.read(name).decode("utf-8", errors="replace")
    return Source(place, names, [members[name].file_size for name in names], archive.read, partition)


def find(place: Path) -> Source:
    """The photographs in an archive, in a folder, or in what torchvision's download leaves in a folder."""
    try:
        for candidate in (place, place / NAME, place / f"{NAME}.zip"):
            source = (
                from_folder(candidate)
                if candidate.is_dir()
                else from_archive(candidate)
                if candidate.is_file()
                else None
            )
            if source and source.names:
                return source
    except UNREADABLE as error:
        raise SourceError(f"cannot read {candidate}: {error}") from None
    if not place.exists():
        raise SourceError(f"{place} does not exist")
    raise SourceError(f"{place} holds no JPEG files, nor a folder {NAME}, nor {NAME}.zip")


def parts_of(source: Source, seed: int) -> np.ndarray:
    """The code of each file's part: from the official partition, or drawn 8 : 1 : 1 where that is missing."""
    codes = np.empty(len(source.names), np.uint8)
    if source.partition is None:
        order = torch.randperm(len(codes), generator=random_stream(seed, "data", part="partition")).numpy()
        for code, rows in enumerate(np.split(order, [len(codes) * 8 // 10, len(codes) * 9 // 10])):
            codes[rows] = code
        return codes
    place, text = source.partition
    listed = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if words and (len(words) != 2 or words[1] not in ("0", "1", "2")):
            raise SourceError(
                f"{place}, line {number}: expected a file's name and 0, 1 or 2, got {line[:60]!r}"
            )
        if words:
            listed[words[0]] = int(words[1])
    for row, name in enumerate(source.names):
        try:
            codes[row] = listed[PurePosixPath(name).name]
        except KeyError:
            raise SourceError(f"{place} does not say to which part {name} belongs") from None
    return codes


# --- From a JPEG file to a row -----------------------------------------------------------------------------------


def square(source: Source, row: int) -> np.ndarray:
    """The centre of one photograph as (178, 178, 3) uint8; raises one of UNREADABLE if it cannot be used."""
    if source.sizes[row] > LARGEST:
        raise ValueError(f"has {source.sizes[row]} bytes")
    with Image.open(io.BytesIO(source.read(source.names[row])), formats=["JPEG"]) as image:
        if image.size != SIZE:  # before anything is decoded: a header may claim any size
            raise ValueError("is {}x{}, not {}x{}".format(*image.size, *SIZE))
        pixels = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    top = (SIZE[1] - CROP) // 2
    return pixels[top : top + CROP]


def convert(source: Source, rows: range) -> np.ndarray:
    """Some photographs as (n, 3, 64, 64) uint8; zeros for those that cannot be used."""
    squares = np.zeros((len(rows), CROP, CROP, 3), np.uint8)
    for pixels, row in zip(squares, rows):
        try:
            pixels[:] = square(source, row)
        except UNREADABLE:
            pass  # reported at the end, when the file is read again
    channels_first = torch.from_numpy(squares).permute(0, 3, 1, 2)
    return functional.resize(channels_first, [SIDE, SIDE], antialias=True).numpy()


def reason(source: Source, row: int) -> str:
    """Why a file cannot be used; empty if it can."""
    try:
        square(source, row)
    except UnidentifiedImageError:
        return "is no JPEG file"
    except UNREADABLE as error:
        return str(error) or type(error).__name__
    return ""


def sample(source: Source) -> range:
    """Rows spread over all files."""
    return range(0, len(source.names), -(-len(source.names) // SAMPLES))


def check(source: Source) -> None:
    """Refuse a source most of whose files cannot be used, before time is spent on the rest."""
    reasons = {row: why for row in sample(source) if (why := reason(source, row))}
    if len(reasons) * 2 > len(sample(source)):
        row, why = next(iter(reasons.items()))
        raise SourceError(f"{source.place} is not CelebA: of {len(sample(source))} files that were tried, {len(reasons)} cannot be used, "
                          f"such as {source.names[row]}: {why}")  # fmt: skip


# --- The data folder ---------------------------------------------------------------------------------------------


def images_are_right(folder: Path, source: Source) -> bool:
    """Whether the images are there, and some of them show what the files do."""
    try:
        images = open_array(folder / "images.npy", (len(source.names), 3, SIDE, SIDE), np.uint8)
    except DataError:
        return False
    rows = sample(source)
    difference = np.abs(images[rows].astype(float) - convert(source, rows))
    return bool((difference.mean((1, 2, 3)) < 2).all())  # another JPEG library may round differently


def damaged_rows(folder: Path, source: Source) -> np.ndarray:
    """The rows of zeros, each listed with the reason."""
    images = open_array(folder / "images.npy", (len(source.names), 3, SIDE, SIDE), np.uint8)
    damaged = np.flatnonzero([not image.any() for image in images])
    for row in damaged:
        print(f"left out: {source.names[row]}: {reason(source, row) or 'is black'}", file=sys.stderr)
    return damaged


def write_images(folder: Path, source: Source) -> None:
    """Convert all photographs, on all cores."""
    key = hashlib.sha256(repr([*zip(source.names, source.sizes)]).encode()).hexdigest()
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding and resizing run outside Python's lock

        def make(start, stop):
            parts = [range(first, min(first + 32, stop)) for first in range(start, stop, 32)]
            return np.concatenate([*pool.map(lambda rows: convert(source, rows), parts)])

        write_rows(folder / "images.npy", (len(source.names), 3, SIDE, SIDE), make, key)


def prepare(folder: Path, source: Source, seed: int) -> str:
    """Write what is missing; the partition comes last: with it the set is complete. Returns what was done."""
    check(source)
    codes, path = parts_of(source, seed), folder / "partition.npy"
    if whole := images_are_right(folder, source):
        try:
            there = open_array(path, codes.shape, np.uint8)
        except DataError:
            there = codes + 4  # no valid code
    else:
        path.unlink(missing_ok=True)
        write_images(folder, source)
    if not whole or not ((there == codes) | (there == DAMAGED)).all():
        codes[damaged_rows(folder, source)] = DAMAGED
        content = io.BytesIO()
        np.save(content, codes)
        write_whole(path, content.getvalue())
        there, whole = codes, False
    counts = ", ".join(f"{(there == code).sum()} {part}" for code, part in enumerate(CELEBA_PARTS))
    origin = (
        source.partition[0] if source.partition else f"drawn with seed {seed}, as there is no {PARTITION}"
    )
    return f"CelebA is complete in {folder}{': nothing to do' if whole else ''}\n  {counts}\n  partition: {origin}"


def is_complete(folder: Path) -> bool:
    """Whether a whole data set is there, from whichever photographs."""
    try:
        images = open_array(folder / "images.npy", (None, 3, SIDE, SIDE), np.uint8)
        open_array(folder / "partition.npy", (len(images),), np.uint8)
    except DataError:
        return False
    return True


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 when the set is in place, 1 when not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source",
        nargs="?",
        metavar="SOURCE",
        type=Path,
        help="folder or zip archive (default: celeba/ in the data folder)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help=f"draws the parts if there is no {PARTITION} (default: %(default)s)",
    )
    parser.add_argument(
        "--root", metavar="DIR", help="data folder (default: $WISEALE_DATA, else data/ of the project)"
    )
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a temporary file is removed
    torch.set_num_threads(1)  # the photographs run side by side, not the pixels of one

    folder = data_root(args.root) / "celeba"
    try:
        print(prepare(folder, find(args.source or folder), args.seed))
    except SourceError as error:
        if args.source is None and is_complete(folder):
            print(
                f"CelebA is complete in {folder}: nothing to do (the photographs are not there to compare with)"
            )
            return 0
        print(f"error: {error}\n{__doc__.split(chr(10) * 2)[1]}", file=sys.stderr)
        return 1
    except OSError as error:
        place = f"cannot use {error.filename}: " if error.filename else ""
        print(f"error: {place}{error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
