"""Steps per second of whole training steps (encoder, estimator, backward, Adam), dense against fast, in one run."""

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from argmax_vae.config.compose import cells
from argmax_vae.config.schema import Config, RuntimeConfig
from argmax_vae.data.images import Dataset, Images
from argmax_vae.errors import UsageError, require, require_one_of
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.files import write_csv
from argmax_vae.models import native
from argmax_vae.models.discrete import ModelConfig
from argmax_vae.models.layers import products_in
from argmax_vae.runs.provenance import device_name
from argmax_vae.training.build import build
from argmax_vae.training.vae import DiscreteVAE

IMAGES = 2000
BATCH = 100
TIMED_CHUNKS = 3
MODELS = {
    "linear": ("model=linear",),
    "deep": ("model=deep",),
    "mixture": ("model=mixture", "supervision=joint", "supervision.labels=100"),
    "attributes": ("data=celeba", "model=attributes", "supervision=joint", "supervision.labels=80"),
}
"""What is measured: the linear networks of Figure 2, the deep ones of Figure 6, and what Figures 3 and 4 train, with
labelled images in every step."""
SIZES = {"linear": ("20x10", "20x2"), "deep": ("20x3",), "mixture": ("1x10",), "attributes": ("1x8",)}
"""Latents that are measured unless others are asked for."""
SHAPES = {"attributes": (3, 64, 64)}
WITH_DENSE = ("linear", "deep")
"""Models whose candidate losses have a dense reference."""
MEASUREMENT = ["model", "latents", "estimator", "seeds", "path", "compiled", "precision", "device", "torch"]
"""Columns that tell one measurement from another."""


def synthetic_images(seed: int = 0, images: int = IMAGES, model: str = "linear", k: int = 10) -> Dataset:
    """Random images with about a fifth of the pixels on, of MNIST's size or that of a model's own data, and labels.

    Speed does not depend on what they show.
    """
    shape = SHAPES.get(model, (1, 28, 28))
    generator = torch.Generator().manual_seed(seed)
    pixels = (torch.rand(images, shape[0] * shape[1] * shape[2], generator=generator) < 0.2).to(torch.uint8) * 255
    split = Images(pixels, torch.arange(images) % k)
    return Dataset("synthetic", shape, split, split, split, binary=True)


@cache
def base(model: str) -> Config:
    """The configuration of a model with default choices."""
    (cell,) = cells("train", [*MODELS[model], f"trainer.batch={BATCH}"])
    return cell.config


def configured(model: str, latents: str, estimator: str, seeds: int, runtime: RuntimeConfig) -> Config | None:
    """The configuration of a model under one estimator, with default choices; None where they do not go together."""
    config = base(model)
    for loss in ("label", "cross_entropy"):
        try:
            return replace(
                config,
                model=replace(config.model, latents=latents),
                estimator=ESTIMATORS[estimator].config_class(),
                supervision=replace(config.supervision, loss=loss),
                seeds=list(range(seeds)),
                runtime=runtime,
            )
        except UsageError:
            continue
    return None


def module_for(dataset: Dataset, config: Config, device: str) -> DiscreteVAE:
    """A module ready to step."""
    module = build(config, dataset).to(device)
    module.prepare_steps(module.configure_optimizers())
    module.on_train_epoch_start()
    return module


def steps_per_second(module: DiscreteVAE, seconds: float, device: str) -> tuple[float, int]:
    """Median over chunks of steps per second after a warm-up, and the steps timed; a step trains all seeds."""
    generator = torch.Generator().manual_seed(1)

    def chunk(steps: int) -> float:
        block = torch.randint(len(module.train_pixels), (steps, len(module.seeds), BATCH), generator=generator).to(
            device
        )
        start = time.perf_counter()
        with products_in(module.runtime.precision, module.device):
            module.runner.run(block)
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    chunk(1)
    steps = max(1, round(seconds / TIMED_CHUNKS / chunk(1)))
    times = [chunk(steps) for _ in range(TIMED_CHUNKS)]
    return steps / statistics.median(times), TIMED_CHUNKS * steps


def applicable(estimator: str, latents: str) -> bool:
    """Whether an estimator works with latents "n x k"."""
    model = ModelConfig(latents=latents)
    try:
        ESTIMATORS[estimator].config_class().validate_latents(model.n, model.k)
    except UsageError:
        return False
    return True


def measurements(
    models: Sequence[str], latents: Sequence[str], seeds: Sequence[int], estimators: Sequence[str], compiled: bool
) -> Iterator[dict[str, Any]]:
    """What is to be measured, in the order in which it was asked for, without its numbers."""
    for model in models:
        for size in latents or SIZES[model]:
            for count in seeds:
                for estimator in estimators:
                    what = {"model": model, "latents": size, "estimator": estimator, "seeds": count}
                    if not applicable(estimator, size):
                        continue
                    yield {**what, "path": "fast", "compiled": compiled}
                    if estimator == "direct" and model in WITH_DENSE:
                        yield {**what, "path": "dense", "compiled": False}


