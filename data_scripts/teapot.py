"""Render the Teapot data set into the data folder: images.npy and, beside it, the factors.npy that generate the images.

A set that is there, with the same seed and at least as many images, is kept: a second call does nothing. A call that was
killed is continued by the next one; a file appears under its final name only when it is complete.
"""

import argparse
import io
import signal
import sys
from pathlib import Path

import numpy as np

from wiseale_nb import __version__
from wiseale_nb.data import TEAPOT_TRAIN, DataError, data_root, open_array, write_rows, write_whole
from wiseale_nb.teapot import SIZE, draw_factors, render

SAMPLES = 64  # images that are rendered again to check those on the disk


def count(text: str) -> int:
    """The argument of --n."""
    if not text.isascii() or not text.isdigit() or int(text) < TEAPOT_TRAIN:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {TEAPOT_TRAIN}, got {text!r}")
    return int(text)


def images_are_right(folder: Path, factors: np.ndarray) -> bool:
    """Whether the images are there, and some of them, the first and the last included, show what the factors say."""
    try:
        images = open_array(folder / "images.npy", (len(factors), 3, SIZE, SIZE), np.uint8)
    except DataError:
        return False
    rows = np.linspace(0, len(factors) - 1, SAMPLES).astype(int)
    difference = np.abs(images[rows].astype(float) - render(factors[rows]))
    return bool(
        (difference.mean((1, 2, 3)) < 0.5).all()
    )  # another processor may round a few pixels differently


def factors_are_right(folder: Path, factors: np.ndarray) -> bool:
    """Whether the factors are there and the expected ones."""
    try:
        return np.array_equal(open_array(folder / "factors.npy", factors.shape, np.float32), factors)
    except DataError:
        return False


def rows_there(folder: Path) -> int:
    """How many rows the factors on the disk have."""
    try:
        return len(open_array(folder / "factors.npy", (None, 5), np.float32))
    except DataError:
        return 0


def make(folder: Path, seed: int, rows: int) -> None:
    """Render what is missing. The factors are written last: with them the set is complete."""
    factors = draw_factors(rows, seed)
    if not images_are_right(folder, factors):
        (folder / "factors.npy").unlink(missing_ok=True)
        key = f"version {__version__}, seed {seed}"
        write_rows(
            folder / "images.npy", (rows, 3, SIZE, SIZE), lambda start, stop: render(factors[start:stop]), key
        )
    content = io.BytesIO()
    np.save(content, factors)
    write_whole(folder / "factors.npy", content.getvalue())


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 when the set is in place, 1 when not."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    held_out = f"for every {TEAPOT_TRAIN} of them one more is held out"
    parser.add_argument(
        "--n", type=count, default=200_000, help=f"images for training (default: %(default)s); {held_out}"
    )
    parser.add_argument(
        "--held-out",
        type=int,
        default=0,
        metavar="N",
        help="render so many that at least this number is held out",
    )
    parser.add_argument("--seed", type=int, default=0, help="chooses the factors (default: %(default)s)")
    parser.add_argument(
        "--root", metavar="DIR", help="data folder (default: $WISEALE_DATA, else data/ of the project)"
    )
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a temporary file is removed

    folder = data_root(args.root) / "teapot"
    n = max(args.n, TEAPOT_TRAIN * args.held_out)
    rows = n + n // TEAPOT_TRAIN
    try:
        there = max(rows, rows_there(folder))
        factors = draw_factors(there, args.seed)
        if factors_are_right(folder, factors) and images_are_right(folder, factors):
            print(f"Teapot is complete in {folder}, {there} images: nothing to do")
            return 0
        make(folder, args.seed, rows)
    except OSError as error:
        place = f"cannot use {error.filename}: " if error.filename else ""
        print(f"error: {place}{error.strerror}", file=sys.stderr)
        return 1
    print(f"Teapot is complete in {folder}, {rows} images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
