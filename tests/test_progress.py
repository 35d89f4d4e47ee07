"""What the pipeline says while it works."""

import io
import logging

import pytest
from conftest import ROOT

from wiseale_nb.config import load_config
from wiseale_tools.progress import Progress, epochs_done, in_words, trainings


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def jobs(tmp_path):
    return {"train_mnist_aevb": ("mnist/aevb", tmp_path, 4, 90.0)}


def send(progress, event, level=logging.INFO, message="", **fields):
    record = logging.LogRecord("snakemake", level, "", 0, message, (), None)
    vars(record).update(fields, event=event)
    return progress.filter(record)


def begin(progress):
    send(progress, "run_info", stats={"all": 1, "train_mnist_aevb": 1, "figure_1": 1, "total": 3})
    send(progress, "job_info", jobid=2, rule_name="train_mnist_aevb")


def save(folder, epoch):
    (folder / "checkpoint/0a").mkdir(parents=True, exist_ok=True)
    (folder / f"checkpoint/0a/epoch{epoch:06d}-1f.safetensors").touch()


def test_elsewhere_one_line_for_each_job(jobs):
    out = io.StringIO()
    with Progress(jobs, out) as progress:
        begin(progress)
        send(progress, "job_finished", job_id=2)
        send(progress, "job_info", jobid=1, rule_name="figure_1")
        send(progress, "job_finished", job_id=1)
    first, second = out.getvalue().splitlines()
    assert first.startswith("mnist/aevb: done in 0 s (1 of 3, about ") and first.endswith(" left)")
    assert second == "figure_1: done in 0 s (2 of 3)"


def test_on_a_terminal_each_start_and_the_epochs(jobs, tmp_path):
    out = Terminal()
    progress = Progress(jobs, out)
    begin(progress)
    assert "mnist/aevb: started\n" in out.getvalue()
    progress.show()
    assert "[0 of 3] mnist/aevb epoch 0 of 4" in out.getvalue()
    save(tmp_path, 3)
    progress.show()
    assert "left] mnist/aevb epoch 3 of 4" in out.getvalue()


def test_epochs_do_not_go_back_when_the_run_is_measured(jobs, tmp_path):
    progress = Progress(jobs, Terminal())
    begin(progress)
    save(tmp_path, 2)
    save(tmp_path, 3)
    assert progress.part("train_mnist_aevb") == 0.75
    for file in tmp_path.glob("checkpoint/0a/*"):
        file.unlink()
    assert epochs_done(tmp_path) == 0 and progress.part("train_mnist_aevb") == 0.75


def test_the_estimate_is_in_proportion(jobs, monkeypatch):
    """90 of 100 expected seconds took 180: the other 10 take 20."""
    progress = Progress(jobs, io.StringIO())
    begin(progress)
    send(progress, "job_finished", job_id=2)
    monkeypatch.setattr("time.monotonic", lambda: progress.started + 180)
    assert progress.left() == ", about 20 s left"


def test_the_estimate_counts_epochs(jobs, tmp_path, monkeypatch):
    """45 of 100 expected seconds, half of what the run takes, took 180: the other 55 take 220."""
    progress = Progress(jobs, io.StringIO())
    begin(progress)
    save(tmp_path, 2)
    monkeypatch.setattr("time.monotonic", lambda: progress.started + 180)
    assert progress.left() == ", about 4 min left"


def test_data_and_targets(jobs):
    """A script's job has a name in words, and is not counted in the estimate; a target has no line."""
    progress = Progress(jobs, out := io.StringIO())
    send(progress, "run_info", stats={"fetch_mnist": 1, "all": 1, "figure_1": 1, "total": 3})
    for job, name in enumerate(("fetch_mnist", "all")):
        send(progress, "job_info", jobid=job, rule_name=name)
        send(progress, "job_finished", job_id=job)
    assert out.getvalue() == "data of mnist: done in 0 s (1 of 3)\n" and progress.spent == 0


def test_the_changing_line_fits_the_terminal_and_is_cleared(jobs, monkeypatch):
    """It is written again each second until the end, and nothing of it is left under a message."""
    monkeypatch.setenv("COLUMNS", "20")
    progress = Progress(jobs, out := Terminal())
    begin(progress)
    ticks = iter((False, False, True))
    monkeypatch.setattr(progress.ended, "wait", lambda seconds: next(ticks))
    start = len(out.getvalue())
    progress.watch()
    assert out.getvalue()[start:] == 2 * "\r\033[K[0 of 3] mnist/aevb\r"
    progress.say("done")
    assert out.getvalue().endswith("\r\r\033[Kdone\n")


def test_a_failed_job_is_no_longer_under_way(jobs):
    progress = Progress(jobs, io.StringIO())
    begin(progress)
    send(progress, "job_error", jobid=2)
    assert progress.running == {}


def test_snakemake_prints_warnings_and_errors_only(jobs):
    progress = Progress(jobs, io.StringIO())
    assert send(progress, None, logging.ERROR, "it failed")
    assert not send(progress, "progress", done=1, total=2)
    assert not send(progress, None, logging.WARNING, "Restored previous version of a file")


def test_the_manifest_says_how_long_training_took():
    jobs = trainings(load_config("quick"), "quick", ROOT)
    name, folder, epochs, before = jobs["train_mnist_wiseale"]
    assert name == "mnist/wiseale" and folder == ROOT / "runs/quick/mnist/wiseale"
    assert epochs == load_config("quick")["mnist"]["epochs"] and before not in (0, 60.0)


SECONDS = {3: "3 s", 89: "89 s", 91: "2 min", 240: "4 min", 5399: "90 min", 5400: "1.5 h", 7200: "2.0 h"}


@pytest.mark.parametrize("seconds, words", SECONDS.items())
def test_durations(seconds, words):
    assert in_words(seconds) == words
