"""What the pages in docs/ show from the project's data: galleries, the table of claims, and the explorer."""

import json
import re
import shutil
from functools import cache
from pathlib import Path

from costs import cost_rows
from figure_files import all_figures, downloads, figures_of, picture

from wiseale_nb.claims import read_claims
from wiseale_nb.claims_tables import read_tables
from wiseale_nb.claims_text import reasons
from wiseale_nb.figures import figure_job
from wiseale_nb.verdicts import judge

EXPLORER = "42_explorer"  # makes a page of its own


def heading(root, notebook):
    """A notebook's title and its one-sentence description."""
    first = "".join(json.loads((root / f"nbs/{notebook}.ipynb").read_text())["cells"][0]["source"])
    title, *rest = first.splitlines()
    described = [line.removeprefix("> ") for line in rest if line.startswith("> ")]
    return title.removeprefix("# "), described[0] if described else ""


def gallery(root, kind):
    """A section for each notebook: its title, its description, its picture, its data."""
    shown = [f for f in all_figures().values() if f.study == (kind == "studies") and f.folder != "bench"]
    for notebook in sorted({f.notebook for f in shown if f.notebook != EXPLORER}):
        title, description = heading(root, notebook)
        yield f"## {title}\n\n{description}\n\nNotebook: [`{notebook}`](/nbs/{notebook}.ipynb)\n"
        for name, figure in figures_of(notebook):
            if path := picture(root, name, figure):
                yield f"[![{title}](/{path})](/nbs/{notebook}.ipynb)\n"
            yield "\n".join(f"- {line}" for line in downloads(root, name, figure)) + "\n"


@cache
def judged_claims(profile="paper"):
    """The claims, and the committed tables that they are judged by."""
    known = read_claims()
    return known, read_tables(figure_job("claims", profile=profile, out="", redraw=True), known)


def costs(root):
    """What the numbers behind each claim cost."""
    yield from cost_rows(root, *judged_claims())


def claims(root):
    """A row for each claim, with its verdicts and why."""
    known, tables = judged_claims()
    yield "| Claim | The paper says; what was found with weight 1/M | Weight 1/M | Weight 1 | Control |"
    yield "|---|---|---|---|---|"
    for claim in known.claims:
        judged = [judge(claim, tables, known, method) for method in known.ours]
        verdicts = [judgement.verdict for judgement in judged]
        verdicts = verdicts if claim.is_ours else [verdicts[0], "–", "–"]
        name = f"[{claim.key} {claim.name}](#claim-{claim.key})"
        cells = [name, f"“{claim.quote}” ({claim.where})<br>{reasons(judged[0], known)}", *verdicts]
        yield "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def about(root, notebook):
    """A notebook's description."""
    yield heading(root, notebook)[1]


def explorer_file(root):
    """The explorer's page, the committed one if there is one; None if there is none."""
    places = ("figures/paper", "figures/quick", "figures/*", "runs/paper/figures", "runs/*/figures")
    return next((file for place in places for file in sorted(root.glob(f"{place}/explorer.html"))), None)


def explorer(root, _=None):
    """A link to the explorer, if it has been built."""
    if explorer_file(root):
        yield 'Or <a href="../explorer.html">drag a point through the latent planes</a> of all methods.'


CONTENTS = {
    "The paper": ["/docs/figures", "/nbs/00_derivation", "/nbs/2*"],
    "What came out": [
        "/docs/claims",
        "/nbs/30_*",
        "/docs/studies",
        "/nbs/3[1-9]*",
        "/nbs/4[3-7]*",
        "/nbs/assumptions",
    ],
    "Run it": [
        "Commands, times and folders </nbs/index>",
        "/docs/artifact",
        "/nbs/10_*",
        "/nbs/speed",
        "/nbs/4*",
    ],
    "With other libraries": ["/nbs/5*"],
    "The library": ["/docs/library", "/docs/api/index", "/nbs/0*"],
    "The project": ["/CONTRIBUTING", "/CHANGELOG"],
}


def contents(root):
    """The navigation: every page, each once."""
    listed = set()
    for caption, patterns in CONTENTS.items():
        entries = []
        for pattern in patterns:
            files = sorted(root.glob(f"{pattern[1:]}.ipynb")) if "*" in pattern else []
            entries += [f"/nbs/{file.stem}" for file in files] or [pattern]
        entries = [entry for entry in entries if entry not in listed]
        listed.update(entries)
        options = [":hidden:", ":titlesonly:", f":caption: {caption}", ""]
        yield "\n".join(["```{toctree}", *options, *entries, "```\n"])


PARTS = {part.__name__: part for part in (gallery, claims, costs, about, explorer, contents)}


def fill(app, docname, source):
    """Put the parts where a page has a comment such as `<!-- gallery: paper -->`."""
    if docname.startswith("docs/"):
        root = Path(app.srcdir)

        def part(found):
            return "\n".join(PARTS[found[1]](root, *found[2].split()))

        source[0] = re.sub(rf"<!-- ({'|'.join(PARTS)}):? ?(\w*) -->", part, source[0])


FRONT = """<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>wiseale_nb</title>
<meta http-equiv="refresh" content="0; url=docs/index.html"><a href="docs/index.html">Start</a></html>
"""


def finish(app, exception):
    """The front door of the folder, and the explorer beside it."""
    if exception is None and app.builder.format == "html":
        Path(app.outdir, "index.html").write_text(FRONT)
        if file := explorer_file(Path(app.srcdir)):
            shutil.copyfile(file, Path(app.outdir, "explorer.html"))


def setup(app):
    app.connect("source-read", fill)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
