"""`argmax-vae search`: values that are best on validation."""

import argparse

from argmax_vae.cli.common import add_config_directory, add_results
from argmax_vae.errors import DONE, SOME_FAILED

SUMMARY = "search over values on validation, with Optuna"
EXAMPLES = """\
  argmax-vae search train data=digits seeds=[100] trainer.epochs=20 'estimator.epsilon.value=tag(log,interval(0.01,1))'
  argmax-vae search train experiment=written_gumbel_softmax seeds=[100] trainer.epochs=20 --trials 30 --name tau \\
      'estimator.temperature.value=interval(0.05,1)' 'optim.learning_rate=tag(log,interval(1e-4,1e-2))'
"""


def add_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("config", help="primary config that the trials start from, such as train")
    verb.add_argument("overrides", nargs="*", help="values that stay, and spaces such as 'KEY=interval(0,1)'")
    add_config_directory(verb)
    verb.add_argument("--name", help="of the search in searches.csv (default: that of the config)")
    verb.add_argument("--trials", type=int, default=20, help="how many (default: 20)")
    verb.add_argument("--metric", default="validation_bound", help="or validation_accuracy, for models with labels")
    verb.add_argument("--sampler-seed", type=int, default=0, metavar="N", help="of what is proposed (default: 0)")
    add_results(verb)


def run(given: argparse.Namespace) -> int:
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
