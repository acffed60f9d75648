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
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from argmax_vae import __version__
from argmax_vae.errors import UsageError
from argmax_vae.files import claimed, write_atomic, write_csv, write_json, write_text

NOT_IDENTITY = ("runtime", "tracker", "paths", "table", "protocol", "chosen", "laboratory")
LATER_KEYS: dict[str, Any] = {
    "model.gaussian_noise": "shared",
    "model.negative_slope": 0.01,
    "model.component_negative_slope": 0.01,
    "supervision.sampling": "with_replacement",
    "supervision.schedule_starts": "with_training",
}
"""Keys that earlier versions lack, with the value that stands for what those did: it is no part of the identity."""


def identity(plain: Mapping[str, Any]) -> str:
    """Ten hexadecimal digits of the SHA-256 of everything that decides a run's numbers."""
    kept = {key: without_later_keys(key, value) for key, value in plain.items() if key not in NOT_IDENTITY}
    if kept.get("supervision", {}).get("training") == "none":
        del kept["supervision"]
    precision = plain.get("runtime", {}).get("precision", "float32")
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


def flat(plain: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys with their values, in their order; an empty section is a value."""
    for key, value in plain.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def run_name(plain: Mapping[str, Any]) -> str:
    """Readable name of a run, ending in its identity."""
    parts = (
        plain["data"]["name"],
        plain["model"]["name"],
        plain["model"]["latents"],
        plain["estimator"]["name"],
        f"kl_{plain['objective']['kl']}",
        identity(plain),
    )
    return "-".join(parts)


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run."""

    path: Path

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "RunDirectory":
        """The directory that belongs to a configuration, whether it exists or not."""
        return cls(Path(plain["paths"]["runs"]) / run_name(plain))

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
    def is_done(self) -> bool:
        return (self.path / "done.json").exists()

    @property
    def outcome(self) -> dict[str, Any]:
        """What the done marker of a finished run says: status, seeds, seconds."""
        return dict(json.loads((self.path / "done.json").read_text(encoding="utf-8")))

    @property
    def status(self) -> str:
        """done, running, failed, interrupted, or missing."""
        if self.is_done:
            return "done"
        if self.is_running:
            return "running"
        if (self.path / "error.txt").exists():
            return "failed"
        return "interrupted" if self.path.exists() else "missing"

    @property
    def reason(self) -> str:
        """The last line of the traceback of a run that failed, else nothing."""
        try:
            lines = (self.path / "error.txt").read_text(encoding="utf-8").strip().splitlines()
        except FileNotFoundError:
            return ""
        return lines[-1] if lines else ""

    @property
    def resumes(self) -> bool:
        """Whether the run has a checkpoint of its own to go on from."""
        return self.checkpoint.exists() or self.previous.exists()

    def start(self, plain: Mapping[str, Any], continues: "RunDirectory | None" = None, device: str = "cpu") -> None:
        """Create the directory with configuration and provenance; of a run that resumes the first origin is kept.

        Raises UsageError when it cannot be written.
        """
        write_text(self.path / "config.yaml", yaml.safe_dump(dict(plain), sort_keys=False, allow_unicode=True))
        origin = provenance()
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
        if not path.is_file():
            raise UsageError(f"{self.path} is no run: it has no config.yaml; `argmax-vae runs` lists the runs")
        try:
            plain = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError):
            plain = None
        if not isinstance(plain, dict):
            raise UsageError(f"{path} is damaged; remove the directory and train again")
        return plain

    def provenance(self) -> dict[str, Any]:
        """By what the run was made. Raises UsageError when that is missing or damaged."""
        path = self.path / "provenance.json"
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            raise UsageError(f"{path} is missing or damaged; remove the directory and train again") from None

    def seeds(self) -> pd.DataFrame:
        """The final numbers, a row per seed. Raises UsageError when they are missing or damaged."""
        path = self.path / "seeds.csv"
        if not self.is_done:
            raise UsageError(f"{self.path} is {self.status}, not done: run the same command again to finish it")
        try:
            return pd.read_csv(path)
        except (OSError, ValueError):
            raise UsageError(f"{path} is missing or damaged; remove the directory and train again") from None


