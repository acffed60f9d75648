"""Steps per second of whole training steps (encoder, estimator, backward, Adam), dense against fast, in one run."""

import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from argmax_vae import native
from argmax_vae.data.datasets import Dataset, Images
from argmax_vae.errors import UsageError
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.files import write_csv
from argmax_vae.modules import DeepConfig, DiscreteVAE, ModelConfig, OptimConfig, RuntimeConfig, TrainerConfig
from argmax_vae.objective import ObjectiveConfig
from argmax_vae.runs import device_name

PIXELS = 784
IMAGES = 2000
BATCH = 100
TIMED_CHUNKS = 3
MODELS: dict[str, type[ModelConfig]] = {"linear": ModelConfig, "deep": DeepConfig}


def synthetic_images(seed: int = 0, images: int = IMAGES) -> Dataset:
    """Random images of MNIST's size with about a fifth of the pixels on: speed does not depend on what they show."""
    generator = torch.Generator().manual_seed(seed)
    pixels = (torch.rand(images, PIXELS, generator=generator) < 0.2).to(torch.uint8) * 255
    split = Images(pixels, None)
    return Dataset("synthetic", (1, 28, 28), split, split, split, binary=True)


def module_for(
    dataset: Dataset, model: ModelConfig, estimator: str, seeds: int, runtime: RuntimeConfig, device: str
) -> DiscreteVAE:
    """A module ready to step: a model under one estimator with its default choices."""
    estimator_class = ESTIMATORS[estimator]
    module = DiscreteVAE(
        dataset,
        "threshold",
        model,
        estimator_class(estimator_class.config_class()),
        ObjectiveConfig(),
        OptimConfig(),
        TrainerConfig(batch=BATCH),
        runtime,
        list(range(seeds)),
    ).to(device)
    module.prepare_steps(module.configure_optimizers())
    module.on_train_epoch_start()
    return module


def steps_per_second(module: DiscreteVAE, seconds: float, device: str) -> tuple[float, int]:
    """Median over chunks of steps per second after a warm-up, and the steps timed; a step trains all seeds."""
    generator = torch.Generator().manual_seed(1)

    def chunk(steps: int) -> float:
        block = torch.randint(IMAGES, (steps, len(module.seeds), BATCH), generator=generator).to(device)
        start = time.perf_counter()
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


def run_bench(
    latents: list[str],
    seeds: list[int],
    seconds: float,
    output: Path | None,
    compiled: bool = True,
    estimators: list[str] | None = None,
    model: str = "linear",
) -> pd.DataFrame:
    """Measure and print; also write a csv to `output` when given.

    For direct: the dense reference (every changed code decoded) against the fast path, for every size and number of
    seeds; and the fast path of every other estimator that applies (of `estimators`, or all) with the fewest seeds.
    `ratio_to_dense` is fast over dense in this run; `per_seed_gain` is steps per second times seeds, relative to the
    same path with the fewest seeds. `compiled` says whether the fast path may use torch.compile. `model` is one of
    MODELS: linear, or the deep networks of the paper's Figure 6.

    Raises:
        UsageError: `estimators` or `model` has an unknown name.
    """
    if model not in MODELS:
        raise UsageError(f"bench --model {model}: unknown; allowed: {', '.join(MODELS)}")
    chosen = list(ESTIMATORS) if estimators is None else estimators
    for name in chosen:
        if name not in ESTIMATORS:
            raise UsageError(f"bench --estimators {name}: unknown; allowed: {', '.join(ESTIMATORS)}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dataset = synthetic_images()
    fast = RuntimeConfig(compile=compiled)
    slow = replace(fast, candidates="dense", compile=False, graph=False)
    print(f"device {device_name(device)}, {torch.get_num_threads()} threads, torch {torch.__version__}, batch {BATCH}")
    print("kernel of the candidate losses: " + ("built" if native.load() else "no compiler, PyTorch instead"))
    rows: list[dict[str, Any]] = []
    for size in latents:
        for estimator in chosen:
            if not applicable(estimator, size):
                continue
            for count in sorted(seeds)[: None if estimator == "direct" else 1]:
                paths = {"fast": fast, "dense": slow} if estimator == "direct" else {"fast": fast}
                for path, runtime in paths.items():
                    module = module_for(dataset, MODELS[model](latents=size), estimator, count, runtime, device)
                    rate, steps = steps_per_second(module, seconds, device)
                    rows.append(row_of(rows, module, size, estimator, path, rate, steps, device))
                    print(line_of(rows[-1]), flush=True)
    frame = with_ratios(pd.DataFrame(rows))
    print("\n" + summary(frame))
    if output is not None:
        write_csv(output, frame)
    return frame


def row_of(
    rows: list[dict[str, Any]],
    module: DiscreteVAE,
    size: str,
    estimator: str,
    path: str,
    rate: float,
    steps: int,
    device: str,
) -> dict[str, Any]:
    return {
        "model": "deep" if len(module.networks.decoder.layers) > 1 else "linear",
        "latents": size,
        "estimator": estimator,
        "seeds": len(module.seeds),
        "path": path,
        "steps_per_second": round(rate, 3),
        "milliseconds_per_step": round(1000 / rate, 4),
        "steps_timed": steps,
        "how": module.path,
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def line_of(row: dict[str, Any]) -> str:
    return (
        f"{row['latents']:6} {row['estimator']:20} {row['seeds']:3} seeds  {row['path']:5} "
        f"{row['steps_per_second']:10.1f} steps/s  {row['milliseconds_per_step']:9.3f} ms  ({row['how']})"
    )


def with_ratios(frame: pd.DataFrame) -> pd.DataFrame:
    """Adds `ratio` to dense (direct only) and `per_seed_gain` over the fewest seeds, both within this run."""
    keys = ["latents", "estimator", "seeds"]
    dense = frame[frame["path"] == "dense"].set_index(keys)["steps_per_second"]
    base = [dense.get(tuple(key), float("nan")) for key in frame[keys].itertuples(index=False)]
    frame["ratio_to_dense"] = (frame["steps_per_second"] / base).round(2)
    per_seed = frame["steps_per_second"] * frame["seeds"]
    first = per_seed.groupby([frame["latents"], frame["estimator"], frame["path"]]).transform("first")
    frame["per_seed_gain"] = (per_seed / first).round(2)
    return frame


def summary(frame: pd.DataFrame) -> str:
    """The ratios that matter, a line per size and number of seeds."""
    fast = frame[(frame["path"] == "fast") & (frame["estimator"] == "direct")]
    if fast.empty:
        return "no ratio: direct was not measured"
    lines = [
        f"{row.latents:6} direct, {row.seeds:2} seeds: fast is {row.ratio_to_dense:.1f} times dense; "
        f"{row.per_seed_gain:.2f} times the seed-steps per second of {fast['seeds'].min()} seed"
        for row in fast.itertuples()
    ]
    return "\n".join(lines)
