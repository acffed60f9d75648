"""Trains one run from its configuration: builds the parts, fits, evaluates the best networks, writes the files."""

import io
import logging
import math
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.utilities.warnings import PossibleUserWarning

from argmax_vae import interruption, joining, neighbours, runs
from argmax_vae.attribute_vae import AttributeVAE, check_shape
from argmax_vae.checkpoints import load_checkpoint
from argmax_vae.checks import require
from argmax_vae.data.datasets import Dataset, is_present
from argmax_vae.data.index_blocks import EvaluationBlocks, TrainingBlocks, loader
from argmax_vae.errors import UsageError
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.files import claimed, require_writable, write_atomic
from argmax_vae.mixture import AttributeConfig, GaussianMixtureConfig
from argmax_vae.mixture_vae import MixtureVAE, check_labels
from argmax_vae.modules import DiscreteVAE
from argmax_vae.pictures import pictures_of, stored_pictures
from argmax_vae.processes import WHOLE, Part, SharedBatches, in_processes
from argmax_vae.progress import Progress
from argmax_vae.randomness import chosen_noise
from argmax_vae.runs import RunDirectory
from argmax_vae.saving import Record, SaveLast, Snapshot, kept
from argmax_vae.schema import Config
from argmax_vae.tracking import RunLabels, Tracker, check_tracker, open_tracker

CLAIM_SECONDS = 0.5
"""How long to wait for a claim: longer than a look at a run's status takes, which holds it too."""
HISTORY_COLUMNS = ("epoch", "seed", "validation_bound", "test_bound")


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's advice: about data-loader workers, its own deprecations, and products of its makers."""
    loggers = {name: logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")}
    levels = {name: logger.level for name, logger in loggers.items()}
    for logger in loggers.values():
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=PossibleUserWarning)
            warnings.filterwarnings("ignore", module="pytorch_lightning.*")
            yield
    finally:
        for name, logger in loggers.items():
            logger.setLevel(levels[name])


def device_of(requested: str, processes: int = 1) -> str:
    """cpu or cuda. Raises UsageError when cuda is asked for and absent, or has fewer devices than processes."""
    available = torch.cuda.is_available()
    if requested == "cuda" and not available:
        raise UsageError("runtime.device=cuda: this machine has no CUDA device; use auto or cpu")
    device = "cuda" if available and requested != "cpu" else "cpu"
    if device == "cuda":
        require(processes <= torch.cuda.device_count(), "runtime.processes", processes, "at most the CUDA devices")
    return device


def build(config: Config, dataset: Dataset, part: Part = WHOLE) -> DiscreteVAE:
    """The module that a configuration describes, for the process that trains on this part of every batch.

    From then on cuDNN keeps the 23 bits of float32 in convolutions, which it would round to 10: runtime.precision says
    of what precision they are.
    """
    torch.backends.cudnn.allow_tf32 = False
    parts: dict[str, Any] = {
        "binarization": config.data.binarization,
        "model": config.model,
        "estimator": ESTIMATORS[config.estimator.name](config.estimator),
        "objective_config": config.objective,
        "optim": config.optim,
        "trainer_config": config.trainer,
        "runtime": config.runtime,
        "seeds": list(config.seeds),
        "part": part,
    }
    if isinstance(config.model, AttributeConfig):
        return AttributeVAE(dataset, config.supervision, attributes=config.data.attribute_names, **parts)
    if isinstance(config.model, GaussianMixtureConfig):
        return MixtureVAE(dataset, config.supervision, **parts)
    return DiscreteVAE(dataset, **parts)


def lightning_trainer(
    config: Config, device: str, callbacks: list[pl.Callback], part: Part = WHOLE, saving: Sequence[Any] = ()
) -> pl.Trainer:
    """A Lightning trainer that leaves files, logging and checkpoints to this package, and SLURM's jobs to engines."""
    return pl.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=part.count,
        strategy=SharedBatches() if part.count > 1 else "auto",
        plugins=[LightningEnvironment(), *saving],
        max_epochs=config.trainer.epochs,
        check_val_every_n_epoch=config.trainer.evaluate_every,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        inference_mode=False,
        use_distributed_sampler=False,
        default_root_dir=config.paths.runs,
    )