@cache
def commit() -> tuple[str, bool]:
    """The commit of the package's source and whether it has uncommitted changes; empty where nothing tells.

    The environment variable ARGMAX_VAE_COMMIT tells first, on a machine that got the files without their repository:
    a commit, with `-dirty` behind it for uncommitted changes. A repository that does not track the package's files,
    such as one around a virtual environment, says nothing of them. Raises UsageError when the variable holds no commit.
    """
    if given := os.environ.get("ARGMAX_VAE_COMMIT", ""):
        if not re.fullmatch("[0-9a-f]{7,40}(-dirty)?", given):
            raise UsageError(f"ARGMAX_VAE_COMMIT={given} must be a commit's 7 to 40 digits, with -dirty behind or not")
        return given.removesuffix("-dirty")[:12], given.endswith("-dirty")
    here = Path(__file__)

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=here.parent, capture_output=True, text=True, check=True, timeout=30
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "--", here.name)
        return git("rev-parse", "--short=12", "HEAD"), bool(git("status", "--porcelain", "--", "."))
    except (OSError, subprocess.SubprocessError):
        return "", False


def device_name(device: str) -> str:
    """Human name of `cpu` or `cuda`."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if cpuinfo.exists()
        else []
    )
    return f"{names[0] if names else platform.processor() or platform.machine()} ({os.cpu_count()} cores)"


def provenance() -> dict[str, Any]:
    """What a number depends on besides the configuration."""
    name, dirty = commit()
    packages = ("torch", "pytorch-lightning", "hydra-core", "numpy", "pandas")
    return {
        "version": __version__,
        "commit": name,
        "dirty": dirty,
        "command": " ".join(sys.argv),
        "python": platform.python_version(),
        "packages": {package: version(package) for package in packages},
    }


def origins(stored: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Everything that trained a part of a run, from its provenance: its first origin, then what is named in that."""
    yield stored
    continued = [stored["continues"]] if "continues" in stored else []
    for other in (*stored.get("resumed", []), *continued, *stored.get("joins", [])):
        yield from origins(other)


def commits(stored: Mapping[str, Any]) -> str:
    """The commits that trained a part of a run, each once, from its provenance."""
    return ", ".join(dict.fromkeys(filter(None, (each["commit"] for each in origins(stored)))))


def shorter(plain: Mapping[str, Any]) -> RunDirectory | None:
    """The longest finished run beside this one that differs from it only in having fewer epochs, if there is one.

    What a run does in an epoch does not depend on how many there are, so the longer run can go on from there.
    """
    run, epochs = RunDirectory.of(plain), plain["trainer"]["epochs"]
    found = {}
    for path in run.path.parent.glob(f"{run.path.name.rsplit('-', 1)[0]}-*/done.json"):
        other = RunDirectory(path.parent)
        stored = other.config()
        before = stored["trainer"]["epochs"]
        same = identity({**stored, "trainer": {**stored["trainer"], "epochs": epochs}}) == identity(plain)
        finished = other.outcome["status"] == "done"
        if same and finished and before < epochs and other.checkpoint.exists():
            found[before] = other
    return found[max(found)] if found else None


def scan(runs: Path) -> list[RunDirectory]:
    """Every run below a directory, by name."""
    return [RunDirectory(path.parent) for path in sorted(runs.glob("*/config.yaml"))]


RECORD_COLUMNS = {
    "data": ("data", "name"),
    "binarization": ("data", "binarization"),
    "model": ("model", "name"),
    "latents": ("model", "latents"),
    "estimator": ("estimator", "name"),
    "kl": ("objective", "kl"),
    "learning_rate": ("optim", "learning_rate"),
    "samples": ("trainer", "final_samples"),
}


