"""Execute one notebook with papermill, with parameters that cannot be mistyped.

papermill only warns of a name that the notebook does not have, and takes any value. Here the notebook's
parameters cell is read first; each value is converted to the type of its default, or refused.

Nothing of the library is imported: that would load PyTorch, two seconds for every job of the pipeline.
"""

import ast
import io
import logging
import os
import re
import sys
import tempfile
import time
import tokenize
from pathlib import Path

import nbformat
import yaml
from papermill import PapermillExecutionError, execute_notebook
from papermill.iorw import NoDatesSafeLoader

from wiseale_tools import CallError
from wiseale_tools.kernel import kernel_folder, kernel_options
from wiseale_tools.names import check_names

LARGEST = 2**26  # bytes; no notebook of the project comes near
NOT_LITERAL = (ValueError, SyntaxError, MemoryError, RecursionError)  # what `ast` raises on unusable text


def read_notebook(path):
    """Read a notebook file; `CallError` if it cannot be read or is none."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise CallError(f"cannot use {path}: it is not a file")
        if path.exists() and path.stat().st_size > LARGEST:
            raise CallError(f"cannot use {path}: it has more than {LARGEST:,} bytes")
        text = path.read_bytes()
    except OSError as error:
        raise CallError(f"cannot use {path}: {error.strerror}") from None
    try:
        notebook = nbformat.reads(text.decode(), 4)
        nbformat.validate(notebook)
        return notebook
    except Exception as error:  # nbformat has many ways to say so
        raise CallError(f"{path} is not a notebook ({type(error).__name__})") from None


def parameters_cell(path):
    """The source of the cell tagged `parameters`; `CallError` unless there is exactly one, in Python."""
    notebook = read_notebook(path)
    language = notebook.metadata.get("kernelspec", {}).get("language", "python")
    if language != "python":
        raise CallError(f"{path} is not a Python notebook, its language is {language!r}")
    tagged = [cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise CallError(f"{path} has {len(tagged)} cells tagged 'parameters', it needs exactly one")
    return tagged[0]


def comments(source):
    """The comment on each line of some code, by line number."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ").rstrip() for t in tokens if t.type == tokenize.COMMENT}


