"""Find CelebA's photographs and the official partition, in each of the forms in which people have them."""

import io
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path, PurePosixPath
from posixpath import basename, dirname, splitext
from typing import NamedTuple

import numpy as np
from PIL import Image

from wiseale_nb.formats import read_bounded, read_member

NAME = "img_align_celeba"  # of the folder and of the archive that CelebA comes in
PARTITION = re.compile(r"list_eval_partition.*\.(txt|csv)(\.zip)?", re.IGNORECASE)
PACKED = re.compile(r".*\.(7z|rar|tar|tgz|zip)(\.\w{2,3})?", re.IGNORECASE)  # the suffix also of one volume
TABLES = (".parquet", ".arrow", ".tfrecord", ".h5", ".hdf5", ".npz")
OFFICIAL = (162_770, 19_867, 19_962)  # the parts in the order of the numbers, 000001 to 202599
CODES = {"0": 0, "1": 1, "2": 2}
FOLDERS = {"train": 0, "val": 1, "valid": 1, "validation": 1, "test": 2}  # some copies are sorted into these
LARGEST = 2**24  # bytes; genuine photographs are a hundred times smaller, the partition a sixth
DEPTH = 5  # folders below the one that was named
UNREADABLE = (  # what a damaged photograph or archive may raise
    OSError, ValueError, RuntimeError, SyntaxError, EOFError, struct.error, zlib.error,
    zipfile.BadZipFile, Image.DecompressionBombError,
)  # fmt: skip


class SourceError(Exception):
    """The photographs cannot be used; the message says why."""


class Tree(NamedTuple):
    """The files of a folder or of an archive."""

    place: Path
    sizes: dict[str, int]  # path inside, with forward slashes -> bytes
    read: Callable[[str], bytes]


class Source(NamedTuple):
    """Where photographs come from; row i of the data set is the file names[i]."""

    place: Path
    names: list[str]  # sorted
    sizes: list[int]  # in bytes
    read: Callable[[str], bytes]
    parts: tuple[np.ndarray, str] | None  # the code of each file's part, and who says so


# --- What a folder or an archive holds -----------------------------------------------------------------


def size_of(path: str) -> int | None:
    """The size of a file, None for what is none; 0 if it cannot be found, so that reading it says why."""
    try:
        state = os.stat(path)
    except OSError:
        return 0
    return state.st_size if stat.S_ISREG(state.st_mode) else None


def reader(place: Path) -> Callable[[str], bytes]:
    """Reads files of a folder, never more than a photograph or a partition can have."""

    def read(name):
        with open(place / name, "rb") as file:
            return read_bounded(file, LARGEST)

    return read


def folder_tree(place: Path) -> Tree:
    """The files of a folder and below it; links are followed, but into no folder twice."""
    sizes, seen = {}, set()
    for folder, below, names in os.walk(place, followlinks=True):
        state, inside = os.stat(folder), Path(folder).relative_to(place)
        if (state.st_dev, state.st_ino) in seen:
            below.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        below[:] = sorted(below) if len(inside.parts) < DEPTH else []
        for name in names:
            if (size := size_of(os.path.join(folder, name))) is not None:
                sizes[(inside / name).as_posix()] = size
    return Tree(place, sizes, reader(place))


def archive_tree(place: Path) -> Tree:
    """The files of a zip archive; one with links, or paths outside itself, is refused as a whole."""
    if PACKED.fullmatch(place.name) and place.suffix.lower() != ".zip":
        raise SourceError(f"{place} is no zip archive: {how_to_unpack(place.name)}")
    try:
        archive = zipfile.ZipFile(place)
    except UNREADABLE as error:
        raise SourceError(f"cannot read {place}: {error}") from None
    members = {}
    for member in archive.infolist():
        path = PurePosixPath(member.filename.replace("\\", "/"))  # as some systems write it
        if path.is_absolute() or ".." in path.parts or ":" in str(path).split("/")[0]:
            raise SourceError(f"{place} is refused: its member {member.filename!r} points out of the archive")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise SourceError(f"{place} is refused: its member {member.filename!r} is a link")
        if not member.is_dir():
            members[path.as_posix()] = member
    sizes = {name: member.file_size for name, member in members.items()}
    return Tree(place, sizes, lambda name: read_member(archive, members[name], LARGEST))


def how_to_unpack(name: str) -> str:
    """What to do with an archive of another kind."""
    return f"unpack {name} first, such as with `7z x {basename(name)}`, and name the folder"


# --- The photographs -----------------------------------------------------------------------------------


def is_photograph(name: str) -> bool:
    """Whether a path inside a source counts as one; what macOS adds to archives does not."""
    return name.lower().endswith((".jpg", ".jpeg", ".png")) and not basename(name).startswith("._")


def stem(name: str) -> str:
    """The number in a file's name: a partition lists 000001.jpg also for 000001.JPG and 000001.png."""
    return splitext(basename(name))[0].casefold()


def choose(tree: Tree) -> list[str]:
    """The photographs of a source, sorted: of several versions, the aligned ones as JPEG files."""
    folders = {}
    for name in filter(is_photograph, sorted(tree.sizes)):
        folders.setdefault(dirname(name), []).append(name)
    named = {folder: basename(folder).casefold() for folder in sorted(folders, key=lambda f: f.count("/"))}
    preferred = [folder for wanted in (NAME, f"{NAME}_png") for folder in named if named[folder] == wanted]
    preferred += [folder for folder in named if folder == ""]
    names = folders[preferred[0]] if preferred else sorted(sum(folders.values(), []))
    first = {}
    for name in names:
        if (other := first.setdefault(stem(name), name)) != name:
            raise SourceError(
                f"{tree.place} has two photographs of one name, {other} and {name}: name one folder"
            )
    return names


