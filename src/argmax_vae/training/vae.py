"""The Lightning module of the discrete variational auto-encoder: thin, S seeds at once."""

import copy
import math
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from argmax_vae.config.schema import OptimConfig, RuntimeConfig, TrainerConfig
from argmax_vae.counter_noise import streams_of
from argmax_vae.data.binarization import BINARIZATIONS, fixed_sample, prepare, prepare_for_evaluation, rows_at
from argmax_vae.data.images import Dataset
from argmax_vae.errors import require
from argmax_vae.estimators.base import Estimator
from argmax_vae.models.candidates import CandidateLosses
from argmax_vae.models.discrete import ModelConfig, Networks
from argmax_vae.models.layers import products_in, set_in_layers, set_precision
from argmax_vae.models.reconstruction import Reconstruction
from argmax_vae.objective.bounds import BoundSums, Evaluation, bound_sums
from argmax_vae.objective.terms import ObjectiveConfig, training_terms
from argmax_vae.randomness import SeedNoise
from argmax_vae.training.processes import WHOLE, Share
from argmax_vae.training.steps import CapturedSteps, CompiledOrEager, EagerSteps, Noise


class DiscreteVAE(pl.LightningModule):
    """S discrete variational auto-encoders, one per seed, trained side by side by one estimator.

    Lightning's batch is a block of index batches (steps, seeds, batch); data live on the device. `best` holds, for
    each seed, the networks of its best validation bound so far; `history` one row per evaluation and seed; `epochs` one
    row per epoch of training; `last_bound` the mean training bound of the last chunk, `train_bound` that of each seed
    over the steps of the last evaluated epoch.
    """

    purposes: ClassVar[tuple[str, ...]] = ("noise", "binarization")
    steps_done: Tensor
    best_score: Tensor
    best_bound: Tensor
    best_epoch: Tensor
    train_bound: Tensor
    diverged_epoch: Tensor
    train_pixels: Tensor
    validation_pixels: Tensor
    test_pixels: Tensor

    def __init__(
        self,
        dataset: Dataset,
        binarization: str,
        model: ModelConfig,
        estimator: Estimator,
        objective_config: ObjectiveConfig,
        optim: OptimConfig,
        trainer_config: TrainerConfig,
        runtime: RuntimeConfig,
        seeds: list[int],
        share: Share = WHOLE,
    ) -> None:
        super().__init__()
        require(
            binarization in BINARIZATIONS,
            "data.binarization",
            binarization,
            f"one of {', '.join(BINARIZATIONS)}",
        )
        self.automatic_optimization = False
        self.binarization = binarization
        self.estimator = estimator.prepare(model.n, model.k, seeds)
        self.objective_config = objective_config
        self.optim, self.trainer_config, self.runtime = optim, trainer_config, runtime
        self.seeds, self.share = seeds, share
        self.networks = self.make_networks(dataset, model)
        self.best = copy.deepcopy(self.networks).requires_grad_(False)
        set_precision(self.networks, runtime.precision)
        set_in_layers(self.networks, "channels_last", runtime.channels_last)
        self.candidates = CandidateLosses(runtime.candidates)
        self.compiled_terms = CompiledOrEager(self.step_terms, runtime.compile)
        count = len(seeds)
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))
        self.register_buffer("best_score", torch.full((count,), math.inf, dtype=torch.float64))
        self.register_buffer("best_bound", torch.full((count,), math.inf, dtype=torch.float64))
        self.register_buffer("best_epoch", torch.full((count,), -1, dtype=torch.int64))
        self.register_buffer("train_bound", torch.full((count,), math.nan, dtype=torch.float64))
        self.register_buffer("diverged_epoch", torch.full((count,), -1, dtype=torch.int64))
        self.register_buffer("train_pixels", dataset.train.pixels, persistent=False)
        for split in ("validation", "test"):
            pixels_of_split = getattr(dataset, split).pixels
            if binarization == "dynamic":
                pixels_of_split = fixed_sample(pixels_of_split, seed=0)
            self.register_buffer(f"{split}_pixels", pixels_of_split, persistent=False)
        self.history: list[dict[str, float]] = []
        self.epochs: list[dict[str, float]] = []
        self.last_bound = torch.full((), math.nan)
        self.bounds_of_epoch: list[Tensor] = []
        self.path_before, self.steps_before = "", 0
        self.last_metrics: dict[str, Tensor] = {}
        self.results: dict[str, Evaluation] = {}
        self.chunks: dict[str, list[BoundSums]] = {}
        self.final_splits: tuple[str, ...] = ("test",)

    def make_networks(self, dataset: Dataset, model: ModelConfig) -> Networks:
        """Encoders and decoders of all seeds, and their priors if those are learned."""
        networks = model.networks(dataset.shape, self.seeds)
        return networks.learn_prior(len(self.seeds)) if model.prior == "learned" else networks

    @property
    def bound_samples(self) -> int:
        """M where the importance-weighted bound of M samples is trained, else 0."""
        return getattr(self.estimator.config, "samples", 1) if self.objective_config.kl == "importance_weighted" else 0

    def may_keep(self) -> bool:
        """Whether the networks of this epoch may be the ones that are kept."""
        return True

    def score(self, validation: Evaluation) -> Float[Tensor, "seeds"]:
        """What is smallest for the networks to keep."""
        return validation.importance_weighted if self.bound_samples else validation.bound

    def more_metrics(self, split: str, index: int) -> dict[str, float]:
        """Further columns of the seed at this position in the evaluation of a split."""
        return {}

    def final_columns(self, index: int) -> dict[str, Any]:
        """Further columns of the final numbers of the seed at this position."""
        return {}

    def confusion_rows(self) -> list[dict[str, Any]]:
        """How many test images of each class were given each value of z, for models that know classes."""
        return []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        networks, learned = list(self.networks.parameters()), list(self.estimator.parameters())
        parameters: list[Any] = networks + learned
        if learned and self.optim.estimator_factor != 1:
            rate = self.optim.learning_rate * self.optim.estimator_factor
            parameters = [{"params": networks}, {"params": learned, "lr": rate}]
        return torch.optim.Adam(
            parameters,
            lr=self.optim.learning_rate,
            betas=(self.optim.betas[0], self.optim.betas[1]),
            eps=self.optim.epsilon,
            fused=True,
            capturable=self.device.type == "cuda",
        )

    def on_fit_start(self) -> None:
        self.prepare_steps(self.optimizers().optimizer)  # type: ignore[union-attr]

    def on_train_start(self) -> None:
        """A checkpoint brings the optimiser's choices from the device that it was written on."""
        for group in self.optimizer.param_groups:
            group["capturable"] = self.device.type == "cuda"

    def prepare_steps(self, optimizer: torch.optim.Optimizer) -> None:
        """Make ready to run steps with this optimiser on the module's device, as a captured graph on CUDA."""
        self.runtime = self.runtime.on(self.device.type)
        self.noise = streams_of(self.runtime.noise, self.purposes, self.seeds, self.steps_done)
        self.optimizer = optimizer
        draw = dict if self.noise.inside else self.draw

        def state() -> list[Tensor]:
            kept = [*self.parameters(), *self.estimator.buffers(), self.steps_done]
            for values in optimizer.state.values():
                kept += [value for value in values.values() if isinstance(value, Tensor)]
            return kept

        if self.device.type == "cuda" and self.runtime.graph and self.share.count == 1:
            self.runner: EagerSteps | CapturedSteps = CapturedSteps(self.step, draw, state, self.runtime.chunk)
        else:
            self.runner = EagerSteps(self.step, draw)

    def on_train_epoch_start(self) -> None:
        self.noise.restart(self.current_epoch)
        self.bounds_of_epoch = []

    @property
    def path(self) -> str:
        """Which fast paths the steps took; of a run that resumes, those before until it has taken one."""
        if self.path_before and int(self.steps_done) == self.steps_before:
            return self.path_before
        forms = [] if self.candidates.path == "auto" else [f"candidates: {self.candidates.path}"]
        shared = [f"{self.share.count} processes"] if self.share.count > 1 else []
        noise = ["noise from counters"] if self.noise.inside else []
        return "; ".join([*forms, self.compiled_terms.path, self.runner.path, *shared, *noise])

    def draw(self) -> Noise:
        """The random numbers of one step."""
        batch = self.trainer_config.batch
        shape = (len(self.seeds), batch // self.share.count, self.networks.n, self.networks.k)
        noise = self.estimator.noise(shape, self.share.noise(self.noise.of_step("noise"), batch))
        if self.binarization == "dynamic":
            pixels = (*shape[:2], self.train_pixels.shape[1])
            noise["pixels"] = self.share.noise(self.noise.of_step("binarization"), batch).uniform(pixels)
        return noise

    def terms(
        self, inputs: tuple[Tensor, ...], noise: Noise, steps_done: Int64[Tensor, ""]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "seeds"], Float[Tensor, "seeds batch"], dict[str, Tensor]]:
        """A step's objective summed over seeds, the training bound of each, what the estimator observes, metrics."""
        (images,) = inputs
        logits = self.networks.encode(images)
        loss = Reconstruction(self.networks, images, self.candidates)
        log_prior = self.networks.log_prior
        terms = training_terms(self.objective_config, self.estimator, logits, loss, noise, steps_done, log_prior)
        bound = (terms.reconstruction + terms.kl).mean(-1)
        return terms.objective.mean(-1).sum(), bound, terms.estimate.seen, terms.estimate.metrics

    def inputs(self, indices: Int64[Tensor, "seeds batch"], noise: Noise) -> tuple[Tensor, ...]:
        """What `terms` sees of the data in one step: images (seeds, batch, pixels)."""
        return (prepare(rows_at(self.train_pixels, indices), self.binarization, noise.get("pixels")),)

    def step_terms(
        self, inputs: tuple[Tensor, ...], noise: Noise, steps_done: Int64[Tensor, ""]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "seeds"], Float[Tensor, "seeds batch"], dict[str, Tensor]]:
        """`terms`; a step whose noise is drawn inside draws it here, and gathers its inputs, which are indices then."""
        if self.noise.inside:
            (indices,) = inputs
            noise = self.draw()
            inputs = self.inputs(indices, noise)
        return self.terms(inputs, noise, steps_done)

    def step(self, indices: Int64[Tensor, "seeds batch"], noise: Noise) -> Float[Tensor, "seeds"]:
        """One step of every seed; returns the training bound of each, in nats per image."""
        indices = indices[:, self.share.rows(indices.shape[1])]
        inputs = (indices,) if self.noise.inside else self.inputs(indices, noise)
        bound, seen, self.last_metrics = self.compiled_terms.differentiate(
            self.optimizer, inputs, noise, self.steps_done
        )
        gradients = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
        self.share.average([*gradients, bound, *self.last_metrics.values()])
        self.optimizer.step()
        self.estimator.observe(self.share.gather(seen))
        self.steps_done += 1
        return bound

    def training_step(self, block: Int64[Tensor, "steps seeds batch"], batch_index: int) -> None:
        """Runs the steps of a block. Epochs are counted, not `global_step`: the inner loop bypasses Lightning."""
        with products_in(self.runtime.precision, self.device):
            losses = self.runner.run(block)
        self.bounds_of_epoch.append(losses.double())
        bad = ~losses.isfinite().all(0)
        self.diverged_epoch[bad & (self.diverged_epoch < 0)] = self.current_epoch
        self.last_bound = losses[:, ~bad].mean() if bool((~bad).any()) else losses.mean()
        self.log("train_bound", self.last_bound)
        for name, value in self.last_metrics.items():
            self.log(name, value.float().mean())

    def evaluate_chunk(
        self,
        networks: Networks,
        split: str,
        indices: Tensor,
        samples: int,
        noise: SeedNoise,
        importance: int = 0,
    ) -> None:
        pixels = getattr(self, f"{split}_pixels")[indices]
        images = prepare_for_evaluation(pixels, self.binarization).expand(len(self.seeds), -1, -1)
        sums = self.bound_sums(networks, images, samples, noise, importance)
        self.chunks.setdefault(split, []).append(sums)

    def bound_sums(
        self,
        networks: Any,
        images: Float[Tensor, "seeds batch pixels"],
        samples: int,
        noise: SeedNoise,
        importance: int,
    ) -> BoundSums:
        """The reported bound of a chunk of images, in nats, summed for each seed."""
        return bound_sums(networks, images, samples, noise, importance)

    def on_validation_epoch_start(self) -> None:
        self.chunks = {}
        self.evaluation_noise = {
            split: SeedNoise(self.seeds, self.device).restart(self.current_epoch, split)
            for split in ("validation", "test")
        }

    def validation_step(self, indices: Tensor, batch_index: int, dataloader_idx: int = 0) -> None:
        """Adds a chunk of the validation (loader 0) or test (loader 1) images to the bound of the current networks."""
        split = ("validation", "test")[dataloader_idx]
        noise, samples = self.evaluation_noise[split], self.trainer_config.curve_samples
        self.evaluate_chunk(self.networks, split, indices, samples, noise, self.bound_samples)

    def on_validation_epoch_end(self) -> None:
        epoch = self.current_epoch + 1
        if self.bounds_of_epoch:
            self.train_bound.copy_(torch.cat(self.bounds_of_epoch).mean(0))
        validation, test = (Evaluation.of(self.chunks[split]) for split in ("validation", "test"))
        bound = validation.bound.to(self.best_bound.device)
        score = self.score(validation).to(bound)
        better = (score < self.best_score) | ((score == self.best_score) & (bound < self.best_bound))
        improved = better & bound.isfinite() & (self.diverged_epoch < 0) & self.may_keep()
        self.best_score = torch.where(improved, score, self.best_score)
        self.best_bound = torch.where(improved, bound, self.best_bound)
        self.best_epoch[improved] = epoch
        with torch.no_grad():
            for best, current in zip(self.best.parameters(), self.networks.parameters(), strict=True):
                best[improved] = current[improved]
        for index, seed in enumerate(self.seeds):
            row: dict[str, float] = {"epoch": epoch, "seed": seed}
            for split, evaluation in (("validation", validation), ("test", test)):
                row[f"{split}_bound"] = evaluation.bound[index].item()
                row[f"{split}_reconstruction"] = evaluation.reconstruction[index].item()
                row[f"{split}_kl"] = evaluation.kl[index].item()
                row[f"{split}_codes_in_use"] = evaluation.in_use[index].double().mean().item()
                if self.bound_samples:
                    row[f"{split}_importance_weighted"] = evaluation.importance_weighted[index].item()
                row |= self.more_metrics(split, index)
            row |= {name: float(value.expand(len(self.seeds))[index]) for name, value in self.last_metrics.items()}
            self.history.append(row)
        for name, values in (("validation_bound", validation.bound), ("validation_kl", validation.kl)):
            self.log(name, values[values.isfinite()].mean().float())

    def on_test_epoch_start(self) -> None:
        self.chunks = {}
        self.evaluation_noise = {
            split: SeedNoise(self.seeds, self.device).restart(0, "final") for split in self.final_splits
        }

    def test_step(self, indices: Tensor, batch_index: int, dataloader_idx: int = 0) -> None:
        """Adds a chunk of the images of a split in `final_splits` to the bound of the best networks of each seed."""
        split = self.final_splits[dataloader_idx]
        self.evaluate_chunk(
            self.best,
            split,
            indices,
            self.trainer_config.final_samples,
            self.evaluation_noise[split],
            self.trainer_config.importance_samples or self.bound_samples,
        )

    def on_test_epoch_end(self) -> None:
        self.results = {split: Evaluation.of(chunks) for split, chunks in self.chunks.items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"], checkpoint["epochs"] = self.history, self.epochs
        checkpoint["path"] = self.path

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"].setdefault("best_score", checkpoint["state_dict"]["best_bound"].clone())
        checkpoint["state_dict"].setdefault("train_bound", torch.full_like(self.train_bound, math.nan))
        self.history, self.epochs = checkpoint["history"], checkpoint.get("epochs", [])
        self.path_before = checkpoint.get("path", "")
        self.steps_before = int(checkpoint["state_dict"]["steps_done"])
