"""The pipeline end to end on a small profile: interrupted in every way, continued, and what it does again."""

import json
import os
import re
import shutil
import signal
import subprocess
import time

import psutil
import pytest
from conftest import BIN, ROOT, call, copy_project, environment

from wiseale_nb.config import load_studies
from wiseale_tools import compare, rules

# One worker runs them all, in this order: the project is drawn once.
pytestmark = [pytest.mark.xdist_group("pipeline"), pytest.mark.nightly]
METHODS = ["aevb", "beta_vae", "beta_vae_inverse_m", "wiseale", "wiseale_per_sample"]
WAYS = ["kernel_server", "wiseale-run", "wiseale-pipeline", "make", "Ctrl-C"]
MAKE = ("make", "-o", ".venv/ready", "PROFILE=mini", "JOBS=1")  # -o: the environment is there


def small_profile():
    """Sine waves only, two seeds, sizes of seconds."""
    import yaml

    paper = yaml.safe_load((ROOT / "config/paper.yaml").read_text())["sine"]
    paper["methods"] = {name: paper["methods"][name] for name in METHODS}
    sizes = {
        "n_train": 256,
        "n_test": 64,
        "epochs": 12,
        "n_importance": 4,
        "n_posteriors": 64,
        "compiled": False,
        "seeds": [0, 1],
    }
    return yaml.safe_dump({"sine": paper | sizes}, sort_keys=False)


