"""README.md is nbs/index.ipynb, up to a marker, with paths seen from the project's root."""

import re

import nbformat

MARKER = "<!-- Below this line"


def readme(root):
    """The text of README.md."""
    cells = nbformat.read(root / "nbs/index.ipynb", 4).cells
    text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    text = text.split(MARKER)[0].rstrip()
    return re.sub(r"\]\(([^)]*)\)", lambda link: f"]({from_root(link[1], root)})", text) + "\n"


def from_root(link, root):
    """A link of a notebook in nbs/, seen from the project's root."""
    if link.startswith("../"):
        return link.removeprefix("../")
    if link == ".":
        return "nbs/"
    return f"nbs/{link}" if (root / "nbs" / link).is_file() else link
