"""The committed figures and their data as downloads."""

from functools import cache
from pathlib import Path

from wiseale_nb.figures import Figure, load_figures

PROFILES = ("paper", "images", "tenth", "quick")  # of the paper's figures, the best first
all_figures = cache(load_figures)


def figures_of(notebook):
    """The figures that a notebook makes, with their names."""
    return [(name, figure) for name, figure in all_figures().items() if figure.notebook == notebook]


def committed(root: Path, name: str, figure: Figure):
    """What is committed of a figure: a folder, a size, and a stem, the best first."""
    sizes = reversed(figure.sizes) if figure.study else [""]
    for size in sizes:
        stem = figure.stem_at(name, size)
        for profile in PROFILES if not figure.shared else [""]:
            folder = figure.folder_in(root, profile)
            kept = [
                folder / f"{stem}.png",
                *(folder / "data" / file for file in figure.data_files(name, size)),
            ]
            if folder.is_relative_to(root / "figures") and any(file.is_file() for file in kept):
                yield folder, size, stem


def picture(root, name, figure):
    """The best committed picture of a figure; None if it has only tables."""
    files = (folder / f"{stem}.png" for folder, _, stem in committed(root, name, figure))
    return next((file.relative_to(root) for file in files if file.is_file()), None)


def download(path):
    """A link to a file of the project that is copied into the site."""
    return f"{{download}}`{path.name} </{path.as_posix()}>`"


def downloads(root, name, figure):
    """A line for each folder and size: the picture, and the data that it draws."""
    for folder, size, stem in committed(root, name, figure):
        files = [folder / f"{stem}.{kind}" for kind in ("png", "svg")]
        files += [folder / "data" / file for file in figure.data_files(name, size)]
        links = [download(file.relative_to(root)) for file in files if file.is_file()]
        yield f"`figures/{folder.name}`: " + " · ".join(links)
