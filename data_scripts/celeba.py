"""Convert CelebA's photographs into the data folder: images.npy, and partition.npy with the part of each.

CelebA cannot be redistributed. For research, get it from its authors' page or by
torchvision.datasets.CelebA(root, download=True). SOURCE is img_align_celeba.zip, Kaggle's archive, a folder
that has either or what they hold, or any folder of 178x218 JPEG or PNG files. The official partition,
list_eval_partition.txt or .csv, is looked for in it, beside it, above it, and in a folder Eval there.

Nothing is unpacked to disk. If a call is killed, the next one continues it; a file appears under its final
name only when it is complete. Files that cannot be read are counted, listed, and left out.
"""

import argparse
import hashlib
import io
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from celeba_source import UNREADABLE, Source, SourceError, find
from PIL import Image, UnidentifiedImageError
from torchvision.transforms.v2 import functional

from wiseale_nb.core import ParameterError, atomic_write, data_root, random_stream, user_path
from wiseale_nb.data import CelebA
from wiseale_nb.formats import DataError, open_array, write_rows

SIZE, CROP, SIDE = (178, 218), 178, 64  # of a photograph, of the square at its centre, of the result
DAMAGED = CelebA.parts.index("damaged")
SAMPLES = 64  # files that are tried first, and compared with the rows on the disk


def parts_of(source: Source, seed: int) -> tuple[np.ndarray, str]:
    """The code of each file's part, and who says so; drawn 8 : 1 : 1, with a warning, if nobody does."""
    if source.parts is not None:
        return source.parts
    print(
        f"warning: the parts of {source.place} are DRAWN 8 : 1 : 1 with seed {seed}, not CelebA's own, as no "
        "list_eval_partition.txt or .csv is in it, beside it or above it; put one there and run this again",
        file=sys.stderr,
    )
    codes = np.empty(len(source.names), np.uint8)
    order = torch.randperm(len(codes), generator=random_stream(seed, "data", part="partition")).numpy()
    for code, rows in enumerate(np.split(order, [len(codes) * 8 // 10, len(codes) * 9 // 10])):
        codes[rows] = code
    return codes, f"DRAWN with seed {seed}, not CelebA's"


# --- From a file to a row -------------------------------------------------------------------------


def square(source: Source, row: int) -> np.ndarray:
    """The centre of one photograph as (178, 178, 3) uint8; raises one of UNREADABLE if it cannot be used."""
    with Image.open(io.BytesIO(source.read(source.names[row])), formats=["JPEG", "PNG"]) as image:
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
            pass  # reported at the end, where the file is read again
    channels_first = torch.from_numpy(squares).permute(0, 3, 1, 2)
    return functional.resize(channels_first, [SIDE, SIDE], antialias=True).numpy()


def reason(source: Source, row: int) -> str:
    """Why a file cannot be used; empty if it can be."""
    try:
        square(source, row)
    except UnidentifiedImageError:
        return "is no JPEG or PNG file"
    except UNREADABLE as error:
        return str(error) or type(error).__name__
    return ""


def sample(source: Source) -> range:
    """Rows spread over all files."""
    return range(0, len(source.names), -(-len(source.names) // SAMPLES))


def check(source: Source) -> None:
    """Refuse a source if most of a sample of its files cannot be used."""
    reasons = {source.names[row]: reason(source, row) for row in sample(source)}
    unusable = [f"{name}: {why}" for name, why in reasons.items() if why]
    if len(unusable) * 2 > len(reasons):
        counts = f"of {len(reasons)} files that were tried, {len(unusable)} cannot be used"
        raise SourceError(f"{source.place} is not CelebA: {counts}, such as {unusable[0]}")


# --- The data folder -----------------------------------------------------------------------------------


def images_are_correct(folder: Path, source: Source) -> bool:
    """Whether the images exist, and a sample of them matches the files."""
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


def stored_codes(path: Path, rows: int) -> np.ndarray | None:
    """The partition on the disk, if it has this number of rows."""
    try:
        return open_array(path, (rows,), np.uint8)
    except DataError:
        return None


def prepare(folder: Path, source: Source, seed: int) -> str:
    """Write what is missing; the partition comes last and marks the set as complete. Returns a summary."""
    check(source)
    (codes, origin), path = parts_of(source, seed), folder / "partition.npy"
    complete = images_are_correct(folder, source)
    if not complete:
        path.unlink(missing_ok=True)
        write_images(folder, source)
    stored = stored_codes(path, len(codes))
    if stored is None or not ((stored == codes) | (stored == DAMAGED)).all():
        codes[damaged_rows(folder, source)] = DAMAGED
        content = io.BytesIO()
        np.save(content, codes)
        atomic_write(path, content.getvalue())
        stored, complete = codes, False
    counts = ", ".join(f"{(stored == code).sum()} {part}" for code, part in enumerate(CelebA.parts))
    done = ": nothing to do" if complete else ""
    return f"CelebA is complete in {folder}{done}\n  {counts}\n  partition: {origin}"


def is_complete(folder: Path) -> bool:
    """Whether there is a complete data set, from whichever photographs."""
    try:
        images = open_array(folder / "images.npy", (None, 3, SIDE, SIDE), np.uint8)
        open_array(folder / "partition.npy", (len(images),), np.uint8)
    except DataError:
        return False
    return True


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 if the set is in place, 1 if not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source",
        nargs="?",
        metavar="SOURCE",
        type=user_path,
        help="folder or zip archive (default: celeba/ in the data folder)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="chooses the parts if no official partition is found (default: %(default)s)",
    )
    parser.add_argument(
        "--root", metavar="DIR", help="data folder (default: $WISEALE_DATA, else data/ of the project)"
    )
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that temporary files are removed
    torch.set_num_threads(1)  # photographs are processed in parallel, not pixels

    try:
        folder = data_root(args.root) / "celeba"
        print(prepare(folder, find(args.source or folder), args.seed))
    except SourceError as error:
        if args.source is None and is_complete(folder):
            print(f"CelebA is complete in {folder}: nothing to do (there are no photographs to compare with)")
            return 0
        print(f"error: {error}\n{__doc__.split(chr(10) * 2)[1]}", file=sys.stderr)
        return 1
    except ParameterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        place = f"cannot use {error.filename}: " if error.filename else ""
        print(f"error: {place}{error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
