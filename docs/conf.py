"""The web site: Sphinx reads the notebooks in nbs/ as they are, executes nothing and loads nothing remote."""

import configparser
import shutil
import sys
from importlib.metadata import distribution
from pathlib import Path

import myst_nb.sphinx_ext

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE / "extensions"), str(ROOT)]

settings = configparser.ConfigParser(interpolation=None)
settings.read(ROOT / "settings.ini")
address = settings["DEFAULT"]["git_url"]
repository_address = (
    "" if ".invalid" in address else address
)  # until it has one, files are linked as downloads

project, author = "WiSE-ALE, as a paper you can run", "the wiseale_nb authors"
release = version = settings["DEFAULT"]["version"]
copyright = f"{settings['DEFAULT']['copyright']}; Apache-2.0"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
]
extensions += ["notebooks", "equations", "reference", "pages"]  # in docs/extensions

# The source folder is the project's root, so that a page's links are those of its file.
root_doc = "docs/index"
include_patterns = ["nbs/*.ipynb", "docs/*.md", "docs/api/*.md", "CHANGELOG.md", "CONTRIBUTING.md"]
exclude_patterns = [
    ".*",
    "_docs",
    "runs",
    "data",
    "figures",
    "tests",
    "tools",
    "wiseale_nb",
    "**.ipynb_checkpoints",
]

html_theme, html_title = "furo", "wiseale_nb"
html_static_path, html_css_files = ["_static"], ["site.css"]
html_js_files = [("search_from_file.js", {"priority": 600}), ("site.js", {"defer": "defer"})]
html_sourcelink_suffix = ""  # a notebook is copied under its own name
html_last_updated_fmt = None

mathjax_path = "tex-svg.js"
mathjax_options = {"defer": "defer"}
# No menu and no accessibility tree: those would load more files.
mathjax3_config = {"options": {"enableMenu": False, "enableAssistiveMml": False}}

nb_execution_mode = "off"
myst_nb.sphinx_ext.OUTPUT_FOLDER = "_docs/.outputs"  # pictures of the notebooks; by default beside _docs
nb_render_text_lexer = "none"
nb_render_markdown_format = "myst"
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_dmath_double_inline = True
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # those of PyTorch are about other things
python_maximum_signature_line_length = 80
add_module_names = False
suppress_warnings = ["mystnb.unknown_mime_type"]


def copy_mathjax(app):
    """MathJax from the Python package that has it, so that no page needs the network."""
    file = "mathjax/static/mathjax/es5/tex-svg.js"
    target = Path(app.outdir, "_static", "tex-svg.js")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(distribution("django-static-mathjax").locate_file(file), target)


def setup(app):
    app.add_config_value("repository_address", repository_address, "env")
    app.connect("builder-inited", copy_mathjax)
