"""A run's directory: named by the identity of its configuration, made of plain files, finished by a done marker.

config.yaml       the whole configuration             provenance.json   commit, versions, device, command
metrics.csv       a row per evaluation and seed        seeds.csv         a row of final numbers per seed
last.ckpt         to go on from, also with more epochs   best.ckpt         best networks of each seed
previous.ckpt     the one before last.ckpt, while a run is going on
confusion.csv     test images of each class by value of z, for a mixture
samples.png       images of random codes               reconstructions.png   test images above theirs
done.json         written last                         error.txt         traceback of a run that failed
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from argmax_vae.errors import UsageError
from argmax_vae.files import claimed, csv_rows, remove_all_leftovers, write_atomic, write_csv, write_json, write_text
from argmax_vae.plugins import used
from argmax_vae.runs.provenance import device_name, provenance

YAML_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
SECTIONS = {"model", "estimator", "trainer", "seeds"}
"""What no run's configuration lacks."""

ENDED = ("done", "diverged")
"""What a done marker says: some seeds are finished, or all of them diverged."""
NOT_IDENTITY = ("runtime", "tracker", "paths", "table", "protocol", "chosen", "laboratory")
LATER_KEYS: dict[str, Any] = {
    "model.prior": "uniform",
    "model.gaussian_noise": "shared",
    "model.component_bias": False,
    "model.negative_slope": 0.01,
    "model.component_negative_slope": 0.01,
    "supervision.sampling": "with_replacement",
    "supervision.labelled_classes": "balanced",
    "supervision.schedule_starts": "with_training",
    "optim.estimator_factor": 1.0,
    "estimator.auxiliary": 0,
    "estimator.doubly_reparameterized": False,
}
"""Keys that earlier versions lack, with the value that stands for what those did: it is no part of the identity."""


def identity(config_dict: Mapping[str, Any]) -> str:
    """Ten hexadecimal digits of the SHA-256 of everything that decides a run's numbers."""
    kept = {key: without_later_keys(key, value) for key, value in config_dict.items() if key not in NOT_IDENTITY}
    if kept.get("supervision", {}).get("training") == "none":
        del kept["supervision"]
    precision = config_dict.get("runtime", {}).get("precision", "float32")
    if precision != "float32":
        kept["precision"] = precision
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:10]


def without_later_keys(section: str, value: Any) -> Any:
    """A section without those of LATER_KEYS that have the value there."""
    if not isinstance(value, Mapping):
        return value
    names = {key: f"{section}.{key}" for key in value}
    return {
        key: inner for key, inner in value.items() if names[key] not in LATER_KEYS or inner != LATER_KEYS[names[key]]
    }


