"""The tools beside the library: running a notebook, locks, manifests, comparing what was drawn."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import asdict

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import BIN, ROOT, call

from wiseale_nb.config import load_config, load_sizes, resolve_settings
from wiseale_nb.core import ParameterError
from wiseale_nb.data import DATASETS
from wiseale_nb.runs import RUN_FILES, machine, run_folder, runs_folder, versions
from wiseale_tools import CallError
from wiseale_tools.manifest import checksum, folder_config, folder_entries, read_manifest, write_manifest
from wiseale_tools.notebook import convert, notebook_parameters, notebook_values, run_notebook
from wiseale_tools.pipeline import check_supplied
from wiseale_tools.process import exclusive_lock
from wiseale_tools.refresh import refresh_all
from wiseale_tools.compare import bits_depend_on, compare_metrics, judge_metrics, tidy_pair
from wiseale_tools.run import main
from wiseale_tools.verify import changed_files, redraw_figure, unlisted, verify_figure

PARAMETERS = "seed = 1  # random seed\nrate = 0.5  # learning rate\nname = 'a'  # a name"


def small_notebook(path, *, tags=("parameters",), source=PARAMETERS, body="print(seed * rate)"):
    """A notebook with three parameters and one line of work."""
    cells = [
        nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)}),
        nbformat.v4.new_code_cell(body),
    ]
    kernel = {"name": "python3", "display_name": "python3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


@pytest.fixture
def small(tmp_path):
    return small_notebook(tmp_path / "small.ipynb")


def test_parameters_are_listed_with_default_and_comment(small):
    assert notebook_parameters(small) == {
        "seed": {"default": 1, "help": "random seed"},
        "rate": {"default": 0.5, "help": "learning rate"},
        "name": {"default": "a", "help": "a name"},
    }


@pytest.mark.parametrize(
    "source, name, default, note",
    [
        ('msg = "a=b"', "msg", "a=b", ""),
        ("n = 2  # i.e. a = b/c", "n", 2, "i.e. a = b/c"),
        ('c = "#fff"  # x', "c", "#fff", "x"),
        ("n: int = 2  # how many", "n", 2, "how many"),
        ("n = None", "n", None, ""),
        ("step = -1e-3", "step", -1e-3, ""),
        ('sizes = {  # a table\n  "a": [1, 2],\n}  # of sizes', "sizes", {"a": [1, 2]}, "of sizes"),
        ('text = """two\nlines"""  # words', "text", "two\nlines", "words"),
        ("# a comment alone\n\nn = 1; m = 2", "n", 1, ""),
    ],
)
def test_parameters_cell_is_read_as_python_reads_it(tmp_path, source, name, default, note):
    found = notebook_parameters(small_notebook(tmp_path / "one.ipynb", source=source))
    assert found[name] == {"default": default, "help": note}


@pytest.mark.parametrize(
    "source, told",
    [
        ("n = 1 + x", "must hold plain literals"),
        ("n = open('MARKER', 'w')", "must hold plain literals"),
        ("import os", "must hold plain literals: line 1 assigns no value"),
        ("n = 1\nn, m = 1, 2", "must hold plain literals: line 2 assigns to something that is not a name"),
        ("n =", "must hold plain literals"),
        ("%matplotlib inline", "must hold plain literals"),
        ("n = 'a\0'", "must hold plain literals"),
        ("n = " + "[" * 5000, "must hold plain literals"),
    ],
)
def test_parameters_cell_of_anything_else_is_refused(tmp_path, source, told):
    with pytest.raises(CallError, match=told):
        notebook_parameters(small_notebook(tmp_path / "one.ipynb", source=source))


def test_what_has_no_parameters_cell_is_refused(tmp_path):
    untagged = small_notebook(tmp_path / "untagged.ipynb", tags=())
    with pytest.raises(CallError, match="has 0 cells tagged 'parameters', it needs exactly one"):
        notebook_parameters(untagged)
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder should go")
    with pytest.raises(CallError, match="is not a notebook"):
        notebook_parameters(blocked)
    for missing, told in [("none.ipynb", "No such file"), (".", "it is not a file")]:
        with pytest.raises(CallError, match=told):
            notebook_parameters(tmp_path / missing)


@pytest.mark.parametrize(
    "text, default, value",
    [
        ("3", 1, 3),
        ("1e-3", 0.5, 0.001),
        ("-1e-3", 0.5, -0.001),
        ("False", True, False),
        ("{'epochs': 3}", {}, {"epochs": 3}),
        ("'); import os #", "a", "'); import os #"),
        ("three", 1, "three"),
        ("[0, 1]", [0], [0, 1]),
        ("2", [0], [2]),
        *((text, {}, text) for text in ("{'a': b'x'}", "{'a': ('x',)}", "{('x',): 1}", "{'a': [{1: 'x'}]}")),
    ],
)
def test_text_becomes_the_type_of_the_default(text, default, value):
    found = convert(text, default)
    assert found == value and type(found) is type(value)


def test_values_are_of_the_types_of_the_defaults(small):
    assert notebook_values(small, {"seed": "7", "rate": "2"}) == {"seed": 7, "rate": 2.0}
    exist = r"unknown parameter 'sede'\. Valid: seed \(int\), rate \(float\), name \(str\)"
    with pytest.raises(CallError, match=exist):
        notebook_values(small, {"sede": "7"})
    with pytest.raises(CallError, match="parameter 'seed' must be int, got '7.5'"):
        notebook_values(small, {"seed": "7.5"})


def test_a_notebook_runs_and_one_that_fails_is_kept(small, tmp_path, capsys):
    run_notebook(small, tmp_path / "done.ipynb", {"seed": 4})
    assert "done.ipynb: done in" in capsys.readouterr().out
    assert nbformat.read(tmp_path / "done.ipynb", 4).cells[-1].outputs[0].text == "2.0\n"
    broken = small_notebook(tmp_path / "broken.ipynb", body="1 / 0")
    with pytest.raises(RuntimeError, match="ZeroDivisionError: division by zero"):
        run_notebook(broken, tmp_path / "out.ipynb", {})
    assert [path.name for path in tmp_path.glob("out*")] == ["out.failed.ipynb"]


def test_braces_in_paths_are_letters(tmp_path, capsys):
    folder = tmp_path / "{seed} {0} {"
    folder.mkdir()
    run_notebook(small_notebook(folder / "{x}.ipynb"), folder / "{y}.ipynb", {"seed": 4})
    assert sorted(path.name for path in folder.iterdir()) == ["{x}.ipynb", "{y}.ipynb"]


def test_a_folder_in_the_output_s_place_is_refused_before_running(tmp_path):
    broken = small_notebook(tmp_path / "broken.ipynb", body="1 / 0")
    with pytest.raises(CallError, match="it is a folder"):
        run_notebook(broken, tmp_path, {})


RESTLESS = """import time, warnings
from tqdm import tqdm
for i in tqdm(range(3)):
    print(seed + i, flush=True)
    time.sleep(0.3)
