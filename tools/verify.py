"""Draw the committed figures again from their committed data, and compare the bytes or keep them."""

import multiprocessing
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import matplotlib.pyplot as plt

from wiseale_nb.core import atomic_write
from wiseale_nb.figures import draw_figure, figure_job, study_job
from wiseale_tools.manifest import all_manifests, checksum, folder_files, save_manifest
from wiseale_tools.process import short_temporary_folder


def figure_job_of(figure, out):
    """The job that draws a manifest's figure into another folder."""
    if figure["size"]:
        return study_job(figure["name"], size=figure["size"], out=str(out))
    return figure_job(figure["name"], profile=figure["profile"], out=str(out))


def draw_aside(figure, folder, out):
    """Draw a figure of a folder into another one, from a copy of its data."""
    (out / "data").mkdir(parents=True)
    for file in figure["data"]:
        shutil.copyfile(folder / file, out / file)
    draw_figure(figure_job_of(figure, out))
    plt.close("all")


def drawn_sums(figure, folder):
    """Draw a figure aside; returns the SHA-256 of each file, or what went wrong as a text."""
    with tempfile.TemporaryDirectory(prefix="wiseale-") as scratch:
        out = Path(scratch) / "figure"
        try:
            draw_aside(figure, folder, out)
            return {file: checksum(out / file) for file in figure["files"]}
        except Exception as error:  # damaged data can make any line of a drawing fail
            return f"{type(error).__name__}: {error}"


def is_optional(file):
    """PDFs are not committed; the manifest keeps their checksums."""
    return file.endswith(".pdf")


def changed_files(figure, folder, sums):
    """Files of a figure that are not what the manifest says, and those that are not there but should be."""
    changed = []
    for file in figure["files"] + figure["data"]:
        path = folder / file
        if not (is_optional(file) and not path.is_file()):
            if not path.is_file() or checksum(path) != sums.get(file):
                changed.append(file)
    return changed


def verify_figure(name, manifest, root):
    """Draw a figure again and compare with file and manifest; returns what differs, a line for each."""
    figure, sums = manifest["figures"][name], manifest["files"]
    folder = root / "figures" / manifest["profile"]
    wrong = [f"{file} is not in the manifest's state" for file in changed_files(figure, folder, sums)]
    if not figure["files"]:
        return wrong
    drawn = drawn_sums(figure, folder)
    if isinstance(drawn, str):
        return [*wrong, drawn]
    return wrong + [f"{file} is drawn with other bytes" for file in drawn if drawn[file] != sums.get(file)]


def unlisted(manifest, root):
    """Files that the manifest does not list, and files of no figure that differ from it, a line for each."""
    folder, sums = root / "figures" / manifest["profile"], manifest["files"]
    there = set(folder_files(folder))
    of_figures = {file for f in manifest["figures"].values() for file in f["files"] + f["data"]}
    others = sorted(sums.keys() - of_figures)
    changed = [file for file in others if file not in there or checksum(folder / file) != sums[file]]
    lines = [f"{file}  is not listed in the manifest" for file in sorted(there - sums.keys())]
    lines += [f"{file}  is not in the manifest's state" for file in changed]
    return [f"{manifest['profile']}/{line}" for line in lines]


def worker_pool(jobs):
    """Processes that draw; each has loaded the library before it is forked."""
    tempfile.tempdir = short_temporary_folder()  # where the fork server has its socket
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["wiseale_tools.verify"])
    return ProcessPoolExecutor(jobs, mp_context=context)


def verify(root, jobs=1):
    """Verify every figure of every manifest, and print a line for each; True if nothing differs."""
    manifests = all_manifests(root)
    figures = [(name, manifest, root) for manifest in manifests.values() for name in manifest["figures"]]
    same = bool(figures)
    with worker_pool(jobs) as pool:
        for (name, manifest, _), wrong in zip(figures, pool.map(verify_figure, *zip(*figures))):
            files = manifest["figures"][name]["files"]
            kinds = " ".join(Path(file).suffix[1:] for file in files) or "tables"
            print(f"{manifest['profile']}/{name}  {kinds}  {'; '.join(wrong) or 'same'}", flush=True)
            same = same and not wrong
    for manifest in manifests.values():
        for line in unlisted(manifest, root):
            print(line)
            same = False
    return same


def redraw_figure(figure, folder):
    """Draw a figure again in its place; returns the SHA-256 of each file."""
    with tempfile.TemporaryDirectory(prefix="wiseale-") as scratch:
        out = Path(scratch) / "figure"
        draw_aside(figure, folder, out)
        for file in figure["files"]:
            atomic_write(folder / file, (out / file).read_bytes())
        return {file: checksum(out / file) for file in figure["files"]}


def redraw(root, jobs=1):
    """Draw every figure of every manifest again in its place, and note the new checksums."""
    with worker_pool(jobs) as pool:
        for name, manifest in all_manifests(root).items():
            folder = root / "figures" / name
            figures = {stem: figure for stem, figure in manifest["figures"].items() if figure["files"]}
            folders = [folder for _ in figures]
            for stem, sums in zip(figures, pool.map(redraw_figure, figures.values(), folders)):
                changed = [file for file in sums if sums[file] != manifest["files"].get(file)]
                print(f"{name}/{stem}  {', '.join(changed) or 'as before'}", flush=True)
                manifest["files"].update(sums)
            save_manifest(folder, manifest)