def run_bench(
    latents: Sequence[str],
    seeds: Sequence[int],
    seconds: float,
    output: Path | None,
    compiled: bool = True,
    estimators: Sequence[str] = ("all",),
    models: Sequence[str] = ("linear",),
    precision: str = "float32",
    add: bool = False,
) -> pd.DataFrame:
    """Measure and print; also write a csv to `output` when given, after every measurement.

    Every estimator of `estimators` (or all) that applies, in every size (those of SIZES without any) and number of
    seeds; for direct also the dense reference, every changed code decoded. `ratio_to_dense` is fast over dense on the
    same device; `per_seed_gain` is steps per second times seeds, relative to the same path with the fewest seeds.
    `compiled` says whether the fast path may use torch.compile. With `add`, what `output` holds of this device and
    PyTorch is not measured again, and other rows stay.

    Raises:
        UsageError: `estimators`, `models` or `precision` has an unknown name, or nothing applies.
    """
    for name in models:
        require_one_of("bench --model", name, MODELS)
    chosen = list(ESTIMATORS) if "all" in estimators else list(estimators)
    for name in chosen:
        require_one_of("bench --estimators", name, [*ESTIMATORS, "all"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    require(device == "cuda" or precision != "tf32", "bench --precision", precision, "float32 or bfloat16 on a CPU")
    here = {"precision": precision, "device": device_name(device), "torch": torch.__version__}
    print(f"device {here['device']}, {torch.get_num_threads()} threads, torch {torch.__version__}, batch {BATCH}")
    print(f"kernel of the candidate losses: {kernel(device)}")
    frame = pd.read_csv(output) if add and output is not None and output.exists() else pd.DataFrame()
    known = set(frame[MEASUREMENT].itertuples(index=False, name=None)) if len(frame) else set()
    for what in measurements(models, latents, seeds, chosen, compiled):
        wanted = what | here
        if tuple(wanted[name] for name in MEASUREMENT) in known:
            continue
        row = measured(wanted, seconds, device)
        if row is None:
            continue
        frame = with_ratios(pd.concat([frame, pd.DataFrame([row])], ignore_index=True))
        print(line_of(row), flush=True)
        if output is not None:
            write_csv(output, frame)
    if frame.empty:
        raise UsageError(f"bench: no estimator of {', '.join(chosen)} applies to --latents {' '.join(latents)}")
    print("\n" + summary(frame))
    return frame


def kernel(device: str) -> str:
    """Which kernel of the candidate losses there is on a device."""
    if device == "cuda":
        return "Triton" if native.triton_works() else "no Triton, row differences instead"
    return "built" if native.load() else "no compiler, PyTorch instead"


def measured(wanted: dict[str, Any], seconds: float, device: str) -> dict[str, Any] | None:
    """A row with the numbers of one measurement; None when that does not apply, or the device has no room for it."""
    form = "dense" if wanted["path"] == "dense" else "auto"
    runtime = RuntimeConfig(compile=wanted["compiled"], precision=wanted["precision"], candidates=form)
    config = configured(wanted["model"], wanted["latents"], wanted["estimator"], wanted["seeds"], runtime)
    if config is None:
        return None
    dataset = synthetic_images(model=wanted["model"], k=config.model.k)
    try:
        module = module_for(dataset, config, device)
        rate, steps = steps_per_second(module, seconds, device)
    except torch.OutOfMemoryError:
        print(
            f"{wanted['latents']:6} {wanted['estimator']:20} {wanted['seeds']:3} seeds: no room on {wanted['device']}"
        )
        return None
    numbers = {
        "steps_per_second": round(rate, 3),
        "microseconds_per_step": round(1e6 / rate, 2),
        "steps_timed": steps,
        "how": module.path,
        "threads": torch.get_num_threads(),
    }
    return wanted | numbers


def line_of(row: dict[str, Any]) -> str:
    return (
        f"{row['model']:10} {row['latents']:6} {row['estimator']:20} {row['seeds']:3} seeds  {row['path']:5} "
        f"{row['steps_per_second']:10.1f} steps/s  {row['microseconds_per_step']:11.1f} µs  ({row['how']})"
    )


def with_ratios(frame: pd.DataFrame) -> pd.DataFrame:
    """Adds `ratio_to_dense` (direct only) and `per_seed_gain` over the fewest seeds, both on the same device."""
    frame = frame.copy()
    of_dense = [name for name in MEASUREMENT if name not in ("path", "compiled")]
    dense = frame[frame["path"] == "dense"].set_index(of_dense)["steps_per_second"]
    base = [dense.get(tuple(key), float("nan")) for key in frame[of_dense].itertuples(index=False)]
    frame["ratio_to_dense"] = (frame["steps_per_second"] / base).round(2)
    per_seed = frame["steps_per_second"] * frame["seeds"]
    group = [frame[name] for name in MEASUREMENT if name != "seeds"]
    fewest = frame["seeds"] == frame["seeds"].groupby(group).transform("min")
    frame["per_seed_gain"] = (per_seed / per_seed.where(fewest).groupby(group).transform("max")).round(2)
    return frame


def summary(frame: pd.DataFrame) -> str:
    """The ratios that matter, a line per size and number of seeds."""
    fast = frame[(frame["path"] == "fast") & frame["ratio_to_dense"].notna()]
    if fast.empty:
        return f"no ratio to dense: it is that of direct, with --model {' or '.join(WITH_DENSE)}"
    lines = [
        f"{row.model} {row.latents:6} direct, {row.seeds:2} seeds: fast is {row.ratio_to_dense:.1f} times dense; "
        f"{row.per_seed_gain:.2f} times the seed-steps per second of the fewest seeds"
        for row in fast.itertuples()
    ]
    return "\n".join(lines)