def flat(config_dict: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys with their values, in their order; an empty section is a value."""
    for key, value in config_dict.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def run_name(config_dict: Mapping[str, Any]) -> str:
    """Readable name of a run, ending in its identity."""
    parts = (
        config_dict["data"]["name"],
        config_dict["model"]["name"],
        config_dict["model"]["latents"],
        config_dict["estimator"]["name"],
        f"kl_{config_dict['objective']['kl']}",
        identity(config_dict),
    )
    return "-".join(parts)


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run."""

    path: Path

    @classmethod
    def of(cls, config_dict: Mapping[str, Any]) -> "RunDirectory":
        """The directory that belongs to a configuration, whether it exists or not."""
        return cls(Path(config_dict["paths"]["runs"]) / run_name(config_dict))

    @property
    def checkpoint(self) -> Path:
        return self.path / "last.ckpt"

    @property
    def previous(self) -> Path:
        return self.path / "previous.ckpt"

    @property
    def best(self) -> Path:
        return self.path / "best.ckpt"

    @property
    def claim(self) -> Path:
        """The lock file that the process which trains the run holds."""
        return self.path.parent / ".claims" / f"{self.path.name}.lock"

    @property
    def is_running(self) -> bool:
        """Whether a process is training the run; nobody does in a directory that cannot be written to."""
        if not self.claim.exists():
            return False
        try:
            with claimed(self.claim, 0) as free:
                return not free
        except UsageError:
            return False

    @property
    def outcome(self) -> dict[str, Any]:
        """What the done marker says: status, seeds, seconds. Empty without a whole marker: the run has not ended."""
        try:
            marker = json.loads((self.path / "done.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return marker if isinstance(marker, dict) and marker.get("status") in ENDED else {}

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left to train: the run is done, or all its seeds diverged."""
        return bool(self.outcome)

    @property
    def status(self) -> str:
        """done, diverged (every seed did), running, failed, interrupted, or missing."""
        if outcome := self.outcome:
            return str(outcome["status"])
        if self.is_running:
            return "running"
        if (self.path / "error.txt").exists():
            return "failed"
        return "interrupted" if self.path.exists() else "missing"

    @property
    def reason(self) -> str:
        """The last line of the traceback of a run that failed, else nothing."""
        try:
            lines = (self.path / "error.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1] if lines else ""

    @property
    def resumes(self) -> bool:
        """Whether the run has a checkpoint of its own to go on from; one that was being joined is joined again."""
        if not (self.checkpoint.exists() or self.previous.exists()):
            return False
        try:
            return "joins" not in self.provenance()
        except UsageError:
            return True

    @property
    def noise(self) -> str:
        """Where the noise of the run's steps comes from, generator or counter; a generator if it is not said."""
        try:
            return str(self.provenance().get("noise", "generator"))
        except UsageError:
            return "generator"

    def start(
        self,
        config_dict: Mapping[str, Any],
        data: Mapping[str, Any] | None = None,
        continues: "RunDirectory | None" = None,
        device: str = "cpu",
        noise: str = "generator",
    ) -> None:
        """Create the directory with configuration and provenance; of a run that resumes the first origin is kept.

        `data` is the digest of the data that it is trained on; `noise` as in `RunDirectory.noise`. Raises UsageError
        when the directory cannot be written, or a run that resumes was trained on other data.
        """
        if self.resumes:
            self.require_data(data)
        write_text(self.path / "config.yaml", yaml.safe_dump(dict(config_dict), sort_keys=False, allow_unicode=True))
        origin = {**provenance(), "noise": noise}
        brought = used({group: config_dict[group]["name"] for group in ("estimator", "data", "model")})
        for choice in config_dict["estimator"].values():
            brought |= used({"schedule": choice["name"]}) if isinstance(choice, dict) else {}
        if brought:
            origin["plugins"] = brought
        if data:
            origin["data"] = dict(data)
        if continues:
            origin["continues"] = {"run": continues.path.name, **continues.provenance()}
        if self.resumes and (self.path / "provenance.json").exists():
            this = {key: origin[key] for key in ("commit", "dirty", "packages")} | {"device": device_name(device)}
            origin = self.provenance()
            origin["resumed"] = [*origin.get("resumed", []), this]
        write_json(self.path / "provenance.json", origin)
        (self.path / "error.txt").unlink(missing_ok=True)

    def write_table(self, name: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
        """Write rows as csv; `columns` is the header of a table without rows."""
        frame = pd.DataFrame(rows, columns=None if rows else list(columns))
        write_csv(self.path / name, frame)

    def write_picture(self, name: str, picture: np.ndarray) -> None:
        """Write a grey (height, width) or coloured (height, width, 3) picture with values in [0, 1] as PNG."""
        image = Image.fromarray((picture * 255).round().astype(np.uint8))
        write_atomic(self.path / name, lambda temporary: image.save(temporary, format="PNG"))

    def fail(self, traceback: str) -> None:
        write_text(self.path / "error.txt", traceback)

    def config(self) -> dict[str, Any]:
        """The stored configuration. Raises UsageError when this is no run's directory."""
        path = self.path / "config.yaml"
        if self.has_ended and not path.exists():
            raise UsageError(f"{path} is missing; remove the directory and train again")
        if not path.is_file():
            raise UsageError(f"{self.path} is no run: it has no config.yaml; `argmax-vae runs` lists the runs")
        try:
            config_dict = yaml.load(path.read_text(encoding="utf-8"), Loader=YAML_LOADER)
        except (yaml.YAMLError, ValueError, OSError):
            config_dict = None
        if not isinstance(config_dict, dict) or SECTIONS - config_dict.keys():
            raise UsageError(f"{path} is damaged; remove the directory and train again")
        return config_dict

    def provenance(self) -> dict[str, Any]:
        """By what the run was made. Raises UsageError when that is missing or damaged."""
        path = self.path / "provenance.json"
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            stored = None
        if not isinstance(stored, dict) or {"commit", "packages", "version"} - stored.keys():
            raise UsageError(f"{path} is missing or damaged; remove the directory and train again")
        return stored

    @property
    def data(self) -> Mapping[str, Any]:
        """The digest of the data that the run was trained on; empty where that is not known."""
        try:
            return dict(self.provenance().get("data", {}))
        except (UsageError, TypeError, ValueError):
            return {}

    def require_data(self, data: Mapping[str, Any] | None) -> None:
        """Raise UsageError when the run is known to have been trained on data with another digest."""
        stored = self.data
        if stored and data and stored != data:
            told = [f"{d.get('sha256')} ({d.get('train')} images to train on)" for d in (stored, data)]
            raise UsageError(
                f"{self.path} was trained on data {told[0]}, not on {told[1]}; "
                "set paths.data to the first, or paths.runs to another directory"
            )

    def table(self, name: str, columns: Sequence[str]) -> pd.DataFrame:
        """One of the run's csv files. Raises UsageError when it is missing, damaged, or lacks a column."""
        path, advice = self.path / name, "remove the directory and train again"
        header = list(next(rows := csv_rows(path, advice)))
        if absent := [column for column in columns if column not in header]:
            raise UsageError(f"{path}: missing column {', '.join(absent)}; {advice}")
        for _ in rows:
            pass
        return pd.read_csv(path)

    def seeds(self) -> pd.DataFrame:
        """The final numbers, a row per seed. Raises UsageError when they are missing, damaged, or lack a seed."""
        outcome = self.outcome
        if not outcome:
            raise UsageError(f"{self.path} is {self.status}, not done: run the same command again to finish it")
        frame = self.table("seeds.csv", ("seed", "status"))
        wanted = outcome.get("seeds", list(frame["seed"]))
        if list(frame["seed"]) != wanted or not frame["status"].isin(ENDED).all():
            raise UsageError(
                f"{self.path / 'seeds.csv'} does not have the rows of seeds {wanted}; "
                "remove the directory and train again"
            )
        return frame

    def finished_seeds(self) -> list[int]:
        """The seeds that are done. Raises UsageError when there is none, or as `seeds` does."""
        frame = self.seeds()
        found = [int(seed) for seed in frame.loc[frame["status"] == "done", "seed"]]
        if not found:
            raise UsageError(f"{self.path}: no seed finished, all diverged: there are no networks to look at")
        return found

    def metrics(self) -> pd.DataFrame:
        """The curves, a row per evaluation and seed. Raises UsageError when they are damaged or lack a row."""
        frame = self.table("metrics.csv", ("epoch", "seed", "validation_bound", "test_bound"))
        trainer = self.config()["trainer"]
        expected = list(range(trainer["evaluate_every"], trainer["epochs"] + 1, trainer["evaluate_every"]))
        for seed, status in self.seeds()[["seed", "status"]].itertuples(index=False):
            found = list(frame.loc[frame["seed"] == seed, "epoch"])
            if found != expected[: len(found)] or (status == "done" and found != expected):
                told = f"{self.path / 'metrics.csv'} lacks evaluations of seed {seed}"
                raise UsageError(f"{told}; remove the directory and train again")
        return frame

    def tidy(self) -> None:
        """Remove what killed processes left: temporary files and, when the run has ended, the checkpoint before."""
        remove_all_leftovers(self.path)
        if self.previous.exists() and self.has_ended:
            self.previous.unlink(missing_ok=True)


MARKS = ("config.yaml", "done.json")
"""Files by which a directory is known to be a run's."""


def scan(runs: Path) -> list[RunDirectory]:
    """Every run below a directory, by name, also one that has lost its configuration."""
    return [RunDirectory(path) for path in sorted({path.parent for path in runs.glob("*/*") if path.name in MARKS})]