def processes(top):
    """A process and all that it started."""
    try:
        return [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def named(found, word):
    """The last process whose command line has the word: a kernel has that of the server which forked it."""
    for process in reversed(found):
        try:
            if word in " ".join(process.cmdline()):
                return process
        except psutil.Error:
            pass  # it ended in between


def start(project):
    """`make figures` in a session of its own; returns when training has written a checkpoint since."""
    started = time.time()
    output = open(project / "output.txt", "w")  # noqa: SIM115  the process writes it

    def listening():  # what runs in the background may have inherited deaf ears
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    make = subprocess.Popen(
        [*MAKE, "figures"],
        cwd=project,
        env=environment(project),
        start_new_session=True,
        stdout=output,
        stderr=output,
        preexec_fn=listening,
    )
    while time.time() < started + 600:  # a busy machine may need minutes
        assert make.poll() is None, (project / "output.txt").read_text()
        if any(
            p.stat().st_mtime > started
            for p in project.glob("runs/mini/sine/*/checkpoint/*/epoch*.safetensors")
        ):
            return make
        time.sleep(0.02)
    make.kill()
    raise AssertionError("no checkpoint after ten minutes")


def interrupt(project, who):
    """Kill a process of a running pipeline, or press Ctrl-C.

    Returns what was started, what survived five seconds, and the epochs kept.
    """
    make = start(project)
    found = processes(psutil.Process(make.pid))
    if who == "Ctrl-C":
        os.killpg(make.pid, signal.SIGINT)
    else:
        named(found, who).kill()
    make.wait(timeout=120)
    _, alive = psutil.wait_procs(found, timeout=5)
    kept = [path.name[:11] for path in project.glob("runs/mini/sine/*/checkpoint/*/epoch*.safetensors")]
    return {
        "started": len(found),
        "survivors": alive,
        "kept": kept,
        "output": (project / "output.txt").read_text(),
    }


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A project whose figures were drawn although interrupted in every way; and what happened each time."""
    project = copy_project(tmp_path_factory.mktemp("pipeline") / "project")
    (project / "config/mini.yaml").write_text(small_profile())
    before = contents(project / "figures")
    seen = {who: interrupt(project, who) for who in WAYS}
    make = start(project)
    second = call(*MAKE, "figures", cwd=project)
    assert make.wait(timeout=1800) == 0, (project / "output.txt").read_text()
    seen |= {"second call": second, "output": (project / "output.txt").read_text()}
    seen["committed"] = before == contents(project / "figures")
    assert call(*MAKE, "publish", cwd=project).returncode == 0
    return project, seen


def contents(folder):
    """All files of a folder, with what they hold."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def reproduced(drawn):
    """The same project after `make reproduce`, and how that ended."""
    return drawn[0], call(*MAKE, "reproduce", cwd=drawn[0])


@pytest.mark.parametrize("how", WAYS)
def test_nothing_survives_and_epochs_are_kept(drawn, how):
    seen = drawn[1][how]
    assert seen["started"] >= 4 and seen["survivors"] == []
    assert seen["kept"], "no checkpoint was left"


def test_second_call_says_so_in_one_line(drawn):
    done = drawn[1]["second call"]
    lines = [line for line in done.stderr.splitlines() if not re.match(r"make(\[\d+\])?: ", line)]
    assert (
        done.returncode != 0
        and len(lines) == 1
        and "already running" in lines[0]
        and lines[0].split("process ")[1].split(";")[0].isdigit()
    )


def test_committed_figures_stay_and_are_compared_with(drawn):
    """What a run draws goes below runs/, whatever is committed, and the call ends with a comparison."""
    project, seen = drawn
    assert seen["committed"]
    assert (project / "runs/mini/figures/figure_6.png").is_file()
    told = seen["output"].splitlines()
    assert "runs/mini/figures/figure_6.{pdf,png,svg}" in told
    assert told[-2:] == [
        "there is no committed figures/mini to compare with",
        "the same bytes as in figures/analytic (14 files)",
    ]


def test_published_figures_are_those_that_were_drawn(drawn):
    """All their bytes, recorded in a manifest; but not if the settings have changed since."""
    project = drawn[0]
    made, committed = contents(project / "runs/mini/figures"), contents(project / "figures/mini")
    pictures = {name: content for name, content in made.items() if name.suffix not in (".ipynb", ".key")}
    own = {name: committed.pop(name) for name in set(committed) - set(pictures)}
    assert committed == pictures and {name.name for name in own} == {"MANIFEST.json", "metrics.csv"}
    undo = changed(project / "config/mini.yaml", "beta: 4.0", "beta: 5.0")
    done = call("wiseale-pipeline", "publish", "mini", cwd=project)
    undo()
    assert done.returncode == 1 and "figure_5a is not current; run `make figures`" in done.stderr
    assert contents(project / "figures/mini") == own | committed


def test_what_was_interrupted_is_whole_and_tidy(drawn):
    project = drawn[0]
    assert sorted(p.name for p in project.glob("runs/mini/sine/*/*")) == sorted(
        ["notebook.ipynb", "seed0", "seed1"] * len(METHODS)
    )
    runs = json.loads((project / "figures/mini/MANIFEST.json").read_text())["runs"]
    assert list(runs) == [f"sine/{m}/seed{k}" for m in METHODS for k in (0, 1)]
    assert all(run["trained_with"] == [0, 1] for run in runs.values())


def test_trained_again_without_interruption_all_bytes_are_the_same(reproduced):
    """Figure data, and all executed notebooks."""
    project, done = reproduced
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same bytes as in figures/mini" in done.stdout
    runs, again = project / "runs/mini", project / "runs/reproduce/mini/runs/mini"
    notebooks = [path.relative_to(runs) for path in runs.rglob("*.ipynb")]
    assert len(notebooks) == len(METHODS) + 3
    for name in [*notebooks, *(f"sine/{m}/seed{k}/model.safetensors" for m in METHODS for k in (0, 1))]:
        assert (runs / name).read_bytes() == (again / name).read_bytes(), name


def test_killed_in_the_middle_of_its_files(drawn):
    """A figure that was written while its notebook still ran is drawn again without being asked."""
    project = drawn[0]
    figure = project / "runs/analytic/figure_4.png"
    before = figure.read_bytes()
    figure.unlink()
    words = (BIN / "wiseale-pipeline", "figures", "mini")
    with subprocess.Popen(words, cwd=project, env=environment(project)) as running:
        while running.poll() is None and not figure.exists():
            time.sleep(0.005)
        running.kill()
    assert running.returncode == -signal.SIGKILL
    done = call("wiseale-pipeline", "figures", "mini", cwd=project)
    assert done.returncode == 0 and "figure_4: done" in done.stdout, done.stderr
    assert figure.read_bytes() == before


def edited(path, edit):
    """Change a JSON or text file in place."""
    text = path.read_text()
    path.write_text(json.dumps(edit(json.loads(text))) if path.suffix == ".json" else edit(text))


def other_machine(manifest):
    for run in manifest["runs"].values():
        run["machine"]["instruction_set"] = "abacus"
    return manifest


def other_settings(manifest):
    manifest["config"]["sine"]["epochs"] += 1
    return manifest


def better(metrics):
    """The table with a far smaller error for both seeds of a method."""
    return re.sub(r"(?m)^(sine,aevb,\d,mse),[^,]*,", r"\1,0.05,", metrics)


def other_digit(text):
    return text.replace("0.", "0.1", 1)


@pytest.mark.parametrize(
    "edits, same, told",
    [
        ([], True, "the same bytes as in figures/mini"),
        ([("MANIFEST.json", other_machine)], True, "the same bytes as in figures/mini"),
        ([("data/metrics.csv", better)], False, "1 files have OTHER bytes than in figures/mini"),
        ([("data/figure_6.csv", other_digit)], False, "though trained alike"),
        ([("MANIFEST.json", other_machine), ("data/figure_6.csv", other_digit)], True, "rounding differs"),
        ([("MANIFEST.json", other_machine), ("data/metrics.csv", better)], False, "NOT all within"),
        ([("MANIFEST.json", other_settings)], None, "made with other settings for sine"),
    ],
)
def test_comparison(drawn, tmp_path, monkeypatch, edits, same, told):
    """Of one run with committed figures that were made alike, on another machine, or with other settings."""
    project = drawn[0]
    shutil.copytree(project / "figures/mini", tmp_path / "figures/mini")
    for file, edit in edits:
        edited(tmp_path / "figures/mini" / file, edit)
    monkeypatch.chdir(project)
    found = compare.compare_profile("mini", rules.profile_entries("mini"), tmp_path, project)
    assert found.same is same and told in found.text
    if "metrics" in str(edits) and same is False:
        assert any(
            line in ("data/metrics.csv",) or line.startswith("sine mse of aevb") for line in found.details
        )


def test_analytic_figures_are_compared_by_their_bytes(drawn, tmp_path, monkeypatch):
    project = drawn[0]
    shutil.copytree(project / "figures/analytic", tmp_path / "figures/analytic")
    monkeypatch.chdir(project)
    analytic = lambda: compare.compare_drawn("analytic", rules.analytic_entries(), tmp_path, project)  # noqa: E731
    assert analytic().same
    edited(tmp_path / "figures/analytic/data/figure_4_minima.csv", other_digit)
    assert not analytic().same and analytic().details == ["data/figure_4_minima.csv"]


def test_difference_is_exit_code_1(reproduced):
    """The finished copy without its mark counts as interrupted, so that nothing is trained."""
    project = reproduced[0]
    (project / "runs/reproduce/mini/finished").unlink()
    data = project / "figures/mini/data/figure_6.csv"
    before = data.read_text()
    data.write_text(before.replace("1", "2", 1))
    done = call("wiseale-pipeline", "reproduce", "mini", cwd=project)
    data.write_text(before)
    assert done.returncode == 1 and "\n  data/figure_6.csv\n" in done.stdout, done.stderr


def planned(project):
    """The runs and figures that a call would make."""
    done = call("snakemake", "-n", "--cores", "1", "--config", "profile=mini", cwd=project)
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^(?:local)?rule (\w+):$", done.stdout + done.stderr, re.MULTILINE)
    return sorted(rule.removeprefix("train_sine_") for rule in found if rule != "all")


def changed(path, old, new):
    """Replace some text, under the time stamp the file had; returns what undoes it."""
    text, times = path.read_text(), path.stat()
    assert old in text, f"{path} has no {old!r}"
    write(path, text.replace(old, new, 1), times)
    return lambda: write(path, text, times)


def write(path, text, times):
    path.write_text(text)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


FIGURES = ["claims", "figure_5a", "figure_6"]


@pytest.mark.parametrize(
    "file, old, new, redone",
    [
        ("config/mini.yaml", "beta: 4.0", "beta: 5.0", ["beta_vae", *FIGURES]),
        ("config/mini.yaml", "beta: 1/M", "beta: 0.1", ["beta_vae_inverse_m", "claims", "figure_6"]),
        ("config/mini.yaml", "  - 1\n", "", [*METHODS, *FIGURES]),
        ("config/mini.yaml", "epochs: 12", "epochs: 12  # a dozen", []),
        ("wiseale_nb/objective.py", "return self.beta", "return self.beta  # a comment", []),
        ("wiseale_nb/objective.py", "return self.beta", "return 2 * self.beta", [*METHODS[1:3], *FIGURES]),
        ("wiseale_nb/data.py", "[20.0, 2 *", "[21.0, 2 *", [*METHODS, *FIGURES]),
        ("wiseale_nb/training.py", "\n\n\ndef ", "\n\n# a comment\n\n\ndef ", []),
        ("wiseale_nb/drawing/figure_5.py", "figsize=(", "figsize=(1 + ", ["figure_5a"]),
        ("wiseale_nb/drawing/figure_4.py", "figsize=(", "figsize=(1 + ", ["figure_4"]),
        ("nbs/26_figure_6.ipynb", "job.write_table(", "job.write_table(  ", []),
        ("nbs/26_figure_6.ipynb", "if not job.redraw:", "if job.redraw is False:", ["figure_6"]),
    ],
)
def test_only_what_changed_is_done_again(drawn, file, old, new, redone):
    """By content: the changed file keeps its time."""
    undo = changed(drawn[0] / file, old, new)
    found = planned(drawn[0])
    undo()
    assert found == sorted(redone)


def test_a_time_stamp_is_no_change(drawn):
    project = drawn[0]
    now = time.time()
    for path in project.rglob("*"):
        if path.is_file() and ".snakemake" not in path.parts:
            os.utime(path, (now, now))
    assert planned(project) == []


def test_deleted_and_restyled_files_are_made_again(drawn):
    """To the byte, and nothing else: no other seed is trained, no data are computed."""
    project = drawn[0]
    runs, analytic = project / "runs/mini/sine/wiseale", project / "runs/analytic"
    kept = {path: path.read_bytes() for path in (runs / "seed0/run.json", *analytic.glob("data/*"))}
    made = (analytic / "figure_2.png", runs / "seed1/model.safetensors")
    made = {path: path.read_bytes() for path in made}
    restyled = analytic / "figure_4.png"
    before = restyled.read_bytes()
    (analytic / "figure_2.png").unlink()
    shutil.rmtree(runs / "seed1")
    undo = changed(project / "wiseale_nb/drawing/figure_4.py", "figsize=(", "figsize=(1 + ")
    assert planned(project) == sorted([*FIGURES, "wiseale", "figure_2", "figure_4"])
    done = call("wiseale-pipeline", "figures", "mini", cwd=project)
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in [*kept, *made]} == kept | made
    executed = json.loads((project / "runs/analytic/figure_4.ipynb").read_text())
    assert executed["metadata"]["papermill"]["parameters"]["redraw"] is True
    assert restyled.read_bytes() != before
    undo()
    assert planned(project) == ["figure_4"]


