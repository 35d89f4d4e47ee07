"""The command `wiseale-run`: papermill's words, but unknown and mistyped parameters are refused."""

import argparse
import signal
import sys
from pathlib import Path

from wiseale_tools import CallError
from wiseale_tools.process import end_with_parent

PARAMETER = ("-p", "--parameters", "-r", "--parameters_raw")  # papermill's names
USAGE = """wiseale-run NOTEBOOK OUTPUT [-p NAME VALUE]... [-y YAML]... [-f FILE]... [--quiet]
       wiseale-run NOTEBOOK --list"""
AFTER = """-p NAME VALUE, --parameters NAME VALUE: set a parameter; may be repeated, and wins over -y, which
wins over -f. A value is read as the type of the parameter's default, so papermill's -r does the same as -p.
The kernel is always the Python that runs this command; papermill's other options do not exist here."""


def take_parameters(words, parser):
    """Part the command line into parameters and the rest.

    argparse would take a value such as -1e-3 for an option, so these words never reach it.
    """
    rest = []
    given = {}
    words = iter(words)
    for word in words:
        if word not in PARAMETER:
            rest.append(word)
            continue
        name, value = next(words, None), next(words, None)
        if value is None:
            parser.error(f"{word} needs a name and a value")
        given[name] = value
    return given, rest


def command_line():
    """The parser, without the parameters."""
    what = "Run a notebook with papermill, refusing unknown or mistyped parameters."
    options = {"usage": USAGE, "description": what, "epilog": AFTER, "allow_abbrev": False}
    parser = argparse.ArgumentParser("wiseale-run", **options)
    parser.add_argument("notebook", help="notebook with one cell tagged 'parameters'")
    parser.add_argument("output", nargs="?", help="where the executed notebook goes")
    repeated = {"action": "append", "default": []}
    parser.add_argument("-y", "--parameters_yaml", metavar="YAML", help="parameters as YAML", **repeated)
    parser.add_argument("-f", "--parameters_file", metavar="FILE", help="a file of them", **repeated)
    parser.add_argument("-k", "--kernel", choices=["python3"], help="for papermill's sake: no other exists")
    parser.add_argument("--list", action="store_true", help="list the notebook's parameters and exit")
    parser.add_argument("--quiet", action="store_true", help="print only errors")
    key = "what the notebook's data depend on; it draws from them if they were computed under the same key"
    parser.add_argument("--key", help=key)
    parser.add_argument("--parent", type=int, metavar="PID", help="end when this process, the parent, ends")
    return parser


def read_parameters(args):
    """What the files and the YAML of the command line give, in papermill's order."""
    from wiseale_tools.notebook import read_yaml  # here, because a plain `pip install` lacks papermill

    given = {}
    for file in args.parameters_file:
        try:
            given |= read_yaml(Path(file).read_text(encoding="utf-8"), file)
        except (OSError, UnicodeDecodeError) as error:
            raise CallError(f"cannot read {file}: {error}") from None
    for text in args.parameters_yaml:
        given |= read_yaml(text, "what -y is given")
    return given


def run(args, given, parser):
    """Do what the parsed command line asks for."""
    from wiseale_tools import notebook

    if args.list:
        for name, p in notebook.notebook_parameters(args.notebook).items():
            print(f"{name} = {p['default']!r}  # {p['help']}")
        return
    if not args.output:
        parser.error("name a file for the executed notebook")
    key_file = Path(args.output).with_suffix(".key")
    given = read_parameters(args) | given
    if args.key:
        given = {"redraw": str(holds(key_file, args.key))} | given
    values = notebook.notebook_values(args.notebook, given)
    if args.key and not values["redraw"]:
        key_file.unlink(missing_ok=True)  # from here until the end the data are of no key
    notebook.run_notebook(args.notebook, args.output, values, log=not args.quiet, tell=not args.quiet)
    if args.key:
        key_file.write_text(args.key)


def holds(path, text):
    """Whether a file is there and holds this text."""
    return path.is_file() and path.read_text() == text


def main(words=None):
    """Returns the exit code: 0 done, 1 the notebook failed, 2 a mistake in the call."""
    parser = command_line()
    given, rest = take_parameters(sys.argv[1:] if words is None else words, parser)
    args = parser.parse_args(rest)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwind, so that the kernel is shut down too
    if args.parent:
        end_with_parent(args.parent)
    try:
        run(args, given, parser)
    except ImportError as error:
        print(f"wiseale-run: {error.name} is missing; install wiseale-nb[figures]", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except (CallError, RuntimeError) as error:
        print(f"wiseale-run: {error}", file=sys.stderr)
        return 2 if isinstance(error, CallError) else 1
    return 0
