"""The pipeline on a cluster: what the profile for Slurm says, and jobs that a script here takes."""

import importlib.util
import signal
import subprocess
import sys
import time

import pytest
import yaml
from conftest import ROOT, environment

from wiseale_nb.config import load_config
from wiseale_tools.pipeline import main

pytestmark = pytest.mark.nightly

PROFILE = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
CAN_SUBMIT = importlib.util.find_spec("snakemake_executor_plugin_cluster_generic")
CAN_SLURM = importlib.util.find_spec("snakemake_executor_plugin_slurm")
SUBMIT = """#!/bin/sh
# What sbatch does: it takes a job and prints its number. The job goes on without it.
log=$(mktemp {folder}/job.XXXXXX)
echo "$@" >> {folder}/submitted
setsid sh -c 'sh "$1" > "$0.log" 2>&1; echo $? > "$0.rc"' "$log" "$1" > /dev/null 2>&1 &
echo "$log"
"""
STATUS = """#!/bin/sh
if [ ! -f "$1.rc" ]; then echo running; elif [ "$(cat "$1.rc")" = 0 ]; then echo success; else echo failed; fi
"""


def test_every_training_has_its_resources():
    rules = {f"train_{name}_{method}" for name, s in load_config("paper").items() for method in s["methods"]}
    assert PROFILE["set-resources"].keys() == rules
    on_gpu = {rule for rule, resources in PROFILE["set-resources"].items() if resources.get("gpu")}
    assert on_gpu == {rule for rule in rules if rule.startswith(("train_teapot", "train_celeba"))}


def test_no_profile_there(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(["figures", "smoke", "--cluster", "profiles/nowhere"]) == 1
    assert "profiles/nowhere is no profile of a cluster" in capsys.readouterr().err


@pytest.fixture
def cluster(tmp_path):
    """A profile of a cluster which is this machine."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    commands = {}
    for name, text in {"submit": SUBMIT, "status": STATUS}.items():
        (folder / name).write_text(text.replace("{folder}", str(folder)))
        (folder / name).chmod(0o755)
        commands[f"cluster-generic-{name}-cmd"] = str(folder / name)
    settings = {
        "executor": "cluster-generic",
        "jobs": 2,
        "latency-wait": 10,
        "seconds-between-status-checks": 1,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings | commands))
    return folder


def start(project, *words):
    """The pipeline in a copy of the project."""
    code = "import sys; from wiseale_tools.pipeline import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        cwd=project,
        env=environment(project),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def keep_two_methods(project):
    """Two trainings and the figure that is drawn from them: each job takes half a minute to start."""
    changes = {"figures.yaml": ("figure_5a", "methods"), "config/paper.yaml": ("sine", "methods")}
    for name, (first, second) in changes.items():
        content = yaml.safe_load((project / name).read_text())
        kept = content[first][second]
        few = [m for m in kept if m in ("aevb", "wiseale")]
        content[first][second] = {m: kept[m] for m in few} if isinstance(kept, dict) else few
        content = {"figure_5a": content["figure_5a"]} if name == "figures.yaml" else content
        (project / name).write_text(yaml.safe_dump(content))


@pytest.mark.skipif(not CAN_SUBMIT, reason="needs snakemake-executor-plugin-cluster-generic")
def test_jobs_go_to_the_cluster(project, cluster):
    """Killed in the middle, and called again when the cluster has ended what it had: no run is made twice."""
    keep_two_methods(project)
    words = "figures", "smoke", "--datasets", "sine", "--cluster", str(cluster)
    first = start(project, *words)
    while first.poll() is None and not list(project.glob("runs/smoke/sine/*/seed*/run.json")):
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    out, err = first.communicate()
    assert first.returncode == -signal.SIGKILL, out + err
    while len(list(cluster.glob("job.*.rc"))) < len((cluster / "submitted").read_text().splitlines()):
        time.sleep(0.2)
    made = {path: path.stat().st_mtime_ns for path in project.glob("runs/smoke/sine/*/seed*/run.json")}
    second = start(project, *words)
    out, err = second.communicate()
    assert second.returncode == 0, err
    assert all(path.stat().st_mtime_ns == at for path, at in made.items())
    assert list(project.glob("runs/**/figure_*.svg"))
    submitted = (cluster / "submitted").read_text().splitlines()
    assert any("figure_5a" in line for line in submitted)
    assert not any("fetch_" in line for line in submitted)


@pytest.mark.skipif(not CAN_SLURM, reason="needs snakemake-executor-plugin-slurm")
def test_slurm_would_take_the_jobs(project):
    words = ["-n", "--workflow-profile", "profiles/slurm", "--config", "profile=paper", "datasets=teapot"]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *words],
        cwd=project, env=environment(project), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "gpu=1" in done.stdout + done.stderr and "slurm_partition=gpu" in done.stdout + done.stderr