def test_failed_figure_is_as_it_was_and_is_drawn_later(drawn):
    """Nothing is missing meanwhile, and the next call knows that it failed."""
    project = drawn[0]
    before = {p: p.read_bytes() for p in (project / "runs/analytic").glob("*.???")}
    undo = changed(project / "wiseale_nb/drawing/figure_4.py", "figsize=(", "figsize=(1 / 0, ")
    done = call("wiseale-pipeline", "figures", "mini", cwd=project)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr and "Restored" not in done.stderr
    assert {p: p.read_bytes() for p in before} == before
    undo()
    assert planned(project) == ["figure_4"]
    done = call("wiseale-pipeline", "figures", "mini", cwd=project)
    assert done.returncode == 0 and "the same bytes as in figures/analytic" in done.stdout
    assert planned(project) == []


def test_studies_are_rules_too(drawn):
    """Each at its size, and of runs only those that one of them reads."""
    words = ("snakemake", "-n", "studies", "--cores", "1", "--config", "profile=smoke", "size=smoke")
    done = call(*words, cwd=drawn[0])
    assert done.returncode == 0, done.stderr
    found = set(re.findall(r"^(?:local)?rule (\w+):$", done.stdout + done.stderr, re.MULTILINE))
    found -= {"fetch_mnist"}  # if it is not there
    trained = {"train_mnist_aevb", "train_mnist_wae_mmd"}
    assert trained | {"likelihood_mnist_smoke", "sensitivity_smoke"} < found
    studies = load_studies()["smoke"].keys() - {"bench", "cost_curve"}
    assert len(found) == 2 + len(studies) + 1 and "wiseale" not in " ".join(found)
    done = call("wiseale-pipeline", "studies", "huge", cwd=drawn[0])
    assert done.returncode == 1 and "the sizes are quick, longer, paper, smoke" in done.stderr


