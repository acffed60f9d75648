"""The command line: verbs that parse arguments, call one function each, and turn errors into one line.

Nothing heavy is imported before a verb needs it, so --help and report answer at once.
Exit codes: 0 done, 1 some cells failed, 2 bad usage or configuration, 130 interrupted (the same command goes on), 141
nobody read what the command is there to print.
"""

import argparse
import sys
from pathlib import Path
from typing import TypeAlias

from argmax_vae import __version__, interruption, streams
from argmax_vae.errors import UsageError
from argmax_vae.files import require_file_name, require_working_directory, usable_path

DONE, SOME_FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130
WRITE_FILES = ("train", "reproduce", "search", "gradients")
"""The verbs that are there for the files that they write; what others print is their answer."""


def parser() -> argparse.ArgumentParser:
    """All verbs with their examples."""
    top = argparse.ArgumentParser(
        prog="argmax-vae",
        description="Train and compare gradient estimators for discrete variational auto-encoders.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Each verb has its own --help with examples.",
    )
    top.add_argument("--version", action="version", version=f"argmax-vae {__version__}")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    add_training(verbs)
    add_reading(verbs)
    return top


Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_training(verbs: Verbs) -> None:
    """The verbs that train or measure."""
    train = add(verbs, "train", "train one run, or a sweep of runs with -m", TRAIN_EXAMPLES)
    train.add_argument("overrides", nargs="*", help="group=option or key=value; with -m values may be comma-separated")
    train.add_argument(
        "-m", "--multirun", action="store_true", help="train every combination of comma-separated values"
    )
    train.add_argument(
        "--config-name",
        default="train",
        metavar="NAME",
        help="primary config (default: train), or a run",
    )
    train.add_argument("--cfg", choices=["job"], help="print the composed configuration and stop")
    train.add_argument("--dry-run", action="store_true", help="list the runs and their state, train nothing")
    add_directory(train)

    reproduce = add(verbs, "reproduce", "train all cells of a table, then write it", REPRODUCE_EXAMPLES)
    reproduce.add_argument("table", help="primary config of the table, such as figure2, or a list of cells, NAME.txt")
    reproduce.add_argument("overrides", nargs="*", help="overrides for every cell, such as trainer.epochs=10")
    reproduce.add_argument("--dry-run", action="store_true", help="list the cells and their state, train nothing")
    reproduce.add_argument(
        "--train-only",
        action="store_true",
        help="write no rows and tables; `runs --collect` does that later, elsewhere",
    )
    add_directory(reproduce)

    search = add(verbs, "search", "search over values on validation, with Optuna", SEARCH_EXAMPLES)
    search.add_argument("config", help="primary config that the trials start from, such as train")
    search.add_argument("overrides", nargs="*", help="values that stay, and spaces such as 'KEY=interval(0,1)'")
    add_directory(search)
    search.add_argument("--name", help="of the search in searches.csv (default: that of the config)")
    search.add_argument("--trials", type=int, default=20, help="how many (default: 20)")
    search.add_argument("--metric", default="validation_bound", help="or validation_accuracy, for models with labels")
    search.add_argument("--sampler-seed", type=int, default=0, metavar="N", help="of what is proposed (default: 0)")
    search.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="files of record")

    evaluate = add(verbs, "evaluate", "evaluate the best networks of a finished run again", EVALUATE_EXAMPLES)
    evaluate.add_argument("run", type=Path, help="directory of a run")
    evaluate.add_argument(
        "overrides",
        nargs="*",
        help="trainer.final_samples, .importance_samples or .evaluation_batch, runtime.device, paths.data: KEY=VALUE",
    )

    gradients = add(verbs, "gradients", "measure every estimator's gradient on a trained model", GRADIENTS_EXAMPLES)
    gradients.add_argument("target", metavar="RUN_OR_CONFIG", help="directory of a run, or primary config to train")
    gradients.add_argument("overrides", nargs="*", help="such as laboratory.repeats=100; any key for a config")
    add_directory(gradients)

    bench = add(verbs, "bench", "measure steps per second of the dense and the fast path", BENCH_EXAMPLES)
    bench.add_argument("--seconds", type=float, default=1.0, help="time per measurement (default: 1)")
    bench.add_argument("--model", nargs="+", default=["linear"], help="linear (default), deep, mixture, attributes")
    bench.add_argument("--latents", nargs="+", default=[], metavar="NxK", help="(default: those of the model's table)")
    bench.add_argument("--seeds", nargs="+", type=int, default=[1], metavar="S", help="how many at once (default: 1)")
    bench.add_argument(
        "--estimators", nargs="+", default=["direct", "gumbel_softmax"], metavar="NAME", help="or all (default: two)"
    )
    bench.add_argument("--eager", action="store_true", help="without torch.compile")
    bench.add_argument("--precision", default="float32", help="of products: float32 (default), tf32, bfloat16")
    bench.add_argument("--add", action="store_true", help="keep the rows of --output, and measure what it lacks")
    bench.add_argument("--overhead", action="store_true", help="the cost of bookkeeping and trackers instead")
    bench.add_argument("--output", type=Path, metavar="FILE", help="also write a csv, such as results/speed.csv")


