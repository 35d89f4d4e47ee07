"""Print README.md: the cells of nbs/index.ipynb, with paths seen from the project's root."""
from pathlib import Path

import nbformat

root = Path(__file__).resolve().parents[1]
cells = nbformat.read(root / "nbs/index.ipynb", 4).cells
print("\n\n".join(c.source for c in cells if c.cell_type == "markdown").replace("](../", "]("))
