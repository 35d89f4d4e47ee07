"""A parameter's value reaches the notebook as data: no text in it is ever run."""

import json

import nbformat
import pytest
import yaml
from conftest import ROOT, call

ATTACKS = {  # text -> would make the file MARKER if it were run, or pasted into a line of code
    "call": "__import__('os').system('touch MARKER')",
    "quote": "'; open('MARKER', 'w'); '",
    "double_quote": '"; open("MARKER", "w"); "',
    "triple": "'''\nopen('MARKER', 'w')\n'''",
    "triple_double": '"""\nopen("MARKER", "w")\n"""',
    "newline": "a\nopen('MARKER', 'w')\r\n# \u2028open('MARKER', 'w')",
    "backslash": "\\'; open('MARKER', 'w') #",
    "backslash_double": '\\"; open("MARKER", "w") #',
    "trailing": "a\\",
    "braces": "{__import__('os').system('touch MARKER')} {{0}} {text}",
    "percent": "%s %(text)s $(touch MARKER) `touch MARKER`",
    "magic": "!touch MARKER\n%%bash\ntouch MARKER",
    "unicode": "\\u0022; open('MARKER', 'w') \\N{BULLET} é 😀 \x7f\t",
}
HIDDEN = [  # dictionaries with entries that papermill would paste into the code as they are
    {"a": b"\" + str(open('MARKER', 'w')) + \""},
    {"a": ('" + str(open("MARKER", "w")) + "',)},
    {"a": [{'" + str(open("MARKER", "w")) + "'}]},
    {b"\" + str(open('MARKER', 'w')) + \"": 1},
    {('" + str(open("MARKER", "w")) + "',): 1},
    {"a": {("\" + str(open('MARKER', 'w')) + \"",): 1}},
]


@pytest.fixture
def small(tmp_path):
    """A notebook that writes what it was given to received.json."""
    values = (
        "\n".join(f"{name} = ''  # text" for name in ATTACKS)
        + "\nnumber = 1  # int\nchanges = {}  # dict\nwords = []  # list"
    )
    body = f"received = {{name: globals()[name] for name in {[*ATTACKS, 'number', 'changes', 'words']}}}"
    body += "\nimport json, pathlib\npathlib.Path('received.json').write_text(json.dumps(received))"
    cells = [
        nbformat.v4.new_code_cell(values, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(body),
    ]
    kernel = {"name": "python3", "display_name": "python3", "language": "python"}
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), tmp_path / "small.ipynb"
    )
    return tmp_path


def pairs(option, values):
    return [word for name, value in values.items() for word in (option, name, value)]


def test_text_arrives_as_it_was_given(small):
    nested = {
        "changes": {**ATTACKS, **{text: [text, {text: None}] for text in ATTACKS.values()}},
        "words": list(ATTACKS.values()),
    }
    given = pairs("-p", ATTACKS | {name: repr(value) for name, value in nested.items()})
    done = call("wiseale-run", "--quiet", "small.ipynb", "out.ipynb", *given, cwd=small)
    assert done.returncode == 0, done.stderr
    assert json.loads((small / "received.json").read_text()) == ATTACKS | nested | {"number": 1}
    assert not (small / "MARKER").exists()


def test_plain_papermill_hands_text_over_as_data(small):
    papermill = ("papermill", "-k", "python3", "--log-level", "ERROR", "--no-progress-bar")
    changes = {"changes": {text: [text] for text in ATTACKS.values()}}
    done = call(
        *papermill,
        "small.ipynb",
        "out.ipynb",
        *pairs("-r", ATTACKS),
        "-y",
        yaml.safe_dump(changes),
        cwd=small,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((small / "received.json").read_text()) == ATTACKS | changes | {"number": 1, "words": []}
    assert not (small / "MARKER").exists()


NOT_PLAIN = [
    *(("changes", repr(value)) for value in HIDDEN),
    *(("words", text) for text in ("('a',)", "b'a'", "[open('MARKER', 'w') for _ in 'a']", "[" * 50_000)),
    *(("changes", text) for text in ("{'a': open('MARKER', 'w')}", "{**open('MARKER', 'w')}", "dict(a=1)")),
    ("changes", "{'a': " + "-" * 50_000 + "1}"),
    ("changes", ATTACKS["call"]),
    ("number", ATTACKS["call"]),
    ("number", "9" * 5000),
    ("x = open('MARKER', 'w') #", "1"),
]


@pytest.mark.parametrize("name, value", NOT_PLAIN, ids=lambda text: text[:30])
def test_what_is_no_plain_literal_is_refused(small, name, value):
    """Before a kernel starts."""
    done = call("wiseale-run", "--quiet", "small.ipynb", "out.ipynb", "-p", name, value, cwd=small)
    assert (
        done.returncode == 2
        and done.stderr.startswith("wiseale-run: ")
        and repr(name) in done.stderr
        and "Traceback" not in done.stderr
    )
    assert sorted(path.name for path in small.iterdir()) == ["small.ipynb"]


def test_real_notebook_treats_text_as_data(tmp_path):
    """The text is an unknown data set, and 10_train trains into a folder with an awkward name."""
    train = ("wiseale-run", "--quiet", ROOT / "nbs/10_train.ipynb", tmp_path / "out.ipynb")
    train += ("-p", "progress", "false", "-p", "method", "aevb", "-p", "profile", "smoke")
    text = "".join(ATTACKS.values())
    done = call(*train, "-p", "dataset", text)
    assert done.returncode == 2 and f"unknown data set {text!r}" in done.stderr
    out = tmp_path / "it's a \"run\" {__import__('os')}\\"
    done = call(*train, "-p", "dataset", "sine", "-p", "changes", "{'epochs': 1}", "-p", "out", out)
    assert done.returncode == 0 and (out / "seed0/run.json").exists(), done.stderr
    assert not (ROOT / "MARKER").exists()
