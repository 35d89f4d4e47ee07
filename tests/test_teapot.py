"""data_scripts/teapot.py: equal bytes from any number of cores, whole files or none, checks of old files."""

import errno
import importlib.util
import shutil
import signal
import time

import numba
import numpy as np
import pytest
import torch
from conftest import ROOT, stop_at_work

from wiseale_nb.data import load
from wiseale_nb.formats import DataError
from wiseale_nb.teapot import draw_factors, render

pytestmark = pytest.mark.xdist_group("teapot")  # the renderer is compiled once a process
SCRIPT = ROOT / "data_scripts" / "teapot.py"
spec = importlib.util.spec_from_file_location("teapot_script", SCRIPT)
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)


def contents(root):
    return {p.name: p.read_bytes() for p in (root / "teapot").iterdir()}


@pytest.fixture
def made(tmp_path, capsys):
    """A small data set: 40 for training, 2 held out."""
    assert script.main(["--n", "40", "--root", str(tmp_path)]) == 0
    assert "42 images" in capsys.readouterr().out
    return tmp_path


def test_any_number_of_cores_gives_the_same_bytes(tmp_path, capsys):
    before = numba.get_num_threads()
    for cores in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(cores)
        assert script.main(["--n", "1200", "--root", str(tmp_path / str(cores))]) == 0
        assert "1260/1260" in capsys.readouterr().err
    numba.set_num_threads(before)
    one, all_cores = contents(tmp_path / "1"), contents(tmp_path / str(cores))
    assert one == all_cores and sorted(one) == ["factors.npy", "images.npy"]


def test_what_load_gives(made):
    train, test = (load("teapot", split, root=made) for split in ("train", "test"))
    factors = draw_factors(42, 0)
    held_out = np.arange(42) % 21 == 20
    for part, rows in ((train, factors[~held_out]), (test, factors[held_out])):
        assert np.array_equal(part.y, rows) and np.array_equal(part.x, render(rows))
    few = load("teapot", n=5, seed=1, root=made)
    assert np.array_equal(render(few.y.numpy()), few.x)


def test_second_call_does_nothing_and_another_seed_replaces(made, capsys):
    before = contents(made)
    for n in ("40", "30"):
        assert script.main(["--n", n, "--root", str(made)]) == 0
        assert "42 images: nothing to do" in capsys.readouterr().out and contents(made) == before
    assert script.main(["--n", "40", "--seed", "1", "--root", str(made)]) == 0
    assert np.array_equal(load("teapot", root=made).y[:20], draw_factors(42, 1)[:20])
    assert not any(before[name] == content for name, content in contents(made).items())
    assert script.main(["--n", "60", "--root", str(made)]) == 0
    assert np.array_equal(load("teapot", "test", root=made).x, render(draw_factors(63, 0)[20::21]))


def test_a_run_finds_the_same_images_in_a_larger_set(made):
    small = [load("teapot", split, n=n, seed=3, root=made) for split, n in (("train", 25), ("test", 2))]
    assert script.main(["--n", "20", "--held-out", "3", "--root", str(made)]) == 0
    assert len(load("teapot", "test", root=made).x) == 3
    for before, (split, n) in zip(small, (("train", 25), ("test", 2))):
        after = load("teapot", split, n=n, seed=3, root=made)
        assert torch.equal(before.x, after.x) and torch.equal(before.y, after.y)


def images_cut(folder):
    (folder / "images.npy").write_bytes((folder / "images.npy").read_bytes()[:-1])


def one_image_lost(folder):
    np.lib.format.open_memmap(folder / "images.npy", mode="r+")[41] = 0


def factors_changed(folder):
    np.lib.format.open_memmap(folder / "factors.npy", mode="r+")[3, 0] += 1


def factors_missing(folder):
    (folder / "factors.npy").unlink()


