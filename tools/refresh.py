"""Execute the documentation notebooks in place, so that what they show is what their code gives today."""

import ast
import importlib.util
import os
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbdev.clean import nbdev_clean

from wiseale_nb.core import atomic_write
from wiseale_tools import CallError
from wiseale_tools.kernel import kernel_folder, kernel_options
from wiseale_tools.notebook import read_notebook, whole_streams

KEPT = ("text/plain", "text/markdown", "text/latex", "image/png")  # kinds of output that are committed


class DocumentationClient(NotebookClient):
    """Runs a notebook as nbdev's tests do: cells marked `#| eval: false` keep the outputs they have."""

    async def async_execute_cell(self, cell, cell_index, **options):
        if "#| eval: false" in cell.source:
            return cell
        return await super().async_execute_cell(cell, cell_index, **options)


def find_notebooks(root, names=()):
    """The notebooks with these names ("24", "24_figure_4", "24_figure_4.ipynb"), or all in nbs/."""
    there = sorted((root / "nbs").glob("*.ipynb"))
    found = []
    for name in names:
        stem = Path(name).stem
        matches = [path for path in there if path.stem == stem or path.stem.startswith(f"{stem}_")]
        if not matches:
            raise CallError(f"no notebook nbs/{stem}.ipynb")
        found += matches
    return found or there


def missing_package(notebook):
    """A package that the notebook imports and that is not installed, or None."""
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        try:
            statements = ast.walk(ast.parse(cell.source))
        except SyntaxError:  # a magic
            continue
        for statement in statements:
            names = [alias.name for alias in statement.names] if isinstance(statement, ast.Import) else []
            if isinstance(statement, ast.ImportFrom) and statement.module:
                names.append(statement.module)
            for package in (name.split(".")[0] for name in names):
                if importlib.util.find_spec(package) is None:
                    return package
    return None


def committed_output(output):
    """An output as it is committed: text and pictures, no HTML beside the text, no number of execution."""
    if "data" in output:
        output.data = {kind: content for kind, content in output.data.items() if kind in KEPT}
        output.metadata = {}
    if "execution_count" in output:
        output.execution_count = None
    return output


def execute(notebook, folder):
    """Execute a notebook in a folder, changing it in place; `RuntimeError` with the error of a cell."""
    with kernel_folder() as scratch:
        client = DocumentationClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
            config=kernel_options(scratch),
        )
        try:
            client.execute(env=os.environ | {"OMP_NUM_THREADS": "1"})
        except CellExecutionError as error:
            raise RuntimeError(f"{error.ename}: {error.evalue}") from None
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [committed_output(output) for output in whole_streams(cell.outputs)]


def refresh(path):
    """Execute one notebook in place; one that fails stays as it was. Returns what happened."""
    before = path.read_bytes()
    notebook = read_notebook(path)
    package = missing_package(notebook)
    if package:
        return f"skipped, {package} is not installed"
    execute(notebook, path.parent)
    kernel = notebook.metadata.get("kernelspec")
    notebook.metadata = {"kernelspec": kernel} if kernel else {}
    with tempfile.TemporaryDirectory(prefix="wiseale-") as scratch:
        copy = Path(scratch) / path.name
        nbformat.write(notebook, copy)
        nbdev_clean(fname=str(copy))
        atomic_write(path, copy.read_bytes())
    return "as before" if path.read_bytes() == before else "changed"


def refresh_all(root, names=()):
    """Refresh the named notebooks, or all, and print a line for each; True if none failed."""
    passed = True
    for path in find_notebooks(root, names):
        started = time.time()
        try:
            what = refresh(path)
        except RuntimeError as error:
            passed = False
            what = f"failed: {error}"
        print(f"nbs/{path.name}: {what} ({time.time() - started:.0f} s)", flush=True)
    return passed