def record(run: RunDirectory, table: str, protocol: str) -> pd.DataFrame:
    """The rows of `results/runs.csv` for a finished run: a row per seed, choices beside numbers."""
    plain = run.config()
    seeds = run.seeds()
    before: dict[str, Any] = {"table": table, "protocol": protocol, "run": run.path.name}
    for column, (section, key) in RECORD_COLUMNS.items():
        before[column] = plain[section][key]
    if plain.get("supervision", {}).get("training", "none") != "none":
        before["labelled_weight"] = plain["supervision"]["labelled_weight"]
    from argmax_vae.config import from_plain
    from argmax_vae.gradients import decoder_evaluations

    config = from_plain(plain)
    before["decoder_evaluations"] = decoder_evaluations(config.estimator, config.model.n, config.model.k)
    origin = run.provenance()
    after = {
        "torch": origin["packages"]["torch"],
        "version": origin["version"],
        "commit": commits(origin),
        "dirty": any(each["dirty"] for each in origins(origin)),
        "config_hash": identity(plain),
    }
    return pd.concat([pd.DataFrame([before] * len(seeds)), seeds, pd.DataFrame([after] * len(seeds))], axis=1)


def curves(run: RunDirectory, table: str, protocol: str) -> pd.DataFrame:
    """The rows of `results/curves.csv` for a run: validation and test bound of every evaluation and seed."""
    plain = run.config()
    metrics = pd.read_csv(run.path / "metrics.csv")
    latents = [int(part) for part in plain["model"]["latents"].split("x")]
    frame = metrics[["seed", "epoch", "validation_bound", "test_bound"]].round(4)
    labels: dict[str, Any] = {
        "table": table,
        "protocol": protocol,
        "run": run.path.name,
        "n": latents[0],
        "k": latents[1],
        "estimator": plain["estimator"]["name"],
        "kl": plain["objective"]["kl"],
    }
    if "validation_accuracy" in metrics:
        labels |= {"data": plain["data"]["name"], "labels": plain["supervision"]["labels"]}
        frame[["validation_accuracy", "test_accuracy"]] = metrics[["validation_accuracy", "test_accuracy"]]
    for position, (column, value) in enumerate(labels.items()):
        frame.insert(position, column, value)
    return frame


CELL_COLUMNS = ["table", "protocol", "estimator", "data", "n", "k", "labels", "run"]


def read_record(path: Path) -> pd.DataFrame:
    """A csv of record as the text that it is."""
    return pd.read_csv(path, keep_default_na=False, dtype=str)


def cells_of(rows: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """The cell of every row, from these columns; in tables of searches, where any key may differ, every run."""
    text = rows[list(columns)].astype(str)
    if "run" in columns:
        text["run"] = text["run"].where(text["table"].str.endswith("_search"), "")
    return pd.Series(list(text.itertuples(index=False, name=None)), index=rows.index, dtype=object)


def merge_into(path: Path, rows: pd.DataFrame) -> None:
    """Put rows into a csv of record in place of those of the same cells, keeping all others."""
    if path.exists():
        others = read_record(path)
        columns = [name for name in CELL_COLUMNS if name in rows and name in others]
        kept = ~cells_of(others, columns).isin(set(cells_of(rows, columns)))
        rows = pd.concat([others[kept], rows.astype(object)], ignore_index=True)
    write_csv(path, rows)


def smaller_than_recorded(path: Path, rows: pd.DataFrame, epochs: Mapping[str, int]) -> dict[tuple[str, str, str], str]:
    """Runs, by table, protocol and name, of cells with more epochs or seeds in a csv of record: how many both have.

    `epochs`: those that were asked of every run, which seeds that diverged did not reach.
    """
    if not path.exists():
        return {}
    others = read_record(path)
    columns = [name for name in CELL_COLUMNS if name in rows and name in others]
    recorded = dict(list(others.groupby(cells_of(others, columns))))
    found = {}
    for cell, group in rows.groupby(cells_of(rows, columns)):
        if cell not in recorded:
            continue
        before = pd.to_numeric(recorded[cell]["epochs"]).max(), recorded[cell]["seed"].nunique()
        now = max(epochs[name] for name in group["run"]), group["seed"].nunique()
        if before[0] > now[0] or before[1] > now[1]:
            counts = [f"{number:g} epochs of {seeds} seeds" for number, seeds in (before, now)]
            label = " ".join(filter(None, cell))
            for table, protocol, name in group[["table", "protocol", "run"]].itertuples(index=False, name=None):
                found[table, protocol, name] = f"{label}: {counts[0]} stay, not replaced by {counts[1]}"
    return found
