"""The measurements for a GPU: every section runs at toy size without one, and nothing of that is written."""

import sys

from conftest import call

SCRIPT = (sys.executable, "-m", "wiseale_nb.bench_gpu")


def test_toy_runs_every_section_and_writes_nothing(tmp_path):
    done = call(*SCRIPT, "--tiny", "--out", tmp_path / "results", env={"CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0, done.stderr
    sections = [line.split(":")[0] for line in done.stderr.splitlines() if line.endswith("s ")]
    assert sections == ["peaks", "Eq. 21", "CelebA", "sine", "mnist"], done.stderr
    for words in (
        "kernels",
        "tiles against kernels",
        "images/s",
        "sine, aevb",
        "mnist, wiseale",
        "are not written",
    ):
        assert words in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_failing_section_leaves_the_others(tmp_path):
    done = call(*SCRIPT, "--tiny", env={"CUDA_VISIBLE_DEVICES": "", "WISEALE_DATA": str(tmp_path)})
    assert done.returncode == 1 and "DataError: cannot use" in done.stderr
    assert "sine, aevb" in done.stdout and "mnist, aevb" not in done.stdout


def test_without_cuda_it_says_what_it_needs():
    done = call(*SCRIPT, env={"CUDA_VISIBLE_DEVICES": ""})
    assert (
        done.returncode == 2
        and "needs a CUDA device; --tiny runs" in done.stderr
        and "Traceback" not in done.stderr
    )
    assert "--tiny" in call(*SCRIPT, "--help").stdout
