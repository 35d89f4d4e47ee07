"""The project as a whole: notebooks and package agree, lint is clean, the wheel stands on its own."""

import json
import ast
import importlib.util
import re
import subprocess
import sys
from graphlib import TopologicalSorter

import nbformat
import pytest
from conftest import BIN, ROOT, call

NOTEBOOKS = sorted(p.name for p in (ROOT / "nbs").glob("*.ipynb"))
SOURCES = {  # module, such as drawing.figure_1 -> its file
    ".".join(p.relative_to(ROOT / "wiseale_nb").with_suffix("").parts): p
    for p in sorted((ROOT / "wiseale_nb").rglob("*.py"))
    if p.stem not in ("__init__", "_modidx")
}
MODULES = list(SOURCES)
OPTIONAL = {
    "pythae": 'pip install "wiseale-nb[pythae]"'
}  # module that needs a package of its name -> what it says without it


def contents(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.suffix in (".py", ".ipynb")
    }


def test_clean_and_export_leave_no_difference(project):
    before = contents(project)
    for command in (["nbdev_clean"], ["nbdev_export"]):
        done = call(*command, cwd=project)
        assert done.returncode == 0, done.stderr
    after = contents(project)
    assert [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)] == []


@pytest.mark.parametrize("name", [n for n in NOTEBOOKS if n[0] in "12345"])
def test_one_parameters_cell_of_documented_literals(name):
    cells = [
        c for c in nbformat.read(ROOT / "nbs" / name, 4).cells if "parameters" in c.metadata.get("tags", [])
    ]
    assert len(cells) == 1
    for line, statement in zip(cells[0].source.splitlines(), ast.parse(cells[0].source).body, strict=True):
        assert isinstance(statement, ast.Assign) and "#" in line
        ast.literal_eval(statement.value)


def test_tags_survive_cleaning(project):
    """Without the setting in settings.ini nbdev_clean strips the tag, and parameters are ignored."""
    assert call("nbdev_clean", cwd=project).returncode == 0
    cells = nbformat.read(project / "nbs" / "10_train.ipynb", 4).cells
    assert sum("parameters" in c.metadata.get("tags", []) for c in cells) == 1


def test_executed_copies_and_errors_stay_out():
    for name in NOTEBOOKS:
        notebook = nbformat.read(ROOT / "nbs" / name, 4)
        assert "papermill" not in notebook.metadata, name
        assert str(ROOT) not in (ROOT / "nbs" / name).read_text(), f"{name} names a folder of this machine"
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        assert "site-packages" not in json.dumps(outputs), f"{name} shows a folder of this machine"
        assert not any(output.output_type == "error" for output in outputs), name


def test_no_html_beside_text():
    """A table is committed once, as text."""
    for name in NOTEBOOKS:
        for cell in nbformat.read(ROOT / "nbs" / name, 4).cells:
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                assert not ("text/html" in data and "text/plain" in data), f"{name}: {cell.source[:80]}"


def test_lint():
    """Notebooks, scripts, tools and tests; the modules are exported from the notebooks."""
    done = call("ruff", "check", "--no-cache", ".")
    assert done.returncode == 0, done.stdout


def test_format():
    done = call("ruff", "format", "--check", "--no-cache", "nbs", "data_scripts", "tools", "tests", "docs")
    assert done.returncode == 0, done.stdout


# Named exceptions: module -> reason.
LONG = {"bench_gpu": "a script that a machine with a GPU runs by itself"}  # has more than 350 lines
LATE = {"pairs": "Triton and numba are slow to import"}  # imports from the package in a function
BY_NAME = {"figures": "the drawings lie above it, and need matplotlib"}  # imports modules by their names