warnings.warn("look out")"""


def test_the_same_notebook_twice_is_the_same_file(tmp_path, capsys):
    """With a progress bar, a pause in what is printed, and a warning that names the process."""
    restless = small_notebook(tmp_path / "restless.ipynb", body=RESTLESS)
    for name in ("first", "second"):
        run_notebook(restless, tmp_path / f"{name}.ipynb", {"seed": 4})
    assert (tmp_path / "first.ipynb").read_text() == (tmp_path / "second.ipynb").read_text()
    printed, warned = nbformat.read(tmp_path / "first.ipynb", 4).cells[-1].outputs
    assert printed.text == "4\n5\n6\n" and "look out" in warned.text and "it/s" not in warned.text


def shell(*words):
    """Exit code and error text of the command line in a fresh process, which is how Snakemake calls it."""
    done = call("wiseale-run", *words)
    return done.returncode, done.stderr.strip()


def test_command_line(small, tmp_path):
    out = tmp_path / "x.ipynb"
    untagged = small_notebook(tmp_path / "untagged.ipynb", tags=())
    broken = small_notebook(tmp_path / "broken.ipynb", body="1 / 0")
    code, message = shell(small, out, "-p", "sede", "7")
    assert code == 2 and message.startswith("wiseale-run: unknown parameter 'sede'")
    assert shell(small, out, "-p", "rate", "fast")[0] == 2
    assert shell(untagged, out)[0] == 2
    code, message = shell(small, out, "-p", "rate")
    assert code == 2 and message.endswith("-p needs a name and a value")
    assert shell(broken, out, "--quiet")[0] == 1
    assert not out.exists()
    assert shell(small, out, "--quiet", "-p", "seed", "3")[0] == 0
    assert nbformat.read(out, 4).cells[-1].outputs[0].text == "1.5\n"


def test_values_that_look_like_options_and_papermill_s_long_name(small, tmp_path):
    out = tmp_path / "x.ipynb"
    assert shell("--quiet", small, out, "-p", "rate", "-1e-3", "--parameters", "seed", "3") == (0, "")
    assert nbformat.read(out, 4).cells[-1].outputs[0].text == "-0.003\n"
    assert shell("--quiet", "-p", "name", "--quiet", small, out)[0] == 0
    assert 'name = "--quiet"' in nbformat.read(out, 4).cells[1].source


def test_list_of_parameters(small, capsys):
    assert main([str(small), "--list"]) == 0
    listed = ["seed = 1  # random seed", "rate = 0.5  # learning rate", "name = 'a'  # a name"]
    assert capsys.readouterr().out.splitlines() == listed


def test_a_folder_is_locked_for_one_process(tmp_path):
    code = f"from wiseale_tools.process import exclusive_lock as lock\nwith lock({str(tmp_path)!r}): pass"
    with exclusive_lock(tmp_path):
        done = call(sys.executable, "-c", code)
        assert done.returncode == 1 and f"already running in {tmp_path}, as process " in done.stderr
        assert "; this call changed nothing" in done.stderr
        with pytest.raises(CallError, match="this call changed nothing"):
            exclusive_lock(tmp_path).__enter__()
    with exclusive_lock(tmp_path):
        pass  # free again
    assert call(sys.executable, "-c", code).returncode == 0


def test_a_runner_ends_with_its_parent(tmp_path):
    """The shell that started it is killed while the notebook sleeps."""
    sleepy = small_notebook(tmp_path / "sleepy.ipynb", body="import time\nopen('up', 'w')\ntime.sleep(60)")
    command = f'"{BIN}/wiseale-run" --quiet --parent $$ "{sleepy}" out.ipynb & echo $!; wait'
    parent = subprocess.Popen(["bash", "-c", command], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    runner = int(parent.stdout.readline())
    deadline = time.time() + 60
    while not (tmp_path / "up").exists() and time.time() < deadline:
        time.sleep(0.1)
    parent.kill()
    parent.wait()
    deadline = time.time() + 20
    while is_running(runner) and time.time() < deadline:
        time.sleep(0.1)
    assert (tmp_path / "up").exists() and not is_running(runner)


def is_running(process):
    """Whether a process is there and is no zombie."""
    status = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True).stdout
    return bool(status.strip()) and "Z" not in status


def test_key_decides_whether_data_are_computed(tmp_path):
    """Computed at first, then drawn from, until the key is another or the call says otherwise."""
    source = "redraw = True  # draw from the data"
    notebook = small_notebook(tmp_path / "figure.ipynb", source=source, body="print(redraw)")
    out = tmp_path / "out.ipynb"
    for words, drawn in [("a", True), ("a", True), ("b", False), ("b", True)]:
        first = words == "a" and not out.exists()
        assert shell("--quiet", notebook, out, "--key", words) == (0, "")
        printed = nbformat.read(out, 4).cells[-1].outputs[0].text
        assert printed == f"{drawn and not first}\n" and (tmp_path / "out.key").read_text() == words
    assert shell("--quiet", notebook, out, "--key", "b", "-p", "redraw", "false") == (0, "")
    assert nbformat.read(out, 4).cells[-1].outputs[0].text == "False\n"
    broken = small_notebook(tmp_path / "figure.ipynb", source=source, body="1 / 0")
    assert shell("--quiet", broken, out, "--key", "c")[0] == 1 and not (tmp_path / "out.key").exists()


def test_what_users_bring_is_checked_before_the_work(tmp_path, monkeypatch):
    """CelebA, and a data set that does not say how many samples it has without being read."""
    monkeypatch.setenv("WISEALE_DATA", str(tmp_path))
    wanted = {"n_train": 3, "n_test": 2}
    with pytest.raises(CallError, match="CelebA cannot be .* run `python data_scripts/celeba.py SOURCE`"):
        check_supplied({"celeba": wanted})
    (tmp_path / "celeba").mkdir()
    np.save(tmp_path / "celeba/images.npy", np.zeros((6, 3, 64, 64), np.uint8))
    np.save(tmp_path / "celeba/partition.npy", np.uint8([0, 0, 0, 1, 2, 3]))
    with pytest.raises(CallError, match="celeba has 1 test samples and the profile asks for 2"):
        check_supplied({"celeba": wanted})
    check_supplied({"celeba": wanted | {"n_test": 1}, "teapot": wanted})  # the pipeline renders teapots
    monkeypatch.setattr(type(DATASETS["teapot"]), "user_supplied", True)
    with pytest.raises(CallError, match="Teapot cannot be fetched for you"):
        check_supplied({"celeba": wanted | {"n_test": 1}, "teapot": wanted})
    (tmp_path / "teapot").mkdir()
    np.save(tmp_path / "teapot/images.npy", np.zeros((22, 3, 64, 64), np.uint8))
    np.save(tmp_path / "teapot/factors.npy", np.zeros((22, 5), np.float32))
    with pytest.raises(CallError, match="teapot has 1 test samples"):
        check_supplied({"teapot": wanted})
    check_supplied({"teapot": wanted | {"n_test": 1}})


def tiny_run(folder, seed, mse):
    """A run folder with one metric and no network."""
    info = {
        "settings": asdict(resolve_settings("tiny", "sine", "aevb", seed)),
        "machine": machine("cpu"),
        "versions": versions(),
        "commit": None,
        "code": "0",
        "data": "0",
        "trained_with": [0, 1],
        "wall_seconds": 1.0,
    }
    folder.mkdir(parents=True)
    for name in RUN_FILES:
        (folder / name).write_text("epoch,split\n1,train\n")
    row = {"metric": "mse", "value": mse, "standard_error": 0.1, "unit": "1", "n": 9}
    (folder / "metrics.json").write_text(json.dumps([row]))
    sums = {"files": {name: checksum(folder / name) for name in RUN_FILES[1:]}}
    (folder / "run.json").write_text(json.dumps(info | sums))


@pytest.fixture
def tiny_project(tmp_path, monkeypatch):
    """A project in a scratch folder, with two runs that were not trained and pictures that were not drawn."""
    for name in ("settings.ini", "figures.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "config", tmp_path / "config")
    sine = load_config("smoke")["sine"]
    tiny = sine | {"methods": {"aevb": sine["methods"]["aevb"]}}
    (tmp_path / "config/tiny.yaml").write_text(yaml.safe_dump({"sine": tiny}))
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        tiny_run(run_folder(runs_folder(tmp_path, "tiny"), "sine", "aevb", seed), seed, mse=0.5 + seed / 10)
    for entry in folder_entries("tiny"):
        for name in entry.pictures:
            (tmp_path / "figures/tiny/data").mkdir(parents=True, exist_ok=True)
            (tmp_path / "figures/tiny" / name).write_text(name)
    return tmp_path


def test_manifest_of_a_profile(tiny_project):
    folder = tiny_project / "figures/tiny"
    manifest = json.loads(write_manifest("tiny", tiny_project).read_text())
    assert manifest == read_manifest(folder)
    lines = (folder / "data/metrics.csv").read_text().splitlines()
    assert lines[0] == "dataset,method,seed,metric,value,standard_error,unit,n"
    assert lines[1:] == [f"sine,aevb,{seed},mse,{0.5 + seed / 10},0.1,1,9" for seed in (0, 1)]
    pictures = [f"{name}.{form}" for name in manifest["figures"] for form in ("pdf", "png", "svg")]
    assert sorted(manifest["files"]) == sorted(["data/metrics.csv", *pictures])
    assert all(manifest["files"][file] == checksum(folder / file) for file in manifest["files"])
    assert manifest["runs"]["sine/aevb/seed1"]["trained_with"] == [0, 1]
    assert "settings" not in manifest["runs"]["sine/aevb/seed1"]
    assert manifest["config"]["sine"]["methods"] == {"aevb": {"method": "aevb"}}
    figure = manifest["figures"]["figure_5a"]
    assert figure["notebook"] == "nbs/25_figure_5.ipynb" and figure["data"] == ["data/figure_5a.csv"]
    assert figure["runs"] == ["sine/aevb/seed0", "sine/aevb/seed1"]  # the profile has no other method


def test_manifest_of_studies_has_their_sizes():
    config = folder_config("studies", folder_entries("studies"))
    assert config["how_wrong"] == load_sizes("how_wrong", "quick")
    assert config["beta_vae_paper"] == load_sizes("beta_vae", "paper") != config["beta_vae"]


def test_manifest_of_unfinished_runs_or_pictures_is_refused(tiny_project):
    folder = tiny_project / "figures/tiny"
    write_manifest("tiny", tiny_project)
    (folder / "figure_6.pdf").unlink()  # as in a clone: its checksum is kept, because the rest is as it was
    before = read_manifest(folder)
    write_manifest("tiny", tiny_project)
    assert read_manifest(folder) == before and "figure_6.pdf" in before["files"]
    (folder / "figure_6.svg").write_text("another")
    with pytest.raises(CallError, match="lacks figure_6.pdf; `make redraw` draws what is committed"):
        write_manifest("tiny", tiny_project)
    (runs_folder(tiny_project, "tiny") / "sine/aevb/seed0/run.json").unlink()
    with pytest.raises(ParameterError, match=r"is not a finished run: run\.json missing"):
        write_manifest("tiny", tiny_project)
    with pytest.raises(ParameterError, match=r"MANIFEST\.json"):
        read_manifest(tiny_project / "figures/none")


def test_verify_sees_a_wrong_digit_and_an_unlisted_file():
    """Figure 2 is the quickest to draw."""
    manifest = read_manifest(ROOT / "figures/analytic")
    assert verify_figure("figure_2", manifest, ROOT) == []
    manifest["files"]["figure_2.svg"] = "0" * 64
    wrong = ["figure_2.svg is not in the manifest's state", "figure_2.svg is drawn with other bytes"]
    assert verify_figure("figure_2", manifest, ROOT) == wrong
    del manifest["files"]["figure_2.svg"]
    assert unlisted(manifest, ROOT) == ["analytic/figure_2.svg  is not listed in the manifest"]


def test_verify_sees_tables_that_no_picture_is_drawn_from():
    manifest = read_manifest(ROOT / "figures/studies")
    assert verify_figure("sensitivity", manifest, ROOT) == []
    manifest["files"]["data/sensitivity_flips.csv"] = "0" * 64
    wrong = ["data/sensitivity_flips.csv is not in the manifest's state"]
    assert verify_figure("sensitivity", manifest, ROOT) == wrong


def test_only_pdfs_may_be_missing(tmp_path):
    figure = {"files": ["a.pdf", "a.png", "a.svg"], "data": ["data/a.csv", "data/a.json"]}
    assert changed_files(figure, tmp_path, {}) == ["a.png", "a.svg", "data/a.csv", "data/a.json"]


def test_a_drawing_that_fails_leaves_the_committed_files(tmp_path, monkeypatch):
    """A figure is drawn aside and copied once it is whole."""

    def half(job):
        (job.out / "figure_2.png").write_bytes(b"half a picture")
        raise ZeroDivisionError

    folder, figure = tmp_path / "analytic", read_manifest(ROOT / "figures/analytic")["figures"]["figure_2"]
    folder.mkdir()
    (folder / "figure_2.png").write_bytes(b"whole")
    monkeypatch.setattr("wiseale_tools.verify.draw_figure", half)
    with pytest.raises(ZeroDivisionError):
        redraw_figure(figure, folder)
    assert (folder / "figure_2.png").read_bytes() == b"whole"


def metrics(values):
    """A table of one metric: method, seed and value of each run."""
    rows = [("sine", method, seed, "mse", value) for method, seed, value in values]
    return pd.DataFrame(rows, columns=["dataset", "method", "seed", "metric", "value"])


def test_metrics_are_compared_within_the_spread_of_the_seeds():
    """The seeds of `aevb` are 0.3 apart and those of `wiseale` 0.1: a mean may move by 0.3, a seed by 0.6."""
    committed = metrics([("aevb", 0, 1.0), ("aevb", 1, 1.3), ("wiseale", 0, 0.5), ("wiseale", 1, 0.6)])
    near = committed.assign(value=committed.value + [0, 0, -0.58, 0])
    far = committed.assign(value=committed.value + [0, 0, 0.62, 0])
    one_seed = committed[::2]
    assert compare_metrics(committed, near)["same"].tolist() == [True, True]
    aevb, wiseale = compare_metrics(committed, far).to_dict("records")
    assert aevb["same"] and not wiseale["same"] and wiseale["method"] == "wiseale"
    assert wiseale["difference"] == pytest.approx(0.31) and wiseale["tolerance"] == pytest.approx(0.3)
    assert compare_metrics(one_seed, one_seed)["same"].tolist() == [None, None]
    with pytest.raises(CallError, match="of other runs"):
        compare_metrics(committed, one_seed)


@pytest.mark.parametrize("outside, off, same", [(1, 0.2, True), (2, 0.2, False), (1, 0.31, False)])
def test_metrics_agree_if_one_in_twenty_is_outside_and_none_far(outside, off, same):
    """Twenty metrics with a spread of 0.1: some move by twice that, or by three times."""
    table = pd.concat(
        metrics([("aevb", 0, 1.0), ("aevb", 1, 1.1)]).assign(metric=f"metric {k:02}") for k in range(20)
    )
    moved = table.assign(
        value=table.value + off * table.metric.isin([f"metric {k:02}" for k in range(outside)])
    )
    judged = judge_metrics(compare_metrics(table, moved))
    assert judged.same is same and f"{20 - outside} of 20 metrics are" in judged.text
    assert "farthest out: sine metric 00 of aevb" in judged.text and len(judged.details) == outside


def test_one_seed_is_not_called_agreement():
    judged = judge_metrics(compare_metrics(*2 * [metrics([("aevb", 0, 1.0)])]))
    assert judged.same is None and "no metric has two seeds" in judged.text


def test_tables_of_studies_are_compared_setting_by_setting():
    """A number that both tables share belongs to the setting, others are metrics; new rows are left out."""
    rows = [("mnist", 16, 0, 1.0), ("mnist", 16, 1, 1.2), ("mnist", 64, 0, 3.0), ("mnist", 64, 1, 3.1)]
    old = pd.DataFrame(rows, columns=["dataset", "M", "seed", "nll"])
    new = old.assign(nll=old.nll + [0, 0, 0.5, 0.5])
    table = compare_metrics(*tidy_pair("study", old, new))
    assert table["method"].tolist() == ["mnist 16", "mnist 64"] and table["same"].tolist() == [True, False]
    assert len(compare_metrics(*tidy_pair("study", old, pd.concat([new, new[:1].assign(seed=2)])))) == 2


def test_bits_depend_on_the_seeds_that_trained_together_only_on_a_gpu():
    run = {"machine": machine("cpu"), "versions": versions(), "trained_with": [0, 1]}
    assert bits_depend_on(run) == bits_depend_on(run | {"trained_with": [0]})
    gpu = run | {"machine": run["machine"] | {"device": "cuda:0", "gpu": "H100"}}
    assert bits_depend_on(gpu) != bits_depend_on(gpu | {"trained_with": [0]})
    assert bits_depend_on(gpu) != bits_depend_on(run)


SHOWN = """import base64
from IPython.display import display
class Table:
    def _repr_html_(self): return "<b>1</b>"
    def _repr_png_(self): return base64.b64decode("aGVsbG8=")
    def __repr__(self): return "1"