def add_directory(verb: argparse.ArgumentParser) -> None:
    """Let a verb take configs and options of the user's own."""
    verb.add_argument("--config-dir", metavar="DIR", help="directory with further configs and options of groups")


def add_reading(verbs: Verbs) -> None:
    """The verbs that read what is there."""
    runs = add(verbs, "runs", "list runs: their state, what they differ in, and their results", RUNS_EXAMPLES)
    runs.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="directory of the runs")
    only = runs.add_mutually_exclusive_group()
    only.add_argument("--failed", action="store_true", help="only failed runs, with the last line of their traceback")
    only.add_argument(
        "--missing", metavar="TABLE", help="only cells of this table, or list of cells, that are not done"
    )
    only.add_argument(
        "--collect", metavar="TABLE", help="put the finished cells of this table, or list, into the files of record"
    )
    runs.add_argument("--sort", default="name", metavar="BY", help="name (default), bound, accuracy, epochs or time")
    runs.add_argument("--format", default="text", help="text (default), csv, md or tex")
    runs.add_argument("overrides", nargs="*", help="those that the cells were trained with, such as trainer.epochs=10")
    runs.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="files of record")

    sync = add(verbs, "sync", "upload what wandb recorded offline", SYNC_EXAMPLES)
    sync.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="directory of the runs")
    sync.add_argument("--dry-run", action="store_true", help="list what would be uploaded, upload nothing")

    report = add(verbs, "report", "write or check a table from results/runs.csv", REPORT_EXAMPLES)
    report.add_argument("table", help="such as figure2; a name that is not known is answered with those that are")
    report.add_argument("--format", choices=["md", "tex", "csv"], help="print the table instead of writing files")
    report.add_argument("--check", action="store_true", help="compare the written table with a regenerated one")
    report.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="files of record")

    page = add(verbs, "page", "write all tables, curves and generated images as one HTML file", PAGE_EXAMPLES)
    page.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="files of record")
    page.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="runs to list, where there are any"
    )
    page.add_argument(
        "--output", type=Path, metavar="FILE", help="(default: report.html in the directory of --results)"
    )

    compare = add(verbs, "compare", "compare two or more finished runs on paired seeds", COMPARE_EXAMPLES)
    compare.add_argument("a", type=Path, metavar="RUN_A", help="directory of a run")
    compare.add_argument("b", type=Path, metavar="RUN_B", help="directory of another")
    compare.add_argument("more", type=Path, nargs="*", metavar="RUN", help="of more: a table, the best first")
    compare.add_argument("--metric", default="test_bound", help="a column of seeds.csv (default: test_bound)")
    compare.add_argument("--output", type=Path, metavar="FILE.svg", help="also draw two runs")


def add(verbs: Verbs, name: str, summary: str, examples: str) -> argparse.ArgumentParser:
    return verbs.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog="examples:\n" + examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


