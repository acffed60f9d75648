"""`argmax-vae reproduce all`: every table in order, searches before the tables that use what they found."""

import sys
from pathlib import Path

from argmax_vae.commands import sweep
from argmax_vae.commands.gradients import measure_gradients
from argmax_vae.errors import BAD_USAGE, DONE, SOME_FAILED, UsageError
from argmax_vae.files import require_writable
from argmax_vae.report import readme
from argmax_vae.report.gradients import FIGURES


def reproduce_all(overrides: list[str], train_only: bool = False) -> int:
    """Reproduce every table, and rewrite the pages that show them; returns the exit code.

    All configurations are checked before anything is trained. A table that cannot be trained, for its data are not
    here, is a line, and the others go on. Raises UsageError.
    """
    selections = sweep.selected(sweep.ALL, overrides)
    results = Path(selections[0][2][0].config.paths.results)
    if not train_only:
        require_writable(results)
        sweep.require_records(results)
    codes = []
    for name, words, found in selections:
        try:
            measured = name in FIGURES and not train_only
            codes.append(
                measure_gradients(name, words)
                if measured
                else sweep.reproduce_selected([(name, words, found)], words, train_only)
            )
        except UsageError as error:
            print(f"argmax-vae: {name}: {error}", file=sys.stderr)
            codes.append(BAD_USAGE)
    if not train_only and readme.pages(results):
        for path in readme.write("readme", results):
            print(path)
    if set(codes) in ({DONE}, {BAD_USAGE}):
        return codes[0]
    return SOME_FAILED
