"""Notebooks as pages: without directives of nbdev, with links to files and each figure's data."""

import json
import re
from pathlib import Path

from figure_files import downloads, figures_of
from reference import OPTIONAL

DIRECTIVE = re.compile(r"^#\| *(\S+)(?: +(\S+))?.*\n?", re.M)
HIDDEN = {"hide", "default_exp"}


def link(target, config, root):
    """Where a link of a notebook to something outside nbs/ leads; None if there is nothing to lead to."""
    path = "nbs" if target == "." else target.removeprefix("../")
    if config.repository_address:
        return f"{config.repository_address}/blob/main/{path}"
    return f"/{path}" if (root / path).is_file() else None


def markdown(text, config, root):
    """A markdown cell: display mathematics in paragraphs of its own, links that lead somewhere."""
    text = re.sub(r"\$\$(.+?)\$\$", r"\n\n$$\1$$\n\n", text, flags=re.S)
    text = re.sub(r"(\bEq\.(?: [\dAB.–-]+(?: and|,| or| to)?)?)\n(?=[AB\d])", r"\1 ", text)

    def rewrite(found):
        words, target = found.groups()
        if re.search(r"\.(png|svg)$", target):
            return found[0]
        where = link(target, config, root)
        return f"[{words}]({where})" if where else words

    return re.sub(r"\[([^][]*)\]\((\.\./[^)]*|\.)\)", rewrite, text)


BEHIND = (
    "[code](07e_claims_measure.ipynb), [data](/figures/paper/data/claims_values.csv)"  # a claim's numbers
)


def output(shown):
    """An output: no rule, which would end a section; each claim has an anchor, and links to code and data."""
    if "text/markdown" in (data := shown.get("data", {})):
        text = "".join(data["text/markdown"])
        text = re.sub(r"^(-{3,}|_{3,}|\*{3,})[ ]*$", "", text, flags=re.M)
        text = re.sub(r"^(?=\*\*([\dA-D.]+-\d+) )", r"(claim-\1)=\n\n", text, flags=re.M)
        data["text/markdown"] = re.sub(r"^(\*Measured:\*.*)$", rf"\1 ({BEHIND})", text, flags=re.M)
    return shown


def about(name, module):
    """The line under a title: the notebook's file, and the reference of the module that it exports."""
    links = [f'<a href="../_sources/nbs/{name}.ipynb" download>source notebook</a>']
    if module and not module.startswith("drawing.") and module not in {*OPTIONAL, "__main__"}:
        links.append(f'<a href="../docs/api/{module}.html">reference of <code>wiseale_nb.{module}</code></a>')
    return f'\n\n<p class="about">{" · ".join(links)}</p>'


def read_notebook(app, docname, source):
    """Change a notebook as it is read; the file stays as it is."""
    if not docname.startswith("nbs/"):
        return
    root, name = Path(app.srcdir), docname.removeprefix("nbs/")
    notebook = json.loads(source[0])
    cells = []
    module = None
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code":
            directives = dict(DIRECTIVE.findall(text))
            module = directives.get("default_exp", module)
            if HIDDEN & directives.keys():
                continue
            cell["source"] = DIRECTIVE.sub("", text)
            cell["outputs"] = [output(shown) for shown in cell["outputs"]]
        else:
            cell["source"] = markdown(text, app.config, root)
        cells.append(cell)
    title, *rest = cells[0]["source"].split("\n", 1)
    cells[0]["source"] = title + about(name, module) + "\n" + "".join(rest)
    files = [f"- {line}" for entry in figures_of(name) for line in downloads(root, *entry)]
    if files:
        text = "## Files\n\nThe pictures, and the data that they are drawn from:\n\n" + "\n".join(files)
        cells.append({"cell_type": "markdown", "metadata": {}, "id": "files", "source": text})
    notebook["cells"] = cells
    source[0] = json.dumps(notebook)


def setup(app):
    app.connect("source-read", read_notebook)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
