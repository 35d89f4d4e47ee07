"""data_scripts/celeba.py on small photographs that are drawn here; none of CelebA's is used."""

import io
import multiprocessing
import os
import shutil
import signal
import stat
import sys
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from wiseale_nb.data import load
from wiseale_nb.formats import DataError

sys.path.insert(0, str(ROOT / "data_scripts"))  # as for a script that is run there
import celeba as script  # noqa: E402
import celeba_source  # noqa: E402


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


# --- The forms in which people have CelebA --------------------------------------------------------------

CSV, TXT = "list_eval_partition.csv", "list_eval_partition.txt"
PARTS = [0, 1, 2, 0, 2, 1]  # of 000001 to 000006


def lists(suffix=".jpg"):
    """The official list in its two forms, of more photographs than there are."""
    rows = [(f"{i:06}{suffix}", part) for i, part in enumerate([*PARTS, 0, 1], 1)]
    txt = "".join(f"{name} {part}\n" for name, part in rows)
    csv = "image_id,partition\n" + "".join(f"{name},{part}\n" for name, part in rows)
    return {TXT: txt.encode(), CSV: csv.encode()}


def tree_of(place, files, packed=False):
    """A folder or a zip archive with these paths."""
    if packed:
        place.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(zipfile.ZipInfo(name), content)
        return place
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    return place


LAYOUTS = {  # files below a folder, "PHOTOS/" for the six photographs; what is packed; the source
    "Kaggle, archive": (
        {"img_align_celeba/img_align_celeba/": "", CSV: CSV, "list_attr_celeba.csv": b""},
        "a.zip",
    ),
    "Kaggle, folder": ({"img_align_celeba/img_align_celeba/": "", CSV: CSV}, ""),
    "Kaggle, photographs": ({"a/img_align_celeba/": "", CSV: CSV}, "a/img_align_celeba"),
    "Drive, whole": ({"Img/img_align_celeba/": "", f"Eval/{TXT}": TXT, "Anno/x.txt": b""}, ""),
    "Drive, photographs": ({"Img/img_align_celeba/": "", f"Eval/{TXT}": TXT}, "Img/img_align_celeba"),
    "torchvision, above": ({"celeba/img_align_celeba/": "", f"celeba/{TXT}": TXT}, ""),
    "PNG": ({"img_align_celeba_png/": ".png", TXT: TXT}, ""),
    "JPEG before PNG": ({"a_png/": ".png", "img_align_celeba/": "", "img_celeba/": "wild", TXT: TXT}, ""),
    "numbered folders": ({"0/": range(3), "1/": range(3, 6), TXT: TXT}, ""),
    "Windows": ({".\\img_align_celeba\\": "", f"x\\{TXT}": TXT}, "a.zip"),
    "macOS": (
        {
            "img_align_celeba/": "",
            "__MACOSX/img_align_celeba/._": "",
            "img_align_celeba/._": "",
            TXT: TXT,
            f"__MACOSX/._{TXT}": b"\0",
        },
        "a.zip",
    ),
    "uppercase": ({"img_align_celeba/": ".JPG", TXT.upper(): TXT}, "a.zip"),
    "leading dot": ({"./img_align_celeba/": "", f"./deep/er/{CSV}": CSV}, "a.zip"),
    "saved twice by a browser": ({"img_align_celeba/": "", "list_eval_partition (1).txt": TXT}, ""),
}


@pytest.fixture(scope="module")
def six(photographs):
    return [photographs[f"{i:06}.jpg"] for i in range(1, 7)]


def laid_out(place, files, six, packed):
    """The files of a layout."""
    made = {}
    for path, what in files.items():
        if path.endswith(("/", "\\", "._")):
            rows = what if isinstance(what, range) else range(6)
            suffix = what if str(what).lower() in (".png", ".jpg") else ".jpg"
            for row in rows:
                image = jpeg(drawing(row, (300, 200))) if what == "wild" else six[row]
                if suffix == ".png":
                    Image.open(io.BytesIO(image)).save(file := io.BytesIO(), "PNG")
                    image = file.getvalue()
                made[f"{path}{row + 1:06}{suffix}"] = image
        else:
            made[path] = lists()[what] if isinstance(what, str) else what
    return tree_of(place, made, packed)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_official_partition_is_found_in_each_layout(tmp_path, six, capsys, layout):
    files, source = LAYOUTS[layout]
    packed = source.endswith(".zip")
    laid_out(tmp_path / "here" / ("a.zip" if packed else ""), files, six, packed)
    assert run(tmp_path / "here" / source, tmp_path) == 0
    out, err = capsys.readouterr()
    assert stored(tmp_path)["partition.npy"].tolist() == PARTS and "list_eval_partition" in out.lower()
    assert stored(tmp_path)["images.npy"].any((1, 2, 3)).all() and "warning" not in err