def package_imports(module):
    """The modules of the package that a module imports, each with whether it does so within a function."""
    tree = ast.parse(SOURCES[module].read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]
    late = {node for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        for name in imported_names(node, module):
            known = [other for other in SOURCES if name == other or name.startswith(f"{other}.")]
            yield from ((other, node in late) for other in known)


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def imported_names(node, module):
    """Dotted names below the package that an import statement mentions, such as loss.make_objective."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        above = ["wiseale_nb", *module.split(".")][: -node.level] if node.level else []
        base = ".".join([*above, *filter(None, [node.module])])
        names = [f"{base}.{alias.name}" for alias in node.names]
    else:
        names = []
    return [name.removeprefix("wiseale_nb.") for name in names if name.startswith("wiseale_nb.")]


def test_modules_import_downhill():
    """No cycle, and no import within a function or by name, which would hide one."""
    graph = {module: set(package_imports(module)) for module in SOURCES}
    assert {module for module, imports in graph.items() if any(late for _, late in imports)} == set(LATE)
    order = TopologicalSorter({m: {other for other, _ in imports} - {m} for m, imports in graph.items()})
    assert len(list(order.static_order())) == len(SOURCES)  # CycleError names the modules of a cycle
    named = {m for m, path in SOURCES.items() if re.search(r"import_module|__import__", path.read_text())}
    assert named == set(BY_NAME)


def test_modules_are_short():
    long = {module for module, path in SOURCES.items() if len(path.read_text().splitlines()) > 350}
    assert long == set(LONG)


def test_library_stands_without_its_tools():
    for module, path in SOURCES.items():
        assert "wiseale_tools" not in path.read_text(), module


IMPORTS = """
import importlib, os, sys
import matplotlib.pyplot
from wiseale_tools.kernel_server import load_libraries
load_libraries()  # once for all, and nothing of wiseale_nb
for module in sys.argv[1:]:
    if os.fork() == 0:
        try:
            loaded = importlib.import_module(f"wiseale_nb.{module}")
            [getattr(loaded, name) for name in loaded.__all__]
            print(f"{module}: fine", flush=True)
        except BaseException as error:
            print(f"{module}: {type(error).__name__}: {error}".replace(chr(10), " "), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def imported_alone():
    """What comes of importing each module in a process that has imported no other."""
    done = call(sys.executable, "-W", "error::SyntaxWarning", "-c", IMPORTS, *MODULES)
    assert done.returncode == 0, done.stderr
    return dict(line.split(": ", 1) for line in done.stdout.splitlines())


@pytest.mark.xdist_group("imports")  # one worker: the fixture takes 20 s
@pytest.mark.parametrize("module", MODULES)
def test_module_imports_alone(module, imported_alone):
    """A name that only the notebook has makes the exported module fail, in a new process."""
    if module in OPTIONAL and not importlib.util.find_spec(module):
        assert imported_alone[module].startswith("ImportError") and OPTIONAL[module] in imported_alone[module]
    else:
        assert imported_alone[module] == "fine"
    assert "AUTOGENERATED" in SOURCES[module].read_text()[:400]


def test_readme_is_the_index():
    """README.md is nbs/index.ipynb with paths seen from the project's root (make readme)."""
    done = call("wiseale-pipeline", "readme")
    assert done.stdout == (ROOT / "README.md").read_text()


def test_environment_uses_the_lock():
    assert "-r requirements.lock" in (ROOT / "environment.yml").read_text()


def test_lock_covers_the_dependencies():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {
        line.split("==")[0]
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if "==" in line and line[0].isalpha()
    }
    unlocked = {*OPTIONAL, "explorer", "lightning"}
    extras = [wanted for extra, wanted in project["optional-dependencies"].items() if extra not in unlocked]
    wanted = [*project["dependencies"], *(d for extra in extras for d in extra)]
    assert not {d.replace(">", "=").replace("<", "=").split("=")[0].strip() for d in wanted} - names


def test_wheel_in_an_empty_environment(tmp_path, project):
    """Built, installed with its dependencies, imported from outside the checkout, and its command answers."""
    uv = BIN / "uv"
    assert (done := call(uv, "build", "--wheel", "-o", tmp_path, cwd=project)).returncode == 0, done.stderr
    wheel = next(tmp_path.glob("*.whl"))
    venv = tmp_path / "venv"
    constraints = tmp_path / "constraints.txt"
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    constraints.write_text("\n".join(line.rstrip("\\ ") for line in lines if line and line[0].isalpha()))
    assert (done := call(uv, "venv", "--python", sys.executable, venv)).returncode == 0, done.stderr
    done = call(uv, "pip", "install", "--python", venv / "bin/python", "-c", constraints, wheel)
    assert done.returncode == 0, done.stderr
    imports = ", ".join(f"wiseale_nb.{m}" for m in MODULES if m not in OPTIONAL)
    code = (
        f"import {imports}; print(wiseale_nb.aggregate.__file__); "
        "wiseale_nb.teapot.patches(); wiseale_nb.drawing.explorer.page({})"  # these read data files
    )
    done = subprocess.run([venv / "bin/python", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith(str(venv)), done.stderr
    done = subprocess.run(
        [venv / "bin/wiseale-run", "x.ipynb", "y.ipynb"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2 and "install wiseale-nb[figures]" in done.stderr
