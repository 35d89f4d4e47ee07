"""data_scripts/celeba.py on small photographs that are drawn here; none of CelebA's is used."""

import importlib.util
import io
import shutil
import signal
import stat
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from wiseale_nb.data import load
from wiseale_nb.formats import DataError

SCRIPT = ROOT / "data_scripts" / "celeba.py"
spec = importlib.util.spec_from_file_location("celeba_script", SCRIPT)
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)


def drawing(i, size=(178, 218)):
    """Smooth colours that differ for each number, with a white stripe above and below the central square."""
    x, y = np.meshgrid(np.linspace(0, 3, size[0]), np.linspace(0, 3, size[1]))
    pixels = np.stack([np.sin(x + i), np.cos(y - i), np.sin(x * y + 2 * i)], -1) * 100 + 128
    pixels[:20] = pixels[-20:] = 255
    return Image.fromarray(pixels.astype(np.uint8))


def jpeg(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, **options)
    return file.getvalue()


@pytest.fixture(scope="session")
def photographs():
    return {f"{i:06}.jpg": jpeg(drawing(i)) for i in range(1, 31)}


def folder_of(place, files):
    place.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (place / name).write_bytes(content)
    return place


def archive_of(place, files):
    with zipfile.ZipFile(place, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"img_align_celeba/{name}" if isinstance(name, str) else name, content)
    return place


def run(source, root):
    return script.main([str(source), "--root", str(root)])


def stored(root):
    return {name: np.load(root / "celeba" / name) for name in ("images.npy", "partition.npy")}


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(stored(a).values(), stored(b).values(), strict=True))