@pytest.mark.parametrize("near", [TXT, f"../{CSV}", f"Eval/{TXT}", f"../Eval/{TXT}", f"{CSV}.zip"])
def test_official_partition_near_an_archive_is_found(tmp_path, six, monkeypatch, near):
    archive = laid_out(tmp_path / "b/c/img_align_celeba.zip", {"img_align_celeba/": ""}, six, True)
    content = lists()[CSV if "csv" in near else TXT]
    if near.endswith(".zip"):
        tree_of(archive.parent / near, {CSV: content}, packed=True)
    else:
        tree_of(archive.parent, {near: content})
    monkeypatch.chdir(archive.parent)
    for number, source in enumerate([archive, archive.name, archive.parent, "."]):
        assert run(source, tmp_path / str(number)) == 0
        assert stored(tmp_path / str(number))["partition.npy"].tolist() == PARTS


WRITTEN = {  # the same list as other programs write it
    "byte-order mark": lambda txt, csv: b"\xef\xbb\xbf" + txt,
    "byte-order mark, table": lambda txt, csv: b"\xef\xbb\xbf" + csv,
    "Windows": lambda txt, csv: csv.replace(b"\n", b"\r\n"),
    "PowerShell": lambda txt, csv: txt.decode().encode("utf-16"),
    "old Macintosh, no end": lambda txt, csv: txt.replace(b"\n", b"\r").rstrip(),
    "quoted": lambda txt, csv: csv.replace(b"0000", b'"0000').replace(b".jpg", b'.jpg"'),
    "semicolons": lambda txt, csv: csv.replace(b",", b";"),
    "tabs and spaces": lambda txt, csv: txt.replace(b" ", b" \t "),
    "a column of row numbers": lambda txt, csv: b"".join(
        (b"" if i == 0 else b"%d" % i) + b"," + line for i, line in enumerate(csv.splitlines(True))
    ),
    "columns swapped": lambda txt, csv: b"".join(
        b"%s,%s\n" % tuple(line.split(b",")[::-1]) for line in csv.splitlines()
    ),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_partition_as_other_programs_write_it(kind):
    raw = WRITTEN[kind](*(lists()[name] for name in (TXT, CSV)))
    names = [f"x/{i:06}.png" for i in range(1, 7)]
    codes, origin = celeba_source.official_parts(names, iter([("list", raw)]))
    assert codes.tolist() == PARTS and origin == "list"


def test_list_that_contradicts_itself_is_refused():
    with pytest.raises(celeba_source.SourceError, match="line 2: 000001.jpg is listed with two parts"):
        celeba_source.parse_partition("list", b"000001.jpg 0\n000001.jpg 1\n")


def test_all_official_numbers_without_a_list_have_the_official_parts():
    codes, origin = celeba_source.official_parts([f"x/{i:06}.jpg" for i in range(1, 202_600)], iter([]))
    assert np.bincount(codes).tolist() == [162_770, 19_867, 19_962] and (np.diff(codes) >= 0).all()


def test_parts_by_number_need_each_number_and_no_other(monkeypatch):
    monkeypatch.setattr(celeba_source, "OFFICIAL", (3, 2, 1))
    names = [f"img_align_celeba/{i:06}.PNG" for i in range(1, 7)]
    assert celeba_source.official_parts(names[::-1], iter([]))[0].tolist() == [2, 1, 1, 0, 0, 0]
    for others in (names[:-1], [*names, "x/000007.png"], [*names[:-1], "x/other.png"]):
        assert celeba_source.official_parts(others, iter([])) is None


def test_folders_named_after_the_parts(tmp_path, six, capsys):
    for kind, (first, second, third) in {
        "a": ("train", "valid", "test"),
        "b": ("Train/x", "validation", "test"),
    }.items():
        files = {f"{first}/": range(2), f"{second}/": range(2, 3), f"{third}/": range(3, 6)}
        source = laid_out(tmp_path / kind, files, six, packed=kind == "b")
        assert run(source, tmp_path / "root") == 0
        where = [name.split("/")[0].lower() for name in celeba_source.find(source).names]
        codes = {"train": 0, "valid": 1, "validation": 1, "test": 2}
        assert stored(tmp_path / "root")["partition.npy"].tolist() == [codes[name] for name in where]
        assert "warning" not in capsys.readouterr().err


def test_drawn_partition_is_announced_and_replaced_by_an_official_one(tmp_path, six, capsys):
    source = laid_out(tmp_path / "here/img_align_celeba", {"./": ""}, six, packed=False)
    for _ in range(2):  # also if there is nothing to do
        assert run(source, tmp_path) == 0
        out, err = capsys.readouterr()
        assert (
            err.startswith("warning: the parts of ")
            and "DRAWN 8 : 1 : 1 with seed 0" in err
            and "DRAWN" in out
        )
    tree_of(tmp_path / "here", {CSV: lists()[CSV]})
    assert run(source, tmp_path) == 0
    assert "warning" not in capsys.readouterr().err and stored(tmp_path)["partition.npy"].tolist() == PARTS


def test_source_that_has_to_be_unpacked_first_or_is_ambiguous(tmp_path, six, capsys):
    tree_of(tmp_path / "seven", {"img_align_celeba_png.7z.001": b"7z", TXT: lists()[TXT]})
    tree_of(tmp_path / "table", {"data/train-00000-of-00001.parquet": b"PAR1"})
    laid_out(tmp_path / "two", {"a/": "", "b/": ""}, six, packed=False)
    inner = laid_out(tmp_path / "img_align_celeba.zip", {"img_align_celeba/": ""}, six, packed=True)
    tree_of(tmp_path / "outer.zip", {"img_align_celeba.zip": inner.read_bytes()}, packed=True)
    for name, message in {
        "seven": "unpack img_align_celeba_png.7z.001 first, such as with `7z x img_align_celeba_png.7z.001`",
        "seven/img_align_celeba_png.7z.001": "is no zip archive: unpack",
        "table": "write the images in data/train-00000-of-00001.parquet to files",
        "two": "two photographs of one name, a/000001.jpg and b/000001.jpg",
        "outer.zip": "unpack img_align_celeba.zip first",
    }.items():
        assert run(tmp_path / name, tmp_path / "root") == 1
        err = capsys.readouterr().err
        assert err.startswith("error: ") and message in err.splitlines()[0], err


# --- Damage ---------------------------------------------------------------------------------------------


def test_links_that_lead_nowhere_are_left_out_and_the_others_used(tmp_path, six, capsys):
    source = laid_out(tmp_path / "here", {"./": "", TXT: TXT}, six, packed=False)
    for name, target in {"000002.jpg": "000002.jpg", "000005.jpg": "absent.jpg"}.items():
        (source / name).unlink()
        (source / name).symlink_to(target)
    (source / "loop").symlink_to(source, target_is_directory=True)
    (source / "loop.jpg").symlink_to(source, target_is_directory=True)
    os.mkfifo(source / "pipe.jpg")
    assert run(source, tmp_path) == 0
    out, err = capsys.readouterr()
    assert "2 damaged" in out and "000002.jpg: [Errno" in err and "000005.jpg: [Errno" in err
    assert np.flatnonzero(stored(tmp_path)["partition.npy"] == 3).tolist() == [1, 4]


def lying_archive(place, files, name, claimed):
    """An archive whose directory claims another size for one member."""
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, content in files.items():
            archive.writestr(zipfile.ZipInfo(each), content, zipfile.ZIP_DEFLATED, compresslevel=1)
        archive.getinfo(name).file_size = claimed  # the directory is written at the end
    return place


@pytest.mark.parametrize("name", ["img_align_celeba/000002.jpg", TXT])
def test_size_in_the_directory_of_an_archive_is_not_believed(tmp_path, six, capsys, name):
    """Of a photograph, which is left out, and of the partition, which is refused."""
    files = {f"img_align_celeba/{i:06}.jpg": content for i, content in enumerate(six, 1)} | {
        TXT: lists()[TXT]
    }
    files[name] = files[name] + bytes(2**26)
    source = lying_archive(tmp_path / "a.zip", files, name, 5000)
    del files
    tracemalloc.start()
    assert run(source, tmp_path) == (name == TXT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert f"{name.split('/')[-1]}" in (err := capsys.readouterr().err) and "Bad CRC-32" in err
    assert peak < 2**24


def test_member_of_a_method_without_a_limit_is_not_unpacked(tmp_path, six, capsys):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_BZIP2) as archive:
        for i, content in enumerate(six, 1):
            archive.writestr(f"{i:06}.jpg", content)
    assert run(tmp_path / "a.zip", tmp_path) == 1
    assert "packed by another method than deflate" in capsys.readouterr().err


@pytest.mark.parametrize("packed", [False, True])
def test_large_partition_file_is_not_read(tmp_path, six, capsys, packed):
    source = laid_out(tmp_path / "a", {"./": "", TXT: bytes(2**24 + 1)}, six, packed)
    assert run(source, tmp_path) == 1
    assert "holds more than 16,777,216 bytes" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["images.npy", "partition.npy"])