TRAIN_EXAMPLES = """\
  argmax-vae train data=digits trainer.epochs=50 seeds=[0,1,2]
  argmax-vae train estimator=gumbel_softmax schedule@estimator.temperature=constant model.latents=20x2
  argmax-vae train -m estimator=direct,gumbel_softmax model.latents=20x10,20x2
  argmax-vae train estimator=exact model.latents=1x40 tracker=wandb
  argmax-vae train --cfg job experiment=released_direct
"""
REPRODUCE_EXAMPLES = """\
  argmax-vae reproduce figure2 --dry-run
  argmax-vae reproduce figure2 paths.data=/data/torchvision
  argmax-vae reproduce figure2 trainer.epochs=10 model.latents=20x2
  argmax-vae reproduce scripts/gpu/figure2.txt
"""
SEARCH_EXAMPLES = """\
  argmax-vae search train data=digits seeds=[100] trainer.epochs=20 'estimator.epsilon.value=tag(log,interval(0.01,1))'
  argmax-vae search train experiment=written_gumbel_softmax seeds=[100] trainer.epochs=20 --trials 30 --name tau \\
      'estimator.temperature.value=interval(0.05,1)' 'optim.learning_rate=tag(log,interval(1e-4,1e-2))'
"""
EVALUATE_EXAMPLES = """\
  argmax-vae evaluate runs/mnist-linear-20x10-direct-kl_none-0123456789
  argmax-vae evaluate runs/mnist-linear-20x10-direct-kl_none-0123456789 trainer.importance_samples=100
"""
GRADIENTS_EXAMPLES = """\
  argmax-vae gradients figure1
  argmax-vae gradients runs/mnist-linear-20x10-direct-kl_none-0123456789 laboratory.images=20
  argmax-vae gradients train data=digits model.latents=2x4 trainer.epochs=20 laboratory.repeats=100
"""
RUNS_EXAMPLES = """\
  argmax-vae runs
  argmax-vae runs --sort bound
  argmax-vae runs --runs /scratch/runs --format tex
  argmax-vae runs --failed
  argmax-vae runs --missing figure2
  argmax-vae runs --collect figure2 --runs /scratch/runs
  argmax-vae runs --collect figure2 --runs /scratch/runs trainer.epochs=400 seeds=[0,1,2,3,4,5,6,7,8,9]
"""
SYNC_EXAMPLES = """\
  argmax-vae train data=digits tracker=wandb
  argmax-vae sync --dry-run
  argmax-vae sync --runs /scratch/runs
"""
REPORT_EXAMPLES = """\
  argmax-vae report figure2
  argmax-vae report figure2 --format md
  argmax-vae report figure2 --check
"""
PAGE_EXAMPLES = """\
  argmax-vae page
  argmax-vae page --runs /scratch/runs --output report.html
"""
COMPARE_EXAMPLES = """\
  argmax-vae compare runs/mnist-linear-20x2-direct-kl_none-0123456789 runs/mnist-linear-20x2-arm-kl_none-0123456789
  argmax-vae compare runs/A runs/B --metric test_kl --output difference.svg
  argmax-vae compare runs/*20x2*
"""
BENCH_EXAMPLES = """\
  argmax-vae bench
  argmax-vae bench --latents 20x10 --seeds 1 16 --estimators direct --output results/speed.csv
  argmax-vae bench --eager --model linear mixture --estimators all --seeds 1 10 64
  argmax-vae bench --overhead --output results/overhead.csv
"""