display(Table())
print(2)"""


def documentation_notebook(folder, name, *bodies):
    """A notebook in nbs/ whose cells all have an old output."""
    cells = [nbformat.v4.new_code_cell(body) for body in bodies]
    for cell in cells:
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="old\n")]
    (folder / "nbs").mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "nbs" / name)
    return folder / "nbs" / name


@pytest.fixture
def documented(tmp_path, monkeypatch):
    """A project of three notebooks: one that runs, one that fails, one that lacks a package."""
    shutil.copy(ROOT / "settings.ini", tmp_path)
    monkeypatch.chdir(tmp_path)
    documentation_notebook(tmp_path, "01_runs.ipynb", SHOWN, "#| eval: false\n1 / 0", "x = 1")
    documentation_notebook(tmp_path, "02_fails.ipynb", "1 / 0")
    documentation_notebook(tmp_path, "03_lacks.ipynb", "from not_there.part import it")
    return tmp_path


def test_notebooks_are_executed_in_place_for_text_and_pictures(documented, capsys):
    before = {path.name: path.read_bytes() for path in (documented / "nbs").iterdir()}
    assert not refresh_all(documented)
    runs, fails, lacks = capsys.readouterr().out.splitlines()
    assert runs.startswith("nbs/01_runs.ipynb: changed (")
    assert fails.startswith("nbs/02_fails.ipynb: failed: ZeroDivisionError: division by zero (")
    assert lacks.startswith("nbs/03_lacks.ipynb: skipped, not_there is not installed (")
    after = {path.name: path.read_bytes() for path in (documented / "nbs").iterdir()}
    assert [name for name in after if after[name] != before[name]] == ["01_runs.ipynb"]
    shown, kept, nothing = nbformat.read(documented / "nbs/01_runs.ipynb", 4).cells
    table, printed = shown.outputs
    assert {kind: text.strip() for kind, text in table.data.items()} == {
        "text/plain": "1",
        "image/png": "aGVsbG8=",
    }
    assert printed.text == "2\n"
    assert kept.outputs[0].text == "old\n" and nothing.outputs == []
    assert all(cell.execution_count is None and not cell.metadata for cell in (shown, kept, nothing))


def test_a_refreshed_notebook_stays_as_it_is(documented, capsys):
    assert refresh_all(documented, ["01"]) and refresh_all(documented, ["nbs/01_runs.ipynb"])
    first, second = capsys.readouterr().out.splitlines()
    assert ": changed (" in first and ": as before (" in second
    with pytest.raises(CallError, match="no notebook nbs/04.ipynb"):
        refresh_all(documented, ["04"])
