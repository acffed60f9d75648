"""`argmax-vae page`: all results as one HTML file."""

import argparse
from pathlib import Path

from argmax_vae.cli.common import add_results
from argmax_vae.errors import DONE
from argmax_vae.files import require_file_name

SUMMARY = "write all tables, curves and generated images as one HTML file"
EXAMPLES = """\
  argmax-vae page
  argmax-vae page --runs /scratch/runs --output report.html
"""


def add_arguments(verb: argparse.ArgumentParser) -> None:
    add_results(verb)
    verb.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="runs to list, where there are any"
    )
    verb.add_argument(
        "--output", type=Path, metavar="FILE", help="(default: report.html in the directory of --results)"
    )


def run(given: argparse.Namespace) -> int:
    from argmax_vae.report.page import page
    from argmax_vae.runs.directory import scan

    runs, default = scan(given.runs), {}
    if runs:
        from argmax_vae.config.compose import cells

        default = cells("train", [])[0].config_dict
    output = given.output or given.results / "report.html"
    require_file_name(output, "--output")
    page.write(given.results, runs, default, output)
    print(output)
    return DONE