def evaluation_loaders(config: Config, dataset: Dataset) -> list[Any]:
    """Loaders of the validation and the test split, in this order."""
    return [
        loader(EvaluationBlocks(len(split.pixels), config.trainer.evaluation_batch))
        for split in (dataset.validation, dataset.test)
    ]


def resumable(run: RunDirectory, config_identity: str, continues: RunDirectory | None) -> Path | None:
    """The checkpoint to resume from: the run's last whole one, else that of the shorter run that this one continues.

    Raises UsageError when all are damaged, or another config's.
    """
    own = [path for path in (run.checkpoint, run.previous) if path.exists()]
    for path in own:
        try:
            stored = load_checkpoint(path)
        except UsageError:
            if path == own[-1]:
                raise
            print(f"argmax-vae: {path} is damaged, going on from {own[-1].name}", file=sys.stderr)
            continue
        if stored.get("identity") != config_identity:
            raise UsageError(f"{path} belongs to another configuration; remove {run.path} or change the config")
        return path
    if continues is not None:
        load_checkpoint(continues.checkpoint)
    return continues.checkpoint if continues else None


def prerequisites(config: Config) -> tuple[str, Dataset]:
    """Device and data set of a run. Raises UsageError when one of them, or a place for the run, cannot be had."""
    device = device_of(config.runtime.device, config.runtime.processes)
    rounds = device == "cpu" and config.runtime.precision == "tf32"
    require(not rounds, "runtime.precision", "tf32", "float32 or bfloat16 on a CPU; only CUDA multiplies in tf32")
    require_writable(Path(config.paths.runs))
    check_tracker(config.tracker)
    dataset = config.data.load(Path(config.paths.data))
    images = len(dataset.train.pixels)
    require(
        config.trainer.batch <= images,
        "trainer.batch",
        config.trainer.batch,
        f"at most the {images} training images",
    )
    if isinstance(config.model, AttributeConfig):
        check_shape(dataset, config.model)
    if isinstance(config.model, GaussianMixtureConfig):
        check_labels(dataset, config.supervision, config.model, config.trainer, list(config.seeds))
    return device, dataset


DIGESTS: dict[tuple[str, str], dict[str, int | str]] = {}
"""Digests of the data sets that this process has loaded, by data set and directory."""


def require_same_data(run: RunDirectory, config: Config) -> None:
    """Raise UsageError when a run was trained on other data than those in the data directory, if there are any."""
    directory, key = Path(config.paths.data), (str(config.data), config.paths.data)
    if not run.data or not is_present(config.data.name, directory):
        return
    if key not in DIGESTS:
        DIGESTS[key] = config.data.load(directory).digest
    run.require_data(DIGESTS[key])


def train(config: Config, plain: dict[str, Any]) -> str:
    """Train a run to the end, or go on with it, and return its status: done, diverged, failed, or running elsewhere.

    A run that is done already is left alone, and one with a checkpoint goes on from there. Else one that only has more
    epochs than another goes on where that one ended; else, of one that only has more seeds, the new ones are trained.
    An exception is kept in `error.txt`, except for UsageError and interruption, which go to the caller.
    """
    run = RunDirectory.of(plain)
    run.tidy()
    if run.has_ended:
        require_same_data(run, config)
        return run.status
    device, dataset = prerequisites(config)
    data = DIGESTS[str(config.data), config.paths.data] = dataset.digest
    with interruption.interruptible(), claimed(run.claim, CLAIM_SECONDS) as mine:
        if not mine or run.has_ended:
            return run.status if run.has_ended else "running"
        continues = None
        try:
            noise = config.runtime.noise
            continues = None if run.resumes else neighbours.shorter(plain, data, noise)
            parts = neighbours.Parts({}, []) if run.resumes or continues else neighbours.parts(plain, data, noise)
            config = with_noise(config, device, run if run.resumes else continues or next(iter(parts.found), None))
            if parts.found:
                return train_rest(config, plain, run, parts, data)
            run.start(plain, data, continues, device, config.runtime.noise)
            if config.runtime.processes > 1:
                in_processes(config.runtime.processes, fit_part, config, plain, continues)
                if not run.has_ended:
                    raise KeyboardInterrupt
                return run.status
            return fit(config, plain, run, dataset, device, continues)
        except UsageError:
            raise
        except KeyboardInterrupt as interrupted:
            raise KeyboardInterrupt(str(interrupted) or kept(run, config.trainer.epochs, continues)) from None
        except Exception:
            run.fail(traceback.format_exc())
            return "failed"


