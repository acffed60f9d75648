"""Evaluates the stored networks of a finished run again, for example with more samples."""

import math
from pathlib import Path

import pandas as pd

from argmax_vae.config.stored import config_of_dict, overridden
from argmax_vae.errors import UsageError
from argmax_vae.runs.checkpoints import load_checkpoint
from argmax_vae.runs.directory import RunDirectory, identity
from argmax_vae.training.build import build, device_of, evaluation_loaders, lightning_trainer, quiet_lightning
from argmax_vae.training.vae import DiscreteVAE

OVERRIDABLE = (
    "trainer.final_samples",
    "trainer.importance_samples",
    "trainer.evaluation_batch",
    "runtime.device",
    "paths.data",
)


def evaluate_run(path: Path, overrides: list[str]) -> pd.DataFrame:
    """Bounds of the best networks of every seed on validation and test, in nats per image; a row per split and seed.

    A seed that diverged has a row without numbers, as in `seeds.csv`. `overrides` may set the keys of OVERRIDABLE.
    Raises UsageError when `path` is no finished run, its networks are damaged or belong to another configuration, the
    data are not those that it was trained on, or an override is unknown.
    """
    run = RunDirectory(path)
    config = config_of_dict(overridden(run.config(), overrides, list(OVERRIDABLE), "evaluate"), run.provenance())
    dataset = config.data.load(Path(config.paths.data))
    run.require_data(dataset.digest)
    module = build(config, dataset)
    load_best(run, module)
    status = run.seeds().set_index("seed")["status"]
    module.final_splits = ("validation", "test")
    with quiet_lightning():
        trainer = lightning_trainer(config, device_of(config.runtime.device), [])
        trainer.test(module, evaluation_loaders(config, dataset), verbose=False)
    rows = []
    for split, evaluation in module.results.items():
        for index, seed in enumerate(module.seeds):
            numbers = {
                "bound": evaluation.bound[index].item(),
                "reconstruction": evaluation.reconstruction[index].item(),
                "kl": evaluation.kl[index].item(),
                "importance_weighted": evaluation.importance_weighted[index].item(),
                "codes_in_use": evaluation.in_use[index].double().mean().item(),
                **{name.removeprefix(f"{split}_"): v for name, v in module.more_metrics(split, index).items()},
            }
            if status[seed] == "diverged":
                numbers = dict.fromkeys(numbers, math.nan)
            rows.append({"split": split, "seed": seed, "status": status[seed], **numbers})
    return pd.DataFrame(rows)


def load_best(run: RunDirectory, module: DiscreteVAE) -> None:
    """Give a module that was built for a finished run the run's best networks, as its `best`.

    Raises UsageError when they are missing, damaged, or belong to another configuration.
    """
    stored = load_checkpoint(run.best, f"remove {run.path} and train again")
    if stored.get("identity") != identity(run.config()):
        raise UsageError(f"{run.best} belongs to another configuration than {run.path / 'config.yaml'}")
    module.best.load_state_dict(stored["networks"])
