"""Running the notebooks: one by one, all of them in order, and again to see whether the same comes out.

This is tooling beside the library `wiseale_nb`, which never imports it. Two commands come from here:
`wiseale-run` (run.py) executes one notebook, `wiseale-pipeline` (pipeline.py) everything else.
"""


class CallError(ValueError):
    "A mistake in the call of a command: it is told in one line, and nothing has been changed."