def test_rows_are_the_centre_resized(tmp_path, photographs):
    """Against Pillow's own antialiasing; the white stripes are cut away."""
    assert run(folder_of(tmp_path / "photos", photographs), tmp_path) == 0
    images = stored(tmp_path)["images.npy"]
    assert images.shape == (30, 3, 64, 64) and images.dtype == np.uint8
    for i, content in enumerate(photographs.values()):
        square = Image.open(io.BytesIO(content)).crop((0, 20, 178, 198))
        expected = np.asarray(square.resize((64, 64), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        assert abs(images[i].astype(int) - expected).max() <= 1
    assert images[:, :, 1:-1].max() < 240


def test_folder_archive_and_download_give_the_same(tmp_path, photographs):
    archive_of(tmp_path / "img_align_celeba.zip", photographs)
    folder_of(tmp_path / "c" / "celeba" / "img_align_celeba", photographs)
    assert run(folder_of(tmp_path / "photos", photographs), tmp_path / "a") == 0
    assert run(tmp_path / "img_align_celeba.zip", tmp_path / "b") == 0
    assert script.main(["--root", str(tmp_path / "c")]) == 0
    assert same(tmp_path / "a", tmp_path / "b") and same(tmp_path / "a", tmp_path / "c")


@pytest.mark.parametrize("inside", [True, False])
def test_official_partition(tmp_path, photographs, inside):
    codes = [i % 3 for i in range(30)]
    lines = "".join(
        f"{name} {code}\n" for name, code in zip([*photographs, "999999.jpg"], [*codes, 0])
    ).encode()
    archive = archive_of(
        tmp_path / "photos.zip", photographs | ({"list_eval_partition.txt": lines} if inside else {})
    )
    if not inside:
        (tmp_path / "list_eval_partition.txt").write_bytes(lines)
    assert run(archive, tmp_path) == 0
    assert stored(tmp_path)["partition.npy"].tolist() == codes
    for code, part in enumerate(("train", "val", "test")):
        split = load("celeba", part, root=tmp_path)
        assert split.y.tolist() == [*range(code, 30, 3)] and np.array_equal(
            split.x, stored(tmp_path)["images.npy"][code::3]
        )


def test_drawn_partition(tmp_path, photographs):
    source = folder_of(tmp_path / "photos", photographs)
    parts = []
    for seed in ("0", "0", "1"):
        assert script.main([str(source), "--root", str(tmp_path), "--seed", seed]) == 0
        parts.append(stored(tmp_path)["partition.npy"].tolist())
        assert np.bincount(parts[-1]).tolist() == [24, 3, 3]
    assert parts[0] == parts[1] != parts[2]


def test_second_call_does_nothing_and_other_photographs_replace(tmp_path, photographs, capsys):
    source = folder_of(tmp_path / "photos", photographs)
    for nothing_to_do in (False, True):
        assert run(source, tmp_path) == 0
        assert ("nothing to do" in capsys.readouterr().out) == nothing_to_do
    assert script.main(["--root", str(tmp_path)]) == 0  # without the photographs
    assert "nothing to do" in capsys.readouterr().out
    before = stored(tmp_path)
    (source / "000007.jpg").write_bytes(photographs["000008.jpg"])
    assert run(source, tmp_path) == 0
    assert np.array_equal(stored(tmp_path)["images.npy"][6], before["images.npy"][7])
    path = tmp_path / "celeba" / "images.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="python data_scripts/celeba.py"):
        load("celeba", root=tmp_path)
    assert script.main(["--root", str(tmp_path)]) == 1
    assert run(source, tmp_path) == 0 and load("celeba", root=tmp_path).x.shape == (24, 3, 64, 64)


def bad_files(photographs):
    good = photographs["000001.jpg"]
    huge = bytearray(good)
    start = good.index(b"\xff\xc0") + 5  # the frame's height and width
    huge[start : start + 4] = b"\xff\xdc\xff\xdc"
    return {
        "000002.jpg": good[: len(good) // 2],
        "000005.jpg": b"",
        "000006.jpg": b"<html>log in</html>",
        "000009.jpg": bytes(huge),
        "000011.jpg": jpeg(drawing(1, (218, 178))),
        "000012.jpg": jpeg(Image.new("RGB", (178, 218))),
    }


@pytest.mark.parametrize("place", [folder_of, archive_of])
def test_damaged_files_are_reported_counted_and_left_out(tmp_path, photographs, capsys, place):
    bad = bad_files(photographs)
    grey = {
        "000003.jpg": jpeg(drawing(3).convert("L")),
        "000004.jpg": jpeg(drawing(4).convert("CMYK")),
    }  # unusual, not damaged
    assert run(place(tmp_path / "photos", photographs | grey | bad), tmp_path) == 0
    out, err = capsys.readouterr()
    assert "6 damaged" in out
    for name, why in zip(
        bad, ("truncated", "no JPEG", "no JPEG", "bomb", "is 218x178, not 178x218", "is black")
    ):
        assert any(name in line and why in line for line in err.splitlines() if "left out" in line), (
            name,
            err,
        )
    rows = [int(name[:6]) - 1 for name in bad]
    assert np.flatnonzero(stored(tmp_path)["partition.npy"] == 3).tolist() == rows
    assert not stored(tmp_path)["images.npy"][rows].any()
    assert sum(len(load("celeba", part, root=tmp_path).x) for part in ("train", "val", "test")) == 24


def test_archive_member_with_a_wrong_checksum(tmp_path, photographs, capsys):
    path = archive_of(tmp_path / "photos.zip", photographs)
    content = bytearray(path.read_bytes())
    content[content.index(photographs["000004.jpg"]) + 2000] ^= 1
    path.write_bytes(content)
    assert run(path, tmp_path) == 0
    out, err = capsys.readouterr()
    assert "1 damaged" in out and "000004.jpg: Bad CRC-32" in err


def link():
    info = zipfile.ZipInfo("img_align_celeba/000099.jpg")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info


OUTSIDE = [
    "../000099.jpg",
    "/tmp/000099.jpg",
    "a/../../000099.jpg",
    "..\\000099.jpg",
    "C:\\000099.jpg",
    "C:000099.jpg",
]


@pytest.mark.parametrize("member", [*map(zipfile.ZipInfo, OUTSIDE), link()], ids=repr)
def test_archive_that_reaches_outside_is_refused(tmp_path, photographs, capsys, member):
    path = archive_of(tmp_path / "photos.zip", photographs | {member: b"/etc/passwd"})
    assert run(path, tmp_path / "root") == 1
    assert "is refused: its member" in capsys.readouterr().err and not (tmp_path / "root").exists()


def test_sources_that_are_none(tmp_path, photographs, capsys):
    folder_of(tmp_path / "text", {"a.txt": b"no photographs", "._1.jpg": b""})
    folder_of(tmp_path / "wild", {f"{i}.jpg": jpeg(drawing(i, (300, 200))) for i in range(5)})
    (tmp_path / "empty").mkdir()
    (tmp_path / "page.zip").write_bytes(b"<html>quota exceeded</html>")
    cut = archive_of(tmp_path / "cut.zip", photographs)
    cut.write_bytes(cut.read_bytes()[:-100])
    folder_of(tmp_path / "short", photographs | {"list_eval_partition.txt": b"000001.jpg 0\n"})
    folder_of(tmp_path / "odd", photographs | {"list_eval_partition.txt": b"000001.jpg 0\n000002.jpg 7\n"})
    wild = "of 5 files that were tried, 5 cannot be used, such as 0.jpg: is 300x200, not 178x218"
    for name, message in {
        "absent": "absent does not exist",
        "empty": "holds no JPEG files",
        "text": "holds no JPEG files",
        "page.zip": "not a zip file",
        "wild": wild,
        "cut.zip": "not a zip file",
        "short": "does not say to which part 000002.jpg belongs",
        "odd": "line 2: expected a file's name and 0, 1 or 2",
    }.items():
        assert run(tmp_path / name, tmp_path / "root") == 1
        err = capsys.readouterr().err
        assert err.startswith("error: ") and message in err, err
    assert not (tmp_path / "root").exists()


SLOW = f"""
import sys, time
sys.path.insert(0, {str(SCRIPT.parent)!r})
import celeba
convert = celeba.convert
def slow(source, rows):
    if rows.start == 1024:
        print("first piece written", flush=True)
        time.sleep(60)
    return convert(source, rows)
celeba.convert = slow
celeba.main(sys.argv[1:])
"""


def test_killed_call_is_continued(tmp_path, photographs, monkeypatch):
    names = [f"{i:06}.jpg" for i in range(1100)]
    source = archive_of(tmp_path / "photos.zip", dict(zip(names, [*photographs.values()] * 40)))
    command = [sys.executable, "-c", SLOW, source, "--root", tmp_path]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout.readline() == "first piece written\n"
    process.send_signal(signal.SIGKILL)
    assert process.wait(20) == -signal.SIGKILL
    assert [p.suffix for p in (tmp_path / "celeba").iterdir()] == [".partial"]
    shutil.copytree(tmp_path / "celeba", tmp_path / "other" / "celeba")

    converted, convert = [], script.convert
    monkeypatch.setattr(
        script, "convert", lambda source, rows: converted.extend(rows) or convert(source, rows)
    )
    assert run(source, tmp_path) == 0
    assert min(converted) == 1024 and len(converted) == 76
    assert sorted(p.name for p in (tmp_path / "celeba").iterdir()) == ["images.npy", "partition.npy"]
    images = stored(tmp_path)["images.npy"]
    assert np.array_equal(
        images, np.resize(images[:30], images.shape)
    )  # every thirtieth photograph is the same

    turned = archive_of(tmp_path / "turned.zip", dict(zip(names, [*photographs.values()][::-1] * 40)))
    assert run(turned, tmp_path / "other") == 0  # what was begun from other photographs is not continued
    assert np.array_equal(stored(tmp_path / "other")["images.npy"][:30], images[29::-1])
    assert sorted(p.name for p in (tmp_path / "other" / "celeba").iterdir()) == [
        "images.npy",
        "partition.npy",
    ]
