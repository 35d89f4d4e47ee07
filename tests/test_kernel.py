"""What surrounds a notebook: nothing in the user's environment may change what it runs, shows or draws."""

import json
import multiprocessing
import shutil
import sys
import tempfile
from multiprocessing.connection import arbitrary_address
from pathlib import Path

import matplotlib
import nbformat
import pytest
import yaml
from conftest import BIN, ROOT, call

from wiseale_nb.config import load_config
from wiseale_tools import CallError, notebook, process
from wiseale_tools.names import check_names, profile_methods
from wiseale_tools.pipeline import run_snakemake
from wiseale_tools.run import main
from wiseale_tools.verify import worker_pool

LONG = f"{'x' * 70}/with spaces"  # below a test's folder, whose path is long enough by itself

PROFILES = sorted(path.stem for path in (ROOT / "config").glob("*.yaml") if path.stem != "studies")
FACTS = """import json, sys
import matplotlib
facts = {"python": sys.executable, "backend": matplotlib.get_backend(), "asserts": __debug__, "seed": seed,
         "settings": matplotlib.matplotlib_fname(), "dpi": matplotlib.rcParams["figure.dpi"],
         "startup": [name for name in ("from_ipython", "from_python", "from_home") if name in globals()]}
print(json.dumps(facts))"""


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def small_notebook(path, body="print(seed)", source="seed = 1  # random seed"):
    """A notebook with a parameters cell and one line of work; returns the path."""
    cells = [
        nbformat.v4.new_code_cell(source, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(body),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def hostile_environment(home):
    """Variables, and a home folder, that make Jupyter, IPython, Matplotlib and Python do something else."""
    foreign = json.dumps({"argv": ["false"], "display_name": "R", "language": "python"})
    write(home / ".local/share/jupyter/kernels/python3/kernel.json", foreign)
    write(home / "jupyter/kernels/python3/kernel.json", foreign)
    write(home / ".ipython/profile_default/startup/00.py", "from_home = 1")
    write(home / "ipython/profile_default/startup/00.py", "from_ipython = 1")
    write(home / ".config/matplotlib/matplotlibrc", "figure.dpi: 33")
    return {
        "HOME": str(home),
        "XDG_CONFIG_HOME": "",
        "TMPDIR": str(home / LONG),
        "JUPYTER_PATH": str(home / "jupyter"),
        "JUPYTER_DEFAULT_PROVISIONER_NAME": "nowhere",
        "IPYTHONDIR": str(home / "ipython"),
        "PYTHONSTARTUP": write(home / "startup.py", "from_python = 1"),
        "PYTHONOPTIMIZE": "1",  # which drops assertions
        "MPLBACKEND": "TkAgg",
        "MATPLOTLIBRC": write(home / "matplotlibrc", "figure.dpi: 34"),
    }


def test_a_notebook_sees_nothing_of_the_user_s_settings(tmp_path):
    """In a folder and with a folder for temporary files that are too deep for sockets."""
    facts = small_notebook(tmp_path / LONG / "facts.ipynb", FACTS)
    (tmp_path / "home" / LONG).mkdir(parents=True)
    env = hostile_environment(tmp_path / "home")
    done = call("wiseale-run", "facts.ipynb", "out.ipynb", "-p", "seed", "7", cwd=facts.parent, env=env)
    assert done.returncode == 0 and "TCP" not in done.stderr, done.stderr
    (output,) = nbformat.read(facts.parent / "out.ipynb", 4).cells[-1].outputs
    assert json.loads(output.text) == {
        "python": sys.executable,
        "backend": "module://matplotlib_inline.backend_inline",
        "dpi": matplotlib.rcParamsDefault["figure.dpi"],
        "settings": str(Path(matplotlib.get_data_path(), "matplotlibrc")),
        "asserts": True,
        "seed": 7,
        "startup": [],
    }


@pytest.fixture
def temporary(monkeypatch):
    """Call it with a value for TMPDIR."""

    def use(folder):
        monkeypatch.setattr(tempfile, "tempdir", None)  # what was found for another TMPDIR
        monkeypatch.setenv("TMPDIR", str(folder))

    return use


def test_folder_for_sockets(tmp_path, temporary, monkeypatch):
    """A missing one, one that cannot be written, and one that is too deep give way to one of the system."""
    short = Path(tempfile.mkdtemp(prefix="a b ", dir="/tmp"))
    (tmp_path / LONG).mkdir(parents=True)
    for folder, used in [
        (short, {str(short)}),
        *((bad, {"/tmp"}) for bad in ("/none", "/proc", tmp_path / LONG)),
    ]:
        temporary(folder)
        assert process.short_temporary_folder() in used, folder
    short.rmdir()
    monkeypatch.setattr(process, "LONGEST", 3)
    with pytest.raises(CallError, match="too long for sockets; set TMPDIR to a folder with a shorter one"):
        process.short_temporary_folder()


def test_pictures_are_drawn_again_whatever_tmpdir_is(tmp_path, temporary, monkeypatch):
    """The server that forks the drawing processes has a socket too; 103 bytes are what macOS allows."""
    (tmp_path / LONG).mkdir(parents=True)
    temporary(tmp_path / LONG)
    monkeypatch.delitem(multiprocessing.current_process()._config, "tempdir", raising=False)
    worker_pool(1).shutdown()
    assert len(arbitrary_address("AF_UNIX")) <= 103
    monkeypatch.delitem(multiprocessing.current_process()._config, "tempdir")


def test_make_leaves_out_what_steers_python(tmp_path):
    """A folder with modules of the same names, above all."""
    shadow = Path(write(tmp_path / "shadow/colorsys.py", "raise SystemExit(3)")).parent
    rules = write(tmp_path / "show.mk", "show:\n\t@python -c 'import colorsys, wiseale_nb' && env\n")
    words = {"PYTHONPATH": str(shadow), "PYTHONOPTIMIZE": "2", "PYTHONHOME": "/none", "MPLBACKEND": "x"}
    done = call("make", "-f", "Makefile", "-f", rules, "show", env=words)
    assert done.returncode == 0, done.stderr
    steering = [line for line in done.stdout.splitlines() if line.startswith(("PYTHON", "MPLBACKEND"))]
    assert sorted(steering) == ["PYTHONHASHSEED=0", f"PYTHONPATH={ROOT}"]


def test_jobs_follow_no_profile_and_no_path_of_the_user(tmp_path, temporary, monkeypatch):
    """Snakemake's profile from a variable or from the home folder, and a shell that finds other commands."""
    for place in ("mine", ".config/snakemake/none"):
        write(tmp_path / place / "config.yaml", "dry-run: true\n")
    Path(write(tmp_path / "bin/wiseale-run", "#!/bin/sh\n")).chmod(0o755)
    (tmp_path / LONG).mkdir(parents=True)
    temporary(tmp_path / LONG)
    for name, value in {
        "HOME": tmp_path,
        "XDG_CONFIG_HOME": tmp_path / ".config",
        "SNAKEMAKE_PROFILE": tmp_path / "mine",
        "PATH": f"{tmp_path}/bin:/usr/bin:/bin",
        "BASH_ENV": write(tmp_path / "start.sh", f"PATH={tmp_path}/bin:$PATH"),
    }.items():
        monkeypatch.setenv(name, str(value))
    root = tmp_path / "a project"
    shutil.copytree(ROOT / "profiles", root / "profiles")
    write(
        root / "Snakefile", "rule all:\n    output: 'made'\n    shell: 'command -v wiseale-run > {output}'\n"
    )
    assert run_snakemake(["all"], 1, root) == 0
    assert (root / "made").read_text().strip() == str(BIN / "wiseale-run")
    assert list((tmp_path / LONG).iterdir()) == []  # what Snakemake's other scheduler leaves behind


@pytest.mark.parametrize("profile", PROFILES)
def test_names_of_a_profile_are_those_that_the_library_knows(profile):
    names = {dataset: list(block["methods"]) for dataset, block in load_config(profile).items()}
    assert profile_methods(ROOT / "config", profile) == names


@pytest.fixture
def no_kernel(monkeypatch):
    """The calls that would have started a kernel: notebook, output and values of each."""
    calls = []
    monkeypatch.setattr(notebook, "run_notebook", lambda *args, **options: calls.append(args))
    return calls


@pytest.mark.parametrize(
    "name, words, told",
    [
        ("10_train", "profile huge", f"unknown profile 'huge'; the profiles are {', '.join(PROFILES)}"),
        ("10_train", "profile ../settings", "unknown profile '../settings'"),
        ("10_train", "profile studies", "unknown profile 'studies'"),
        ("10_train", "dataset wave", "unknown data set 'wave'; profile 'quick' has sine, mnist"),
        ("10_train", "method vae", "unknown method 'vae' for sine; profile 'quick' has aevb"),
        ("10_train", "profile quick -p method wae_mmd", "unknown method 'wae_mmd' for sine"),
        ("21_figure_1", "profile huge", "unknown profile 'huge'"),
        ("27_figure_5b", "dataset wave", "unknown data set 'wave'"),
        ("31_minibatch_bias", "size huge", "unknown size 'huge'; the sizes are quick"),
    ],
)
def test_unknown_names_are_refused_before_a_kernel_starts(tmp_path, no_kernel, capsys, name, words, told):
    words = [str(ROOT / f"nbs/{name}.ipynb"), str(tmp_path / "out.ipynb"), "-p", *words.split()]
    assert main(words) == 2 and told in capsys.readouterr().err and no_kernel == []


def test_names_are_looked_up_for_notebooks_of_the_project_alone(tmp_path):
    """And a damaged file is left to the library, which says more."""
    check_names(small_notebook(tmp_path / "one.ipynb"), {"profile": "huge", "size": "huge"})
    own = small_notebook(tmp_path / "nbs/one.ipynb")
    check_names(own, {"profile": "huge"})
    for text in ("sine: {methods: [a]}", "sine: 3", "[", "base: none", "base: [a]", "base: odd"):
        write(tmp_path / "config/odd.yaml", text)
        if text != "base: odd":
            check_names(own, {"profile": "odd", "dataset": "sine", "method": "aevb"})
    with pytest.raises(CallError, match="unknown data set 'sine'"):  # based on itself, and on nothing else
        check_names(own, {"profile": "odd", "dataset": "sine"})


def test_list_names_every_profile(capsys):
    assert main([str(ROOT / "nbs/10_train.ipynb"), "--list"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("profile")]
    assert line.startswith("profile = 'quick'")  # as `make figures`
    profiles = [path.stem for path in (ROOT / "config").glob("*.yaml") if path.stem != "studies"]
    assert all(profile in line.split("#")[1] for profile in profiles)


SOURCE = (
    "seed = 1  # a\nrate = 0.5  # b\nname = 'a'  # c\nseeds = [0]  # d\nsizes = {}  # e\nready = True  # f"
)


def test_papermill_s_words_for_parameters(tmp_path, no_kernel):
    """-p wins over -y, which wins over -f; a value in YAML may be of its type, or text that reads as one."""
    small = small_notebook(tmp_path / "small.ipynb", source=SOURCE)
    file = write(tmp_path / "given.yaml", yaml.safe_dump({"seed": 2, "rate": 3, "sizes": {"a": [1, None]}}))
    words = ["-f", file, "-y", "{seed: 4, seeds: 5, rate: 1e-3}", f"--parameters_yaml={'ready: false'}"]
    words += ["-r", "name", "2001-01-01", "--parameters_raw", "seed", "-6", "-k", "python3"]
    assert main([str(small), str(tmp_path / "out.ipynb"), *words]) == 0
    ((_, _, values),) = no_kernel
    wanted = {"seed": -6, "rate": 0.001, "sizes": {"a": [1, None]}, "seeds": [5], "ready": False}
    assert values == wanted | {"name": "2001-01-01"} and type(values["ready"]) is bool
    assert main([str(small), "out.ipynb", "-y", "{name: 2001-01-01, rate: 3}"]) == 0
    assert no_kernel[-1][2] == {"name": "2001-01-01", "rate": 3.0} and type(no_kernel[-1][2]["rate"]) is float


@pytest.mark.parametrize(
    "words, told",
    [
        (("-y", "[1]"), "must hold names of parameters"),
        (("-y", "{"), "is not YAML"),
        (("-y", "seed: true"), "parameter 'seed' must be int, got True"),
        (("-y", "ready: 1"), "parameter 'ready' must be bool, got 1"),
        (("-y", "name: 3"), "parameter 'name' must be str, got 3"),
        (("-y", "sizes: {a: !!set {b}}"), "parameter 'sizes' must be dict"),
        (("-y", "sizes: {1: a}"), "parameter 'sizes' must be dict"),
        (("-y", f"rate: {'9' * 400}"), "parameter 'rate' must be float"),
        (("-y", f"seed: {'9' * 5000}"), "is not YAML"),
        (("-y", "!!python/object:os.system {}"), "is not YAML"),
        (("-f", "none.yaml"), "cannot read none.yaml"),
    ],
)
def test_what_yaml_gives_is_of_the_parameters_types(tmp_path, no_kernel, capsys, words, told):
    small = small_notebook(tmp_path / "small.ipynb", source=SOURCE)
    assert main([str(small), str(tmp_path / "out.ipynb"), *words]) == 2
    message = capsys.readouterr().err
    assert told in message and len(message.splitlines()) == 1 and no_kernel == []


def test_a_path_that_means_a_folder_is_refused_before_running(tmp_path):
    for output in (tmp_path, f"{tmp_path}/new/"):
        with pytest.raises(CallError, match="it is a folder"):
            notebook.run_notebook(small_notebook(tmp_path / "small.ipynb", "1 / 0"), output, {})