def with_noise(config: Config, device: str, begun: RunDirectory | None) -> Config:
    """The configuration with the noise of the run that it goes on with, without one that of `chosen_noise`.

    Raises UsageError when it asks for another than that run has.
    """
    asked = config.runtime.noise
    noise = begun.noise if begun else chosen_noise(asked, device)
    if begun and asked not in ("auto", noise):
        raise UsageError(
            f"runtime.noise={asked} must be auto or {noise}, with which {begun.path} began; remove that directory to "
            f"train with {asked}"
        )
    return replace(config, runtime=replace(config.runtime, noise=noise))


def train_rest(
    config: Config, plain: dict[str, Any], run: RunDirectory, parts: neighbours.Parts, data: dict[str, int | str]
) -> str:
    """Train the seeds that no finished run has, as a run of their own, and join all; returns the status."""
    found = dict(parts.found)
    if parts.missing:
        rest = {**plain, "seeds": parts.missing}
        while (status := train(replace(config, seeds=parts.missing), rest)) == "running":
            time.sleep(CLAIM_SECONDS)
        if status == "failed":
            run.fail(f"seeds {parts.missing}: {RunDirectory.of(rest).reason}")
            return status
        found[RunDirectory.of(rest)] = parts.missing
    done = joining.join(run, plain, found, data)
    track_joined(config, plain, run, str(done["status"]))
    runs.write_json(run.path / "done.json", done)
    return run.status


def fit_part(part: Part, config: Config, plain: dict[str, Any], continues: RunDirectory | None) -> None:
    """`fit` in one of several processes."""
    dataset = config.data.load(Path(config.paths.data))
    fit(config, plain, RunDirectory.of(plain), dataset, device_of(config.runtime.device), continues, part)


def fit(
    config: Config,
    plain: dict[str, Any],
    run: RunDirectory,
    dataset: Dataset,
    device: str,
    continues: RunDirectory | None,
    part: Part = WHOLE,
    callbacks: Sequence[pl.Callback] = (),
) -> str:
    """The training itself, in a directory that exists; of the processes that share a run the first one writes.

    `callbacks` come before this package's own.

    When it is interrupted, the state after the last whole epoch is written. Lightning turns KeyboardInterrupt into
    SystemExit; both leave here as KeyboardInterrupt.
    """
    config_identity = runs.identity(plain)
    checkpoint = resumable(run, config_identity, continues)
    module = build(config, dataset, part)
    tracker = tracker_of(config, plain, run, part)
    outcome = "failed"
    runtime = config.runtime.on(device)
    save_last = SaveLast(run, Snapshot(), runtime)
    try:
        record = Record(run, tracker, config_identity)
        progress = [] if part.rank else [Progress(run.path.name, config.trainer.epochs)]
        with quiet_lightning():
            watching = [*callbacks, record, *progress, save_last]
            trainer = lightning_trainer(config, device, watching, part, [save_last.snapshot])
            blocks = TrainingBlocks(
                len(dataset.train.pixels),
                config.seeds,
                config.trainer.batch,
                runtime.chunk,
                lambda: trainer.current_epoch,
            )
            evaluation = evaluation_loaders(config, dataset)
            trainer.fit(module, loader(blocks), evaluation, ckpt_path=checkpoint, weights_only=True)
            seconds = record.seconds
            trainer.test(module, evaluation[1], verbose=False)
        if part.rank:
            return "done"
        rows = seed_rows(config, module, seconds, device)
        run.write_table("metrics.csv", module.history, columns=HISTORY_COLUMNS)
        run.write_table("seeds.csv", rows)
        if confusion := module.confusion_rows():
            run.write_table("confusion.csv", confusion)
        save_best(run, module, config_identity)
        pictures = pictures_of(module, dataset)
        run.write_picture("samples.png", pictures.samples)
        run.write_picture("reconstructions.png", pictures.reconstructions)
        tracker.finish(rows, pictures)
        status = "diverged" if all(row["status"] == "diverged" for row in rows) else "done"
        done = {"status": status, "seeds": list(config.seeds), "seconds": round(seconds, 3)}
        runs.write_json(run.path / "done.json", done)
        run.previous.unlink(missing_ok=True)
        outcome = status
        return status
    except (SystemExit, KeyboardInterrupt) as error:
        outcome = "interrupted"
        try:
            save_last.write()
        except UsageError as refusal:
            print(f"argmax-vae: {refusal}", file=sys.stderr)
        raise KeyboardInterrupt from error
    finally:
        tracker.close(outcome)


