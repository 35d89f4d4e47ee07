"""Bad input gets one clear message and a non-zero exit, and leaves nothing half-written under its name."""

import resource
import shutil

import pytest
from conftest import ROOT, call, data_folder

TRAIN = ("wiseale-run", "--quiet", ROOT / "nbs/10_train.ipynb")
SINE = ("-p", "dataset", "sine", "-p", "profile", "smoke", "-p", "progress", "false")


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def message(done):
    """The one line a failed call prints."""
    lines = [line for line in done.stderr.strip().splitlines() if line.startswith("wiseale-run: ")]
    assert len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
    return lines[0]


@pytest.mark.parametrize(
    "given, told",
    [
        (("-p", "sede", "1"), "unknown parameter 'sede'. Valid: dataset (str)"),
        (("-p", "seeds", "1.5"), "parameter 'seeds' must be list, got 1.5"),
        (("-p", "threads", "many"), "parameter 'threads' must be int, got 'many'"),
        (("-p", "progress", "perhaps"), "parameter 'progress' must be bool, got 'perhaps'"),
        (("-p", "changes", "epochs=3"), "parameter 'changes' must be dict, got 'epochs=3'"),
    ],
)
def test_parameters_are_refused_before_a_kernel_starts(tmp_path, given, told):
    done = call(*TRAIN, tmp_path / "out.ipynb", *given)
    assert done.returncode == 2 and told in message(done)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "given, told",
    [
        (("-p", "device", "abacus"), "unknown device 'abacus'"),
        (("-p", "seeds", "-1"), "seeds must be list of different integers >= 0 or integer >= 0, got [-1]"),
        (
            ("-p", "seeds", "[1, 1]"),
            "seeds must be list of different integers >= 0 or integer >= 0, got [1, 1]",
        ),
        (("-p", "changes", "{'batch_size': 1}"), "batch_size must be integer >= 2, got 1"),
        (("-p", "changes", "{'d_z': 0}"), "d_z must be integer >= 1, got 0"),
        (("-p", "changes", "{'learning_rate': '1e-3'}"), "learning_rate must be number > 0, got '1e-3'"),
        (("-p", "changes", "{'epoch': 3}"), "unknown option 'epoch'"),
        (("-p", "changes", "{'objective': {'beta': 2.0}}"), "beta"),
        (("-p", "changes", "{'data': {'noise': 1.0}}"), "noise"),
    ],
)
def test_values_are_refused_by_the_notebook(tmp_path, given, told):
    done = call(*TRAIN, tmp_path / "out.ipynb", *SINE, *given, "-p", "out", tmp_path / "run")
    assert done.returncode == 1 and told in message(done)
    assert files(tmp_path) == ["out.failed.ipynb"]


@pytest.mark.parametrize("out", ["file/run", "/proc/run"])
def test_unwritable_folder_is_found_before_training(tmp_path, out):
    (tmp_path / "file").write_text("a file where a folder should go")
    done = call(*TRAIN, tmp_path / "out.ipynb", *SINE, "-p", "out", out if out[0] == "/" else tmp_path / out)
    assert done.returncode == 1 and "cannot write to" in message(done)
    done = call(*TRAIN, tmp_path / "file" / "out.ipynb", *SINE)
    assert done.returncode == 2 and "cannot write to" in message(done)


def test_full_disk_leaves_no_half_of_a_run(tmp_path):
    """A limit on the size of files stands for a full disk: a checkpoint exceeds it, the notebook does not."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    done = call(*TRAIN, tmp_path / "out.ipynb", *SINE, "-p", "out", tmp_path / "run", preexec_fn=limit)
    assert done.returncode == 1 and "cannot write" in message(done) and ".safetensors" in message(done)
    assert not [name for name in files(tmp_path) if name.startswith("run/seed0/")]


def test_diverging_run_says_where(tmp_path):
    given = ("-p", "changes", "{'learning_rate': 1e8}", "-p", "out", tmp_path / "run")
    done = call(*TRAIN, tmp_path / "out.ipynb", *SINE, *given)
    assert done.returncode == 1 and "at epoch 1, step" in message(done)
    assert files(tmp_path) == ["out.failed.ipynb"]


def test_damaged_data_file_is_named(tmp_path):
    """What the reader says (tests/test_data_files.py) is what the user sees."""
    name = "t10k-labels-idx1-ubyte.gz"
    shutil.copytree(data_folder() / "mnist", tmp_path / "data" / "mnist", copy_function=shutil.copyfile)
    (tmp_path / "data" / "mnist" / name).write_bytes(b"<html>not found</html>")
    done = call(
        *TRAIN,
        tmp_path / "out.ipynb",
        "-p",
        "dataset",
        "mnist",
        "-p",
        "out",
        tmp_path / "run",
        env={"WISEALE_DATA": str(tmp_path / "data")},
    )
    assert done.returncode == 1 and f"{name}: it is damaged or no gzip file" in message(done)
    assert files(tmp_path / "run") == []


def test_plain_papermill_is_strict_too(tmp_path):
    """papermill only warns of an unknown parameter; the notebook itself refuses it."""
    given = ("-p", "sede", "1", "-p", "out", tmp_path / "run")
    papermill = ("papermill", "-k", "python3", "--log-level", "ERROR", "--no-progress-bar")
    done = call(*papermill, ROOT / "nbs/10_train.ipynb", tmp_path / "out.ipynb", *given)
    assert done.returncode != 0 and "unknown option 'sede'" in done.stderr
    assert files(tmp_path) == ["out.ipynb"]
