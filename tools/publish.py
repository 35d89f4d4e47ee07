"""Make what was trained and drawn here the committed figures: a command for maintainers."""

from pathlib import Path

from wiseale_nb.core import atomic_write
from wiseale_tools import CallError
from wiseale_tools.manifest import folder_entries, write_manifest
from wiseale_tools.rules import data_state, executed


def check_state(entry, datasets):
    """`CallError` if a figure's data were computed by other code, or from other runs, than are there now."""
    key = Path(executed(entry)).with_suffix(".key")
    if key.is_file() and key.read_text() != data_state(entry, datasets):
        raise CallError(
            f"{entry.stem} is not current; run `make figures` or `make studies`, then publish again"
        )


def publish(folder, root, datasets=""):
    """Copy the figures of a folder from runs/ to figures/ and record them; returns the manifest's path.

    All figures of a profile have to be there; of the studies those are copied that are. `make bench` keeps no
    key, since times cannot be computed again.
    """
    copies = {}
    for entry in folder_entries(folder, datasets):
        made, committed = entry.made_in(root), entry.folder_in(root)
        files = entry.data + entry.pictures
        missing = [file for file in files if not (made / file).is_file()]
        if missing and entry.size:
            continue
        if missing:
            raise CallError(f"{made} lacks {', '.join(missing)}; `make figures` draws it")
        check_state(entry, datasets)
        copies |= {committed / file: made / file for file in files}
    if not copies:
        raise CallError(f"there is nothing to publish in figures/{folder}; make it first")
    for target, source in copies.items():
        atomic_write(target, source.read_bytes())
    return write_manifest(folder, root, datasets)