def main(arguments: list[str] | None = None) -> int:
    """Run a verb and return its exit code. Without arguments this is the command line of the process."""
    if arguments is None:
        streams.protect()
        interruption.listen()
    try:
        given = parsed(arguments)
        verb = {
            "train": train_verb,
            "reproduce": reproduce_verb,
            "search": search_verb,
            "evaluate": evaluate_verb,
            "gradients": gradients_verb,
            "runs": runs_verb,
            "sync": sync_verb,
            "report": report_verb,
            "page": page_verb,
            "compare": compare_verb,
            "bench": bench_verb,
        }[given.verb]
        code = verb(given)
        return code if given.verb in WRITE_FILES else streams.exit_code(code)
    except UsageError as error:
        print(f"argmax-vae: {error}", file=sys.stderr)
        return BAD_USAGE
    except KeyboardInterrupt as interrupted:
        kept = str(interrupted) or "the same command goes on from what the runs keep"
        print(f"argmax-vae: interrupted; {kept}", file=sys.stderr)
        return INTERRUPTED


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The arguments, overrides allowed behind options too, which argparse alone does not take."""
    top = parser()
    given, rest = top.parse_known_args(arguments)
    if rest and ("overrides" not in given or any(argument.startswith("-") for argument in rest)):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        given.overrides += rest
    require_working_directory()
    for name, value in vars(given).items():
        if isinstance(value, Path):
            setattr(given, name, usable_path(value, f"--{name}"))
    if getattr(given, "config_dir", None):
        from argmax_vae.config.stored import text

        given.overrides.insert(0, f"hydra.searchpath=[{text(str(Path(given.config_dir).absolute()))}]")
    return given


def train_verb(given: argparse.Namespace) -> int:
    from argmax_vae.commands import sweep

    if given.cfg:
        print(sweep.composed_yaml(given.config_name, given.overrides), end="")
        return DONE
    return sweep.launch(given.config_name, given.overrides, given.multirun, given.dry_run)


def reproduce_verb(given: argparse.Namespace) -> int:
    from argmax_vae.commands import sweep
    from argmax_vae.report.gradients import FIGURES

    if given.table in FIGURES and not given.dry_run:
        from argmax_vae.commands.gradients import measure_gradients

        return measure_gradients(given.table, given.overrides)
    return sweep.reproduce(given.table, given.overrides, given.dry_run, given.train_only)


def search_verb(given: argparse.Namespace) -> int:
    from argmax_vae.commands.search import search

    found = search(
        given.config,
        given.overrides,
        given.name or given.config,
        given.trials,
        given.metric,
        given.sampler_seed,
        given.results,
    )
    print(found[["trial", "choices", "score", "winner"]].to_string(index=False))
    return DONE if found["winner"].any() else SOME_FAILED


def evaluate_verb(given: argparse.Namespace) -> int:
    from argmax_vae.commands.evaluate import evaluate_run

    print(evaluate_run(given.run, given.overrides).to_string(index=False))
    return DONE


def gradients_verb(given: argparse.Namespace) -> int:
    from argmax_vae.commands.gradients import measure_gradients

    return measure_gradients(str(usable_path(given.target, "RUN_OR_CONFIG")), given.overrides)


def runs_verb(given: argparse.Namespace) -> int:
    if given.overrides and not (given.missing or given.collect):
        raise UsageError(f"runs: {given.overrides[0]} needs --missing TABLE or --collect TABLE")
    if given.missing or given.collect:
        from argmax_vae.commands import sweep

        if given.missing:
            lines = sweep.missing(given.missing, given.overrides, given.runs)
        else:
            lines = sweep.collect_finished(given.collect, given.overrides, given.runs, given.results)
        for line in lines:
            print(line)
        return DONE
    from argmax_vae.runs.directory import scan

    found = scan(given.runs)
    if not found:
        print(f"argmax-vae: no runs in {given.runs}", file=sys.stderr)
    from argmax_vae.report import sweeps

    shown = [run for run in found if not given.failed or run.status == "failed"]
    if shown:
        print(sweeps.table(sweeps.sorted_rows(sweeps.rows_of_runs(shown), given.sort), given.format), end="")
    return DONE


def sync_verb(given: argparse.Namespace) -> int:
    import subprocess

    from argmax_vae.runs.wandb_access import offline_runs, online_problem

    found = offline_runs(given.runs)
    for path in found:
        print(path)
    if not found:
        print(f"argmax-vae: nothing of wandb's to upload in {given.runs}", file=sys.stderr)
    if given.dry_run or not found:
        return DONE
    if problem := online_problem():
        print(f"argmax-vae: nothing is uploaded: {problem}", file=sys.stderr)
        return SOME_FAILED
    done = subprocess.run([sys.executable, "-m", "wandb", "sync", *map(str, found)], check=False)
    return DONE if done.returncode == 0 else SOME_FAILED


def report_verb(given: argparse.Namespace) -> int:
    from argmax_vae.report.publish import publisher

    reporter = publisher(given.table)
    if given.check:
        differences = reporter.check(given.table, given.results)
        for line in differences:
            print(line, file=sys.stderr)
        return SOME_FAILED if differences else DONE
    if given.format:
        print(reporter.rendered(given.table, given.results, given.format), end="")
        return DONE
    for path in reporter.write(given.table, given.results):
        print(path)
    return DONE


def page_verb(given: argparse.Namespace) -> int:
    from argmax_vae.report.page import page
    from argmax_vae.runs.directory import scan

    runs, default = scan(given.runs), {}
    if runs:
        from argmax_vae.config.compose import cells

        default = cells("train", [])[0].plain
    output = given.output or given.results / "report.html"
    require_file_name(output, "--output")
    page.write(given.results, runs, default, output)
    print(output)
    return DONE


def compare_verb(given: argparse.Namespace) -> int:
    from argmax_vae.report import comparison

    if given.output:
        require_file_name(given.output, "--output")
    if given.more:
        if given.output:
            raise UsageError(f"--output {given.output}: two runs are drawn, not {2 + len(given.more)}")
        print(comparison.compare_all([given.a, given.b, *given.more], given.metric))
        return DONE
    found = comparison.compare(given.a, given.b, given.metric)
    if given.output:
        comparison.write(found, given.output)
    print(comparison.text(found))
    return DONE


def bench_verb(given: argparse.Namespace) -> int:
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


if __name__ == "__main__":
    sys.exit(main())