def test_some_of_the_studies(drawn):
    """By name; a study that does not exist, or not at that size, is refused."""
    words = ("snakemake", "-n", "studies", "--cores", "1", "--config", "profile=smoke", "size=smoke")
    done = call(*words, "studies=bank slack", cwd=drawn[0])
    assert done.returncode == 0, done.stderr
    found = set(re.findall(r"^(?:local)?rule (\w+):$", done.stdout + done.stderr, re.MULTILINE))
    assert found - {"fetch_mnist"} == {"studies", "bank_smoke", "slack_smoke"}
    for size, only in (("smoke", "slack figure_1"), ("longer", "bank")):
        done = call("wiseale-pipeline", "studies", size, "--only", only, cwd=drawn[0])
        assert done.returncode == 1 and f"no study '{only.split()[-1]}' has the size '{size}'" in done.stderr


def test_names_of_a_profile_never_reach_a_shell(drawn):
    """A name is made of letters, digits and _; a profile that has another one is refused before any work."""
    profile = drawn[0] / "config/evil.yaml"
    text = (drawn[0] / "config/mini.yaml").read_text()
    for name in ("$(touch MARKER)", "../../../a"):
        profile.write_text(text.replace("wiseale_per_sample:", f'"{name}":', 1))
        done = call("wiseale-pipeline", "figures", "evil", cwd=drawn[0])
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1
    done = call("wiseale-pipeline", "figures", "$(touch MARKER)", cwd=drawn[0])
    assert done.returncode == 1 and "unknown profile" in done.stderr
    profile.unlink()
    assert not list(drawn[0].rglob("MARKER"))