def tracker_of(config: Config, plain: dict[str, Any], run: RunDirectory, part: Part = WHOLE) -> Tracker:
    """The tracker of a run, of which the first of the processes that share it tells."""
    labels = RunLabels(
        name=f"{config.model.latents} {config.estimator.name}, KL {config.objective.kl}"
        + (f", {config.supervision.labels} labels" if config.supervision.labels else ""),
        group=config.table,
        tags=tuple(filter(None, (config.data.name, config.protocol, runs.commit()[0]))),
        config=plain,
        directory=run.path,
    )
    return open_tracker(replace(config.tracker, name="none") if part.rank else config.tracker, labels)


def track_joined(config: Config, plain: dict[str, Any], run: RunDirectory, status: str) -> None:
    """Show the tracker a run that was joined from others, from its files, before it is marked as done."""
    tracker = tracker_of(config, plain, run)
    tables = [run.table(name, ("seed",)) for name in ("metrics.csv", "seeds.csv")]
    history, rows = (cast(list[dict[str, Any]], table.to_dict("records")) for table in tables)
    tracker.log(history)
    tracker.finish(rows, stored_pictures(run.path))
    tracker.close(status)


def save_best(run: RunDirectory, module: DiscreteVAE, config_identity: str) -> None:
    """Write the best networks of each seed as a plain dict of tensors."""
    stream = io.BytesIO()
    torch.save({"identity": config_identity, "networks": module.best.state_dict()}, stream)
    write_atomic(run.best, lambda temporary: temporary.write_bytes(stream.getvalue()))


def seed_rows(config: Config, module: DiscreteVAE, seconds: float, device: str) -> list[dict[str, Any]]:
    """A row of final numbers for every seed; bounds in nats per image, `seconds` those of the whole run.

    A seed diverged when its loss was no longer finite, in the epoch, counted from 1, that is its `epochs`; or when it
    had no finite validation bound at any evaluation, so that none of its networks were kept.
    """
    test = module.results["test"]
    schedule = config.estimator.describe_schedule()
    rows = []
    for index, seed in enumerate(module.seeds):
        diverged_epoch = int(module.diverged_epoch[index])
        diverged = diverged_epoch >= 0 or int(module.best_epoch[index]) < 0
        rows.append(
            {
                "n": config.model.n,
                "k": config.model.k,
                "schedule": schedule,
                "seed": seed,
                "status": "diverged" if diverged else "done",
                "epochs": diverged_epoch + 1 if diverged_epoch >= 0 else config.trainer.epochs,
                "best_epoch": int(module.best_epoch[index]),
                "validation_bound": module.best_bound[index].item(),
                "test_bound": math.nan if diverged else test.bound[index].item(),
                "test_reconstruction": math.nan if diverged else test.reconstruction[index].item(),
                "test_kl": math.nan if diverged else test.kl[index].item(),
                "test_importance_weighted": math.nan if diverged else test.importance_weighted[index].item(),
                "test_codes_in_use": test.in_use[index].double().mean().item(),
                "seconds": round(seconds, 3),
                "steps_per_second": round(int(module.steps_done) / seconds, 2),
                "steps": int(module.steps_done),
                "device": runs.device_name(device),
                "threads": torch.get_num_threads() if device == "cpu" else 0,
                "path": module.path,
                **module.final_columns(index),
            }
        )
    return rows