def test_folder_in_the_place_of_a_file_is_noticed_before_the_work(tmp_path, six, capsys, monkeypatch, name):
    source = laid_out(tmp_path / "a", {"./": "", TXT: TXT}, six, packed=False)
    (tmp_path / "celeba" / name).mkdir(parents=True)
    monkeypatch.setattr(script, "convert", lambda source, rows: pytest.fail("converted first"))
    assert run(source, tmp_path) == 1
    assert str(tmp_path / "celeba" / name) in capsys.readouterr().err


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
        "empty": "holds no JPEG or PNG files",
        "text": "holds no JPEG or PNG files",
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


def convert_slowly(source, root, written):
    """What the script does, with a second piece that takes a minute."""
    convert = script.convert

    def slow(source, rows):
        if rows.start == 1024:
            written.set()
            time.sleep(60)
        return convert(source, rows)

    script.convert = slow
    script.main([str(source), "--root", str(root)])


def test_killed_call_is_continued(tmp_path, photographs, monkeypatch):
    names = [f"{i:06}.jpg" for i in range(1100)]
    source = archive_of(tmp_path / "photos.zip", dict(zip(names, [*photographs.values()] * 40)))
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=convert_slowly, args=(source, tmp_path, written := fork.Event()))
    process.start()
    assert written.wait(60)
    process.kill()
    process.join(20)
    assert process.exitcode == -signal.SIGKILL
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
