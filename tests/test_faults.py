"""Killed at random moments, training and the pipeline end with the same bits.

`make faults` kills often, `make test` a few times.
"""

import contextlib
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
from conftest import copy_project
from test_pipeline import MAKE, call, named, processes, small_profile

from wiseale_nb.core import digest, random_stream
from wiseale_nb.data import build, load
from wiseale_nb.loss import make_objective
from wiseale_nb.training import fit_stack

pytestmark = pytest.mark.nightly

EPOCHS = 6
CHILDREN = multiprocessing.get_context(
    "forkserver"
)  # each attempt is a process of its own that has torch loaded already
CHILDREN.set_forkserver_preload(["test_faults"])


def train(folder, result, disk=None):
    """Train two seeds on sine waves with checkpoints in `folder`; write a digest of it all to `result`."""
    torch.set_num_threads(1)
    if disk is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (disk, disk))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored if the tests run in the background
    models = [build("sine", generator=random_stream(seed, "init")) for seed in (0, 1)]
    xs = [load("sine", n=320, seed=seed).x for seed in (0, 1)]
    sizes = dict(
        epochs=EPOCHS,
        batch_size=64,
        learning_rate=1e-3,
        milestones=(3,),
        seeds=[0, 1],
        device="cpu",
        progress=False,
    )
    try:
        histories = fit_stack(
            models,
            make_objective("wiseale", likelihood="gaussian"),
            xs,
            [x[:64] for x in xs],
            **sizes,
            checkpoint=folder,
        )
    except OSError as error:
        result.with_suffix(".error").write_text(str(error))
        sys.exit(1)
    numbers = [torch.tensor(h.drop(columns=["split", "seconds"]).to_numpy(dtype=float)) for h in histories]
    result.write_text(digest([t for model in models for t in model.state_dict().values()] + numbers))


def attempt(folder, result, kill=None, with_signal=signal.SIGKILL, disk=None):
    """One process, killed so many seconds after the checkpoint of an epoch; returns its exit code."""
    child = CHILDREN.Process(target=train, args=(folder, result, disk))
    child.start()
    if kill:
        deadline = time.monotonic() + 120
        while (
            not list(folder.glob(f"epoch{kill[0]:06d}-*.safetensors"))
            and child.is_alive()
            and time.monotonic() < deadline
        ):
            time.sleep(0.002)
        child.join(kill[1])
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, with_signal)
    child.join(300)
    assert child.exitcode is not None, "the process did not end"
    return child.exitcode


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Digest of a run that nobody disturbed, and the seconds that an epoch of it took."""
    result = tmp_path_factory.mktemp("whole") / "result"
    assert attempt(result.parent / "run", result) == 0
    first, last = (
        path.stat().st_mtime for path in sorted((result.parent / "run").glob("epoch*.safetensors"))
    )
    return result.read_text(), last - first


def test_killed_training_ends_with_the_same_bits(uninterrupted, tmp_path, kills):
    """Two kills in each run, in random epochs; the kernel sends SIGKILL too when memory runs out."""
    (whole, seconds), chance, done, landed, run = uninterrupted, random.Random(0), 0, 0, 0
    while done < kills:
        folder, result = tmp_path / f"run{run}", tmp_path / f"run{run}.txt"
        for epoch in sorted(chance.sample(range(1, EPOCHS), min(2, kills - done))):
            how = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
            landed += attempt(folder, result, (epoch, chance.uniform(0, seconds)), how) != 0
            done += 1
        assert list(folder.glob("epoch*.safetensors")), "nothing to continue from"
        if not result.exists():
            assert attempt(folder, result) == 0
        assert result.read_text() == whole, f"run {run} of seed 0 ended with other bits"
        run += 1
    assert landed > kills // 2, "too many kills came too late to test anything"


def test_full_disk_stops_with_the_file_named_and_training_goes_on_later(uninterrupted, tmp_path):
    """Checkpoints that do not fit; later they do."""
    folder, result = tmp_path / "run", tmp_path / "result"
    assert attempt(folder, result, disk=100_000) == 1
    error = result.with_suffix(".error").read_text()
    assert f"cannot write {folder}/epoch000001-" in error and "File too large" in error
    assert list(folder.iterdir()) == [] and not result.exists()
    assert attempt(folder, result, kill=(3, 0)) != 0
    assert attempt(folder, result, disk=100_000) == 1
    assert attempt(folder, result) == 0 and result.read_text() == uninterrupted[0]


def pipeline_killed(project, who, after):
    """`make figures`, one of its processes killed after some seconds; its exit code once all have ended."""
    make = subprocess.Popen(
        [*MAKE, "figures"],
        cwd=project,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(after)
    found = processes(psutil.Process(make.pid)) if make.poll() is None else []
    for victim in filter(None, [named(found, who)]):
        victim.kill()
    code = make.wait(timeout=300)
    _, alive = psutil.wait_procs(found, timeout=10)
    assert alive == [], f"after {who} was killed, {alive} went on"
    return code


def test_killed_pipeline_ends_with_the_same_bytes(tmp_path, kills):
    """Killed while it starts, trains, measures or draws, it ends with the bytes of an undisturbed run."""
    if kills < 10:
        pytest.skip("make faults does this; tests/test_pipeline.py kills the pipeline five times")
    project, chance = copy_project(tmp_path / "project"), random.Random(0)
    (project / "config/mini.yaml").write_text(small_profile())
    files = lambda: {
        p.relative_to(project): p.read_bytes()
        for p in project.rglob("*")  # noqa: E731
        if {"runs", "mini"} <= set(p.parts) and (p.suffix == ".safetensors" or p.parent.name == "data")
    }
    start = time.monotonic()
    assert call(*MAKE, "figures", cwd=project).returncode == 0
    seconds, whole = time.monotonic() - start, files()
    assert len(whole) >= 15  # weights of ten runs, data of three figures
    for round_ in range(2):
        shutil.rmtree(project / "runs/mini")
        codes = [
            pipeline_killed(
                project,
                chance.choice(["kernel_server", "wiseale-run", "wiseale-pipeline", "make"]),
                chance.uniform(1, seconds / 3),
            )
            for _ in range(kills // 4)
        ]
        assert any(codes), "no kill hit anything"
        assert call(*MAKE, "figures", cwd=project).returncode == 0
        assert files() == whole, f"round {round_} of seed 0 ended with other bytes"
