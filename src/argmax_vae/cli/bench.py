"""`argmax-vae bench`: steps per second."""

import argparse
from pathlib import Path

from argmax_vae.errors import DONE, UsageError
from argmax_vae.files import require_file_name

SUMMARY = "measure steps per second of the dense and the fast path"
EXAMPLES = """\
  argmax-vae bench
  argmax-vae bench --latents 20x10 --seeds 1 16 --estimators direct --output results/speed.csv
  argmax-vae bench --eager --model linear mixture --estimators all --seeds 1 10 64
  argmax-vae bench --overhead --output results/overhead.csv
"""


def add_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--seconds", type=float, default=1.0, help="time per measurement (default: 1)")
    verb.add_argument("--model", nargs="+", default=["linear"], help="linear (default), deep, mixture, attributes")
    verb.add_argument("--latents", nargs="+", default=[], metavar="NxK", help="(default: those of the model's table)")
    verb.add_argument("--seeds", nargs="+", type=int, default=[1], metavar="S", help="how many at once (default: 1)")
    verb.add_argument(
        "--estimators", nargs="+", default=["direct", "gumbel_softmax"], metavar="NAME", help="or all (default: two)"
    )
    verb.add_argument("--eager", action="store_true", help="without torch.compile")
    verb.add_argument("--precision", default="float32", help="of products: float32 (default), tf32, bfloat16")
    verb.add_argument("--add", action="store_true", help="keep the rows of --output, and measure what it lacks")
    verb.add_argument("--overhead", action="store_true", help="the cost of bookkeeping and trackers instead")
    verb.add_argument("--output", type=Path, metavar="FILE", help="also write a csv, such as results/speed.csv")


def run(given: argparse.Namespace) -> int:
    if given.output:
        require_file_name(given.output, "bench --output")
    if given.overhead:
        from argmax_vae.commands.overhead import run_overhead

        run_overhead(given.output)
        return DONE
    from argmax_vae.commands.bench import run_bench

    if min(given.seeds) < 1 or not given.seconds > 0:
        raise UsageError(f"bench: --seeds {given.seeds} must be at least 1, --seconds {given.seconds} more than 0")
    run_bench(
        given.latents,
        given.seeds,
        given.seconds,
        given.output,
        not given.eager,
        given.estimators,
        given.model,
        given.precision,
        given.add,
    )
    return DONE
