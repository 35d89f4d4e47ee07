"""Render the Teapot data set into the data folder: images.npy, and factors.npy, which generate the images.

An existing set with the same seed and at least as many images is kept, so a second call does nothing. If a
call is killed, the next one continues it; a file appears under its final name only when it is complete.
"""

import argparse
import io
import signal
import sys
from pathlib import Path

import numpy as np

from wiseale_nb import __version__
from wiseale_nb.core import ParameterError, atomic_write, data_root
from wiseale_nb.data import Teapot
from wiseale_nb.formats import DataError, open_array, write_rows
from wiseale_nb.teapot import SIZE, draw_factors, render

TRAIN = Teapot.train_per_test  # images for training per held-out image
MOST = 10_000_000  # images for training: 129 GB
SAMPLES = 64  # images that are rendered again to check those on the disk


def count(text: str, least: int = TRAIN, most: int = MOST) -> int:
    """The argument of --n."""
    short = text.isascii() and text.isdigit() and len(text) < 20
    if not short or not least <= int(text) <= most:
        limits = f"a whole number of at least {least} and at most {most:,}"
        raise argparse.ArgumentTypeError(f"must be {limits}, got {text[:60]!r}")
    return int(text)


def held_out(text: str) -> int:
    """The argument of --held-out."""
    return count(text, 0, MOST // TRAIN)


def images_are_correct(folder: Path, factors: np.ndarray) -> bool:
    """Whether the images exist, and a sample of them, with the first and the last, matches the factors."""
    try:
        images = open_array(folder / "images.npy", (len(factors), 3, SIZE, SIZE), np.uint8)
    except DataError:
        return False
    rows = np.linspace(0, len(factors) - 1, SAMPLES).astype(int)
    difference = np.abs(images[rows].astype(float) - render(factors[rows]))
    # another processor may round a few pixels differently
    return bool((difference.mean((1, 2, 3)) < 0.5).all())


def factors_are_correct(folder: Path, factors: np.ndarray) -> bool:
    """Whether the factors exist and are the expected ones."""
    try:
        return np.array_equal(open_array(folder / "factors.npy", factors.shape, np.float32), factors)
    except DataError:
        return False


def stored_rows(folder: Path) -> int:
    """How many rows the factors on the disk have."""
    try:
        return len(open_array(folder / "factors.npy", (None, 5), np.float32))
    except DataError:
        return 0


def make(folder: Path, seed: int, rows: int) -> None:
    """Render what is missing. The factors are written last and mark the set as complete."""
    factors = draw_factors(rows, seed)
    if not images_are_correct(folder, factors):
        (folder / "factors.npy").unlink(missing_ok=True)
        key = f"version {__version__}, seed {seed}"
        write_rows(
            folder / "images.npy", (rows, 3, SIZE, SIZE), lambda start, stop: render(factors[start:stop]), key
        )
    content = io.BytesIO()
    np.save(content, factors)
    atomic_write(folder / "factors.npy", content.getvalue())


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 if the set is in place, 1 if not."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--n",
        type=count,
        default=200_000,
        help=f"images for training (default: %(default)s); one more is held out for every {TRAIN}",
    )
    parser.add_argument(
        "--held-out",
        type=held_out,
        default=0,
        metavar="N",
        help="render enough to hold out at least this many",
    )
    parser.add_argument("--seed", type=int, default=0, help="chooses the factors (default: %(default)s)")
    parser.add_argument(
        "--root", metavar="DIR", help="data folder (default: $WISEALE_DATA, else data/ of the project)"
    )
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that temporary files are removed

    n = max(args.n, TRAIN * args.held_out)
    rows = n + n // TRAIN
    try:
        folder = data_root(args.root) / "teapot"
        total = max(rows, stored_rows(folder))
        factors = draw_factors(total, args.seed)
        if factors_are_correct(folder, factors) and images_are_correct(folder, factors):
            print(f"Teapot is complete in {folder}, {total} images: nothing to do")
            return 0
        make(folder, args.seed, rows)
    except ParameterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        place = f"cannot use {error.filename}: " if error.filename else ""
        print(f"error: {place}{error.strerror}", file=sys.stderr)
        return 1
    print(f"Teapot is complete in {folder}, {rows} images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
