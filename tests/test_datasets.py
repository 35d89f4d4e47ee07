"""Teapot and CelebA through the pipeline at toy size, and what DATASETS selects; the photos are made here."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, call, copy_project
from PIL import Image

from safetensors.numpy import load_file, save_file

from wiseale_nb.data import load
from wiseale_tools.manifest import read_manifest
from wiseale_tools.verify import unlisted, verify_figure

# One worker runs them all, so that the project is copied and the teapots are rendered once.
pytestmark = [pytest.mark.xdist_group("datasets"), pytest.mark.nightly]
TEAPOT = ("figure_5b_teapot", "figure_teapot_traversal")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A project without figures, an empty data folder, and another one with photographs."""
    folder = tmp_path_factory.mktemp("datasets")
    copy_project(folder / "project")
    shutil.rmtree(folder / "project/figures")
    (folder / "empty").mkdir()
    source = photographs(folder / "photographs/img_align_celeba")
    done = call(sys.executable, ROOT / "data_scripts/celeba.py", source, "--root", folder / "data")
    assert done.returncode == 0 and "256 train, 0 val, 64 test" in done.stdout, done.stderr
    return folder


def make(place, *words, data="data"):
    env = {
        "WISEALE_DATA": str(place / data),
        "MAKELEVEL": "",
        "MAKEFLAGS": "",
    }  # as called by hand, though `make test` may be above
    return call("make", "-o", ".venv/ready", "JOBS=2", *words, cwd=place / "project", env=env)


def contents(folder):
    """Every file but the bytecode that Python leaves behind."""
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix != ".pyc"}


def photographs(folder):
    """256 for training and 64 held out, as CelebA comes: 178x218, numbered, with the official partition."""
    folder.mkdir(parents=True)
    across, down = np.meshgrid(np.linspace(0, 3, 178), np.linspace(0, 3, 218))
    for i in range(320):
        pixels = (
            np.stack([np.sin(across + i), np.cos(down - i), np.sin(across * down + 2 * i)], -1) * 100 + 128
        )
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i + 1:06}.jpg", quality=95)
    lines = (f"{i + 1:06}.jpg {2 * (i % 5 == 4)}\n" for i in range(320))
    (folder.parent / "list_eval_partition.txt").write_text("".join(lines))
    return folder


def test_celeba_without_its_photographs_says_what_to_do_and_changes_nothing(place):
    before = contents(place)
    done = make(place, "figures", "PROFILE=smoke", "DATASETS=celeba", data="empty")
    told, *rest = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert done.returncode == 2 and rest == [] and done.stdout == ""
    assert (
        told.startswith("wiseale-pipeline: CelebA cannot be fetched for you")
        and "run `python data_scripts/celeba.py SOURCE`" in told
    )
    assert contents(place) == before


@pytest.mark.parametrize(
    "words, told",
    [
        (("DATASETS=faces",), "unknown data set faces; the profile has sine, mnist, teapot, celeba"),
        (("DATASETS=sine", "PROFILE=huge"), "unknown profile 'huge'"),
    ],
)
def test_names_that_do_not_exist(place, words, told):
    done = make(place, "figures", *words, data="empty")
    assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr


def test_too_few_photographs_are_noticed_before_the_work(place):
    before = contents(place)
    done = make(place, "figures", "DATASETS=celeba")  # the quick profile
    assert (
        done.returncode == 2 and "celeba has 256 train samples and the profile asks for 16000" in done.stderr
    )
    assert contents(place) == before


def test_figure_5b_from_photographs(place):
    """Drawn from those held out into a folder that git ignores; with it come the claims, in numbers."""
    before = contents(place / "project/figures")
    done = make(place, "figures", "PROFILE=smoke", "DATASETS=celeba")
    assert done.returncode == 0, done.stderr[-2000:]
    out = place / "project/runs/smoke/figures"
    assert contents(place / "project/figures") == before
    written = sorted(p.name for p in contents(out) if p.suffix not in (".ipynb", ".key"))
    numbers = [f"claims_{table}.csv" for table in ("pairs", "runs", "values")]
    pictures = [f"{name}.{form}" for name in ("claims", "figure_5b") for form in ("pdf", "png", "svg")]
    assert written == sorted([*numbers, *pictures, "figure_5b.safetensors"])
    values = pd.read_csv(out / "data/claims_values.csv")
    assert set(values.dataset) == {"celeba"} and not values.duplicated(["method", "seed", "metric"]).any()
    stored = load_file(out / "data/figure_5b.safetensors")
    series = {"input", "pca", "aevb", "wae_mmd", "wiseale"}
    assert set(stored) == {*series, *(f"nearest_{name}" for name in series), "factors"}
    held_out = load("celeba", "test", n=64, seed=0, root=place / "data").x
    assert np.array_equal(stored["input"], held_out[:8])
    for method in ("aevb", "wae_mmd", "wiseale"):
        assert stored[method].shape == (8, 3, 64, 64) and (stored[method] != stored["input"]).mean() > 0.5
    for name in (
        "celeba/smoke/figure_5b.png",
        "celeba/smoke/data/figure_5b.safetensors",
        "quick/figure_5b.png",
        "quick/data/figure_5b.safetensors",
    ):
        assert subprocess.run(["git", "check-ignore", "-q", f"figures/{name}"], cwd=ROOT).returncode == 0, (
            name
        )
    assert (
        subprocess.run(
            ["git", "check-ignore", "-q", "figures/quick/figure_5b_teapot.png"], cwd=ROOT
        ).returncode
        == 1
    )


def test_teapot_is_rendered_trained_drawn_and_verified(place, monkeypatch):
    """The photographs are there too, and enter neither the figures nor the manifest."""
    done = make(place, "figures", "PROFILE=smoke", "DATASETS=teapot")
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(load("teapot", "test", root=place / "data").x) == 64
    root = place / "project"
    done = make(place, "publish", "PROFILE=smoke", "DATASETS=teapot")
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(root / "figures/smoke")
    assert sorted(manifest["figures"]) == ["claims", *TEAPOT]
    assert sorted(manifest["runs"]) == [f"teapot/{m}/seed0" for m in ("aevb", "wae_mmd", "wiseale")]
    assert "celeba" not in json.dumps(manifest) and unlisted(manifest, root) == []
    monkeypatch.chdir(root)
    for name in TEAPOT:
        assert verify_figure(name, manifest, root) == []
    data = root / "figures/smoke/data/figure_5b_teapot.safetensors"
    stored = load_file(data)
    save_file(stored | {"wiseale": stored["wiseale"] + 1}, data)
    wrong = verify_figure("figure_5b_teapot", manifest, root)
    assert "data/figure_5b_teapot.safetensors is not in the manifest's state" in wrong
    assert "figure_5b_teapot.png is drawn with other bytes" in wrong


def test_without_datasets_all_but_celeba(place):
    plan = call(
        "snakemake",
        "-n",
        "--cores",
        "1",
        "--config",
        "profile=smoke",
        cwd=place / "project",
        env={"WISEALE_DATA": str(place / "data")},
    )
    assert (
        plan.returncode == 0
        and "train_sine_aevb" in plan.stdout + plan.stderr
        and "celeba" not in plan.stdout + plan.stderr
    )