def assignment(statement):
    """Name and value of an assignment of a literal; `ValueError` for any other statement."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target = statement.targets[0]
    elif isinstance(statement, ast.AnnAssign) and statement.value:
        target = statement.target
    else:
        raise ValueError(f"line {statement.lineno} assigns no value")
    if not isinstance(target, ast.Name):
        raise ValueError(f"line {statement.lineno} assigns to something that is not a name")
    return target.id, ast.literal_eval(statement.value)


def notebook_parameters(path):
    """The declared parameters: name -> {"default": its default, "help": its comment}."""
    source = parameters_cell(path)
    try:
        found = {}
        notes = comments(source)
        for statement in ast.parse(source).body:
            name, default = assignment(statement)
            found[name] = {"default": default, "help": notes.get(statement.end_lineno, "")}
    except (*NOT_LITERAL, tokenize.TokenError) as error:
        raise CallError(f"the parameters cell of {path} must hold plain literals: {error}") from None
    return found


def is_plain(value):
    """True for text, numbers, None, lists, and dictionaries whose keys are text.

    papermill hands these over as data. Of others, such as bytes, it would paste the text into the code.
    """
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(entry) for key, entry in value.items())
    if isinstance(value, list):
        return all(map(is_plain, value))
    return isinstance(value, (str, int, float, type(None)))


def read_literal(text, default):
    """Read text from the command line as the type of the default; return it as it is if it does not fit.

    Text for a parameter that is text stays text whatever it contains, so a value never becomes code.
    """
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        value = type(default)(text) if isinstance(default, (int, float)) else ast.literal_eval(text)
    except NOT_LITERAL:
        return text
    return value if is_plain(value) else text


def convert(value, default):
    """Bring a value, text or from YAML, to the type of the default; return it as it is if it does not fit."""
    if isinstance(value, str):
        value = read_literal(value, default)
    if isinstance(default, list) and type(value) is int:
        return [value]  # one seed is a list of one
    if isinstance(default, float) and type(value) is int and abs(value) < 2**53:
        return float(value)
    return value


def read_yaml(text, source):
    """The parameters in some YAML, as papermill reads it; `CallError`, naming the source, if it has none."""
    try:
        values = yaml.load(text, NoDatesSafeLoader) or {}
    except (*NOT_LITERAL, yaml.YAMLError) as error:
        raise CallError(f"{source} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise CallError(f"{source} must hold names of parameters, each with its value")
    return values


def notebook_values(path, given):
    """Convert the given values, name by name; `CallError` that lists what exists if anything does not fit.

    Names that a notebook of the project takes from config/ are looked up there.
    """
    defaults = {name: p["default"] for name, p in notebook_parameters(path).items()}
    values = {}
    mistakes = []
    for name, value in given.items():
        if name not in defaults:
            mistakes.append(f"unknown parameter {name!r}")
            continue
        kind = type(defaults[name])
        values[name] = convert(value, defaults[name])
        if type(values[name]) is not kind or not is_plain(values[name]):
            mistakes.append(f"parameter {name!r} must be {kind.__name__}, got {values[name]!r}")
    if mistakes:
        valid = ", ".join(f"{name} ({type(value).__name__})" for name, value in defaults.items())
        raise CallError(f"{'; '.join(mistakes)}. Valid: {valid}")
    check_names(path, defaults | values)
    return values


def without_times(notebook):
    """Take out of an executed notebook what differs between two executions with the same results.

    papermill and the kernel add times, durations, process numbers and a random cell id. The notebook is
    changed in place and returned.
    """
    given = notebook.metadata.get("papermill", {}).get("parameters", {})
    notebook.metadata["papermill"] = {"parameters": given}
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.id = "given-parameters"
        if cell.cell_type == "code":
            cell.outputs = whole_streams(cell.outputs)
    return notebook


def whole_streams(outputs):
    """Join the pieces of printed text, which are cut by the clock; drop progress bars and process numbers."""
    outputs = join_streams(outputs)
    for output in outputs:
        if output.output_type == "stream":
            text = re.sub(r"\r[^\r\n]*", "", output.text)
            output.text = re.sub(r"ipykernel_\d+", "ipykernel", text)
    return join_streams([output for output in outputs if output.get("text", "?").strip()])


def join_streams(outputs):
    """Give each run of neighbouring pieces of printed text to its first piece, and drop the others."""
    joined = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def check_output(output):
    """`CallError` if the executed notebook cannot be written where it should go."""
    if Path(output).is_dir() or str(output).endswith(os.sep):
        raise CallError(f"cannot write to {output}: it is a folder")
    folder = Path(output).absolute().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0" * 4096)
    except OSError as error:
        raise CallError(f"cannot write to {folder}: {error.strerror or error}") from None


def literal_path(path):
    """A path for papermill, which takes braces in it for places to fill in."""
    return str(path).replace("{", "{{").replace("}", "}}")


def execute(notebook, running, values, log):
    """Let papermill write the executed notebook to `running`; its errors pass through."""
    logging.getLogger("papermill").setLevel(logging.ERROR)  # it takes some parameters for unknown
    streams = {"stdout_file": sys.stdout, "stderr_file": sys.stderr} if log else {}
    execute_notebook(
        literal_path(notebook),
        literal_path(running),
        values,
        kernel_name="python3",
        language="python",  # of a notebook that names none
        progress_bar=log,
        config=kernel_options(running.parent),
        **streams,
    )


def run_notebook(notebook, output, values, log=False, tell=True):
    """Execute a notebook in the current folder; `RuntimeError` that names the error if it fails.

    The executed copy appears under its name when it is whole. A notebook that fails is kept as
    `*.failed.ipynb`, with the error in it. `log` passes on what the notebook prints, and shows a bar; `tell`
    says at the end how long it took.
    """
    check_output(output)
    output = Path(output)
    started = time.time()
    partial = output.with_suffix(f".partial{os.getpid()}.ipynb")
    failed = output.with_suffix(".failed.ipynb")

    def keep(name):
        nbformat.write(without_times(nbformat.read(running, 4)), partial)
        os.replace(partial, name)

    with kernel_folder() as scratch:
        running = Path(scratch) / "notebook.ipynb"
        try:
            execute(notebook, running, values, log)
            keep(output)
        except PapermillExecutionError as error:
            keep(failed)
            raise RuntimeError(f"{notebook} failed: {error.ename}: {error.evalue} (see {failed})") from None
        except (OSError, RuntimeError) as error:  # a full disk; a kernel that died
            raise RuntimeError(f"{notebook} failed: {error}") from None
        finally:
            partial.unlink(missing_ok=True)
    failed.unlink(missing_ok=True)
    if tell:
        print(f"{output}: done in {time.time() - started:.0f} s", flush=True)