@pytest.mark.parametrize("damage", [images_cut, one_image_lost, factors_changed, factors_missing])
def test_damage_is_found_and_mended(made, capsys, damage):
    before = contents(made)
    damage(made / "teapot")
    assert script.main(["--n", "40", "--root", str(made)]) == 0
    assert "nothing to do" not in capsys.readouterr().out and contents(made) == before


def painted(factors):
    """In the place of `render`, which takes seconds to compile in each process."""
    return np.full((len(factors), 3, 64, 64), 0, np.uint8) + np.uint8(factors[:, :1, None, None] * 40)


def render_slowly(root, written):
    """What the script does, with a second piece that takes a minute."""
    calls = []

    def slow(factors):
        calls.append(factors)
        if len(calls) == 2:
            written.set()
            time.sleep(60)
        return painted(factors)

    script.render = slow
    script.main(["--n", "1400", "--root", str(root)])


def test_killed_call_is_continued(tmp_path, monkeypatch):
    """A part of the file is never taken for the whole, and is not rendered again."""
    assert stop_at_work(render_slowly, tmp_path, signal.SIGKILL) == -signal.SIGKILL
    assert [p.suffix for p in (tmp_path / "teapot").iterdir()] == [".partial"]
    with pytest.raises(DataError, match="python data_scripts/teapot.py"):
        load("teapot", root=tmp_path)

    rendered = []
    monkeypatch.setattr(script, "render", lambda factors: rendered.append(len(factors)) or painted(factors))
    assert script.main(["--n", "1400", "--root", str(tmp_path)]) == 0
    assert rendered == [1470 - 1024] and sorted(contents(tmp_path)) == ["factors.npy", "images.npy"]
    assert np.array_equal(np.load(tmp_path / "teapot" / "images.npy"), painted(draw_factors(1470, 0)))


def test_wrong_arguments_and_places(tmp_path, capsys, monkeypatch):
    for args, message in [
        (["--n", "19"], "at least 20 and at most 10,000,000, got '19'"),
        (["--n", "1e5"], "got '1e5'"),
        (["--n", "9" * 20], "at most 10,000,000, got '99"),
        (["--n", "9" * 5000], "at most 10,000,000, got '99"),
        (["--n", "10000001"], "at most 10,000,000, got '10000001'"),
        (["--held-out", "9" * 20], "at most 500,000, got '99"),
        (["--held-out", "-1"], "at least 0"),
        (["--seed", "x"], "--seed"),
    ]:
        with pytest.raises(SystemExit) as stop:
            script.main([*args, "--root", str(tmp_path)])
        assert stop.value.code == 2 and message in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert script.main(["--n", "20", "--root", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err.startswith(f"error: cannot use {tmp_path / 'file'}")
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    assert script.main(["--n", "20000", "--root", str(tmp_path)]) == 1
    assert "0.3 GB are needed and 0.0 GB are free" in capsys.readouterr().err
    assert not (tmp_path / "teapot" / "images.npy").exists()


@pytest.mark.parametrize("name", ["images.npy", "factors.npy"])
def test_folder_in_the_place_of_a_file_is_noticed_before_the_work(tmp_path, capsys, monkeypatch, name):
    monkeypatch.setattr(script, "render", lambda factors: pytest.fail("rendered first"))
    (tmp_path / "teapot" / name).mkdir(parents=True)
    assert script.main(["--n", "40", "--root", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert (
        err.startswith("error: cannot ") and str(tmp_path / "teapot" / name) in err and err.count("\n") == 1
    )


def test_link_to_itself_in_the_place_of_a_file_is_replaced(made):
    before = contents(made)
    for name in before:
        (made / "teapot" / name).unlink()
        (made / "teapot" / name).symlink_to(name)
    assert script.main(["--n", "40", "--root", str(made)]) == 0 and contents(made) == before


def test_disk_that_fills_up_leaves_no_file_under_the_final_name(made, capsys, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert script.main(["--n", "80", "--root", str(made)]) == 1
    assert "No space left on device" in capsys.readouterr().err
    with pytest.raises(DataError, match="there is no such file"):
        load("teapot", root=made)
