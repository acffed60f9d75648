"""`argmax-vae gradients`: trains or loads a run, measures gradients on it, and writes what was measured.

Every setting's rows are kept as soon as they are measured, in `gradients-HASH.csv` in the run's directory, HASH being
that of the run and of what is asked: the same command goes on after the last setting of an interrupted one.
"""

import hashlib
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from argmax_vae.commands.evaluate import load_best
from argmax_vae.commands.sweep import launch_cells, single
from argmax_vae.config.compose import cells
from argmax_vae.config.options import nearest, primary_configs
from argmax_vae.config.schema import Config
from argmax_vae.config.stored import config_of_dict, overridden
from argmax_vae.data.binarization import fixed_sample, prepare
from argmax_vae.errors import UsageError
from argmax_vae.files import claimed, write_csv
from argmax_vae.gradients.measure import Laboratory
from argmax_vae.gradients.settings import LaboratoryConfig, Setting
from argmax_vae.models.layered import LayeredConfig
from argmax_vae.models.mixture import GaussianMixtureConfig
from argmax_vae.report import gradients as report
from argmax_vae.runs.directory import RunDirectory, identity
from argmax_vae.runs.provenance import commit, device_name
from argmax_vae.runs.wandb_access import publish_table
from argmax_vae.training.build import build, device_of

METHOD = "settled on training images"
"""How settings are measured: rows that were kept are those of this method."""
OVERRIDABLE_SECTIONS = ("laboratory", "runtime", "paths", "tracker")


def measure_gradients(target: str, overrides: list[str]) -> int:
    """Measure on a run's directory, or on the run of a primary config, trained first if it is not; the exit code.

    A config whose table is in `report.FIGURES` gets its files in the results directory, unless its laboratory was
    overridden; anything else in the run's.
    Raises UsageError when `target` is neither, an override is unknown, or the run's networks are damaged.
    """
    of_record = kept = False
    if (Path(target) / "config.yaml").is_file():
        run, config = RunDirectory(Path(target)), stored_config(RunDirectory(Path(target)), overrides)
        refuse_mixture(config)
    elif target in primary_configs():
        found = single(cells(target, overrides))
        config, run = found[0].config, RunDirectory.of(found[0].config_dict)
        refuse_mixture(config)
        kept = config.table in report.FIGURES and config.laboratory != cells(target, [])[0].config.laboratory
        of_record = config.table in report.FIGURES and not kept
        code = 0 if run.has_ended else launch_cells(overrides, found)
        if not run.has_ended:
            return code
    else:
        raise UsageError(
            f"{target}: neither a run's directory nor a config{nearest(target, primary_configs())}; "
            f"configs are {', '.join(primary_configs())}, and `argmax-vae runs` lists the runs"
        )
    frame = measured(run, config)
    if of_record:
        results = Path(config.paths.results)
        write_csv(results / f"{config.table}.csv", frame)
        written = [results / f"{config.table}.csv", *report.write(config.table, results)]
    else:
        write_csv(run.path / "gradients.csv", frame)
        written = [run.path / "gradients.csv", *report.write("gradients", run.path)]
        if kept:
            stays = Path(config.paths.results) / f"{config.table}.csv"
            print(f"argmax-vae: laboratory is not that of {target}: {stays} stays, see {written[0]}", file=sys.stderr)
    print(report.summary(frame))
    for path in written:
        print(path)
    if config.tracker.name == "wandb":
        publish_table(config.tracker, config.table if of_record else "gradients", run.path.parent, written)
    return 0


def refuse_mixture(config: Config) -> None:
    """Raise UsageError for a model whose loss has Gaussian noise besides that of the estimator."""
    if isinstance(config.model, GaussianMixtureConfig | LayeredConfig):
        raise UsageError(
            "gradients are measured on one layer of discrete latents alone, not on model=mixture, attributes or layered"
        )


def stored_config(run: RunDirectory, overrides: list[str]) -> Config:
    """The configuration of a run with overrides of the sections that do not change what was trained."""
    config_dict = run.config()
    config_dict.setdefault("laboratory", asdict(LaboratoryConfig()))
    allowed = [f"{section}.{name}" for section in OVERRIDABLE_SECTIONS for name in config_dict[section]]
    return config_of_dict(overridden(config_dict, overrides, allowed, "gradients"), run.provenance())


def measured(run: RunDirectory, config: Config) -> pd.DataFrame:
    """All rows of the seeds that a run has finished, measuring those that no earlier call has kept.

    Raises UsageError when it has finished none, its files are damaged, or it was trained on other data.
    """
    finished = run.finished_seeds()
    device = device_of(config.runtime.device)
    dataset = config.data.load(Path(config.paths.data))
    run.require_data(dataset.digest)
    available = len(dataset.validation.pixels)
    if config.laboratory.images > available:
        raise UsageError(f"laboratory.images={config.laboratory.images} must be at most the {available} of validation")
    module = build(config, dataset)
    load_best(run, module)
    count, binarization = config.laboratory.images, config.data.binarization

    def other_images(batch: int) -> Tensor:
        chosen = torch.arange(batch * count, (batch + 1) * count) % len(dataset.train.pixels)
        return prepared(dataset.train.pixels[chosen], binarization, batch).to(device)

    images = prepared(dataset.validation.pixels[:count], binarization).to(device)
    bench = Laboratory(module.best.to(device), images, list(config.seeds), config.laboratory, other_images)
    asked = json.dumps([METHOD, identity(run.config()), device, asdict(config.laboratory)], sort_keys=True)
    kept = run.path / f"gradients-{hashlib.sha256(asked.encode()).hexdigest()[:10]}.csv"
    origin = {"device": device_name(device), "torch": torch.__version__, **commit_columns()}
    with claimed(kept.with_suffix(".lock"), -1):
        frames = [report.load(kept)] if kept.exists() else []
        done = set() if not frames else {key(row) for row in frames[0].to_dict("records")}
        for rows in bench.run(lambda setting: setting_key(setting) in done):
            frames.append(pd.DataFrame(rows).assign(**origin))
            frame = pd.concat(frames, ignore_index=True)
            write_csv(kept, frame)
        frame = report.load(kept)
        return frame[frame["seed"].isin(finished)]


def prepared(pixels: UInt8[Tensor, "batch pixels"], binarization: str, seed: int = 0) -> Float[Tensor, "batch pixels"]:
    """Images as networks take them; where they are drawn anew in training, one draw of them."""
    if binarization == "dynamic":
        pixels, binarization = fixed_sample(pixels, seed=seed), "threshold"
    return prepare(pixels, binarization)


def commit_columns() -> dict[str, Any]:
    name, dirty = commit()
    return {"commit": name, "dirty": dirty}


def key(row: Mapping[Any, Any]) -> tuple[str, str, str]:
    """What tells the rows of one setting from those of another."""
    value = row["value"]
    return str(row["estimator"]), str(row["choices"]), "" if math.isnan(value) else f"{value:g}"


def setting_key(setting: Setting) -> tuple[str, str, str]:
    return key({"estimator": setting.config.name, "choices": setting.choices, "value": setting.value})