def archives(tree: Tree) -> list[str]:
    """The zip archives in a folder, the likeliest first."""
    zips = [name for name in tree.sizes if name.lower().endswith(".zip") and not is_partition(name)]
    return sorted(zips, key=lambda name: (NAME not in name, name.count("/"), name))


def nothing_found(tree: Tree) -> SourceError:
    """Says what there is in place of photographs."""
    text = f"{tree.place} holds no JPEG or PNG files, nor a folder {NAME}, nor {NAME}.zip"
    for name in sorted(tree.sizes):
        if PACKED.fullmatch(name) and not is_partition(name):
            return SourceError(f"{text}: {how_to_unpack(name)}")
        if name.lower().endswith(TABLES):
            return SourceError(f"{text}: write the images in {name} to files with their numbers first")
    return SourceError(text)


# --- The official partition ----------------------------------------------------------------------------


def is_partition(name: str) -> bool:
    """Whether a path inside a source is that of the official list: as text, as a table, or a zipped one."""
    return PARTITION.fullmatch(basename(name)) is not None


def lists_in(tree: Tree) -> Iterator[tuple[str, bytes]]:
    """The partition files in a source, those near its top first: place and content."""
    for name in sorted(filter(is_partition, tree.sizes), key=lambda name: (name.count("/"), name)):
        where = str(tree.place / name) if tree.place.is_dir() else f"{name} in {tree.place}"
        try:
            raw = tree.read(name)
            if raw.startswith(b"PK\3\4"):
                packed = zipfile.ZipFile(io.BytesIO(raw))
                raw = b"".join(
                    read_member(packed, m, LARGEST) for m in packed.infolist() if is_partition(m.filename)
                )
        except UNREADABLE as error:
            raise SourceError(f"cannot use {where}: {error}") from None
        yield where, raw


def lists_around(place: Path) -> Iterator[tuple[str, bytes]]:
    """The partition files beside a source and above it, or in a folder Eval there, as published."""
    for start in dict.fromkeys([place.absolute(), place.resolve()]):
        for folder in (start.parent, start.parent.parent):
            for near in (folder, folder / "Eval"):
                names = [path.name for path in near.glob("*") if is_partition(path.name) and path.is_file()]
                yield from lists_in(Tree(near, dict.fromkeys(names, 0), reader(near)))


def parse_partition(place: str, raw: bytes) -> dict[str, int]:
    """The part of each photograph: from lines `000001.jpg 0`, or a table of image_id and partition."""
    utf16 = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = raw.decode("utf-16" if utf16 else "utf-8-sig", errors="replace")
    listed, columns, width = {}, None, 2
    for number, line in enumerate(text.splitlines(), 1):
        words = re.split(r"\s*[,;]\s*|\s+", line.replace('"', "").strip())
        header = [word.casefold() for word in words]
        if columns is None and {"image_id", "partition"} <= set(header):
            columns, width = (header.index("image_id"), header.index("partition")), len(header)
            continue
        if words == [""]:
            continue
        name_column, code_column = columns = columns or (0, 1)
        if len(words) != width or words[code_column] not in CODES:
            expected = "expected a file's name and 0, 1 or 2"
            raise SourceError(f"{place}, line {number}: {expected}, got {line[:60]!r}")
        code = CODES[words[code_column]]
        if listed.setdefault(stem(words[name_column]), code) != code:
            raise SourceError(f"{place}, line {number}: {words[name_column]} is listed with two parts")
    return listed


def folder_code(name: str) -> int | None:
    """The part that a photograph's folder is named after, if there is one."""
    folders = reversed(dirname(name).casefold().split("/"))
    return next((FOLDERS[folder] for folder in folders if folder in FOLDERS), None)


def official_parts(names: list[str], lists: Iterator[tuple[str, bytes]]) -> tuple[np.ndarray, str] | None:
    """The codes of all photographs, and who says so; None if nothing does."""
    for place, raw in lists:
        listed = parse_partition(place, raw)
        missing = next((name for name in names if stem(name) not in listed), None)
        if missing is not None:
            raise SourceError(f"{place} does not say to which part {missing} belongs")
        return np.array([listed[stem(name)] for name in names], np.uint8), place
    codes = [folder_code(name) for name in names]
    if None not in codes:
        return np.array(codes, np.uint8), "the folders that the photographs are in"
    numbers = [f"{i:06}" for i in range(1, sum(OFFICIAL) + 1)]
    if sorted(map(stem, names)) == numbers:
        by_number = dict(zip(numbers, np.repeat(np.arange(3, dtype=np.uint8), OFFICIAL)))
        return np.array(
            [by_number[stem(name)] for name in names]
        ), "the official sizes, in the order of numbers"
    return None


def find(place: Path) -> Source:
    """The photographs in an archive, or in a folder and below it, there also in an archive."""
    if not place.exists():
        raise SourceError(f"{place} does not exist")
    outer = tree = folder_tree(place) if place.is_dir() else archive_tree(place)
    names = choose(tree)
    for name in archives(outer) if place.is_dir() and not names else ():
        tree = archive_tree(place / name)
        if names := choose(tree):
            break
    if not names:
        raise nothing_found(outer)

    trees = [tree] if tree is outer else [tree, outer]
    lists = chain(*map(lists_in, trees), *(lists_around(each.place) for each in trees))
    sizes = [tree.sizes[name] for name in names]
    return Source(tree.place, names, sizes, tree.read, official_parts(names, lists))
