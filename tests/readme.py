"""Print README.md: the cells of nbs/index.ipynb up to the marker, with paths seen from the project's root."""

from pathlib import Path

import nbformat

root = Path(__file__).resolve().parents[1]
text = "\n\n".join(
    c.source for c in nbformat.read(root / "nbs/index.ipynb", 4).cells if c.cell_type == "markdown"
)
text = text.split("<!-- Below this line")[0].rstrip()
text = text.replace("](../", "]<(").replace("](.)", "](nbs/)")
notebooks = (f"]({path.name})" for path in (root / "nbs").glob("*.ipynb"))
for link in notebooks:
    text = text.replace(link, "](nbs/" + link[2:])
print(text.replace("]<(", "]("))
