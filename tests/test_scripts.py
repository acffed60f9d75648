"""Scripts that draw figures from finished runs."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from argmax_vae.config import compose, schema
from argmax_vae.data.celeba import ATTRIBUTES
from argmax_vae.data.images import Dataset, Images
from argmax_vae.runs.directory import RunDirectory
from argmax_vae.training import fit
from helpers import TINY, train

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    for name in ("figure4", "figure7"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def faces(images: int = 80) -> Dataset:
    """Images of 16 × 16 of which each attribute lights up one colour."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(images) % 8
    pixels = torch.randint(0, 60, (images, 3, 16, 16), generator=generator)
    for channel in range(3):
        pixels[(labels >> (2 - channel) & 1) == 1, channel] += 190
    split = Images(pixels.to(torch.uint8).flatten(1), labels)
    return Dataset("celeba", (3, 16, 16), split, split, split, binary=False)


def train_faces(runs: Path, *more: str) -> RunDirectory:
    small = [word for word in TINY if word.split("=")[0] not in ("data", "model.latents", "trainer.batch")]
    overrides = [
        *("experiment=attributes_direct", "model.channels=[4,4]", "model.row=5", "model.component_hidden=[5]"),
        *("model.gaussian=3", "supervision.labels=16", "trainer.batch=20", "seeds=[0,1]", f"paths.runs={runs}"),
    ]
    (cell,) = compose.cells("train", [*small, *overrides, *more])
    assert fit.train(cell) == "done"
    return cell.run


@pytest.fixture
def celeba_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    monkeypatch.setattr(schema, "load_dataset", lambda *arguments: faces())
    return train_faces(tmp_path)


def test_figure4_scores_every_seed_and_attribute(
    celeba_run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import figure4

    arguments = [str(celeba_run.path), "--output", str(tmp_path / "out"), "--codes", "4", "--epochs", "30"]
    assert figure4.main(arguments) == 0
    frame = pd.read_csv(tmp_path / "out" / "figure4.csv")
    assert [tuple(row) for row in frame[["seed", "attribute"]].to_numpy()] == [
        (seed, name) for seed in (0, 1) for name in ATTRIBUTES
    ]
    assert frame["generated_with_attribute"].between(0, 1).all()
    assert (frame["classifier_on_real"] > 0.9).all()
    assert (frame["more_frequent_value"] == 0.5).all(), "every combination equally often"
    final = pd.read_csv(celeba_run.path / "seeds.csv")
    assert frame["test_accuracy"].tolist() == [
        final[f"test_accuracy_{name}"][seed] for seed in (0, 1) for name in ATTRIBUTES
    ]
    assert "| direct | 16 | 2 | Eyeglasses |" in (tmp_path / "out" / "figure4.md").read_text()
    assert "| direct | 16 | 2 | Male |" in capsys.readouterr().out
    with Image.open(tmp_path / "out" / "figure4.png") as one, Image.open(tmp_path / "out" / "figure8.png") as more:
        assert more.size == (8 * 17 + 1, 24 * 17 + 1)
        alone = one.size
    other = train_faces(tmp_path, "supervision.labelled_weight=3")
    assert figure4.main([str(other.path), *arguments]) == 0
    rows = (tmp_path / "out" / "figure4.md").read_text().count("| direct | 16 | 2 | Eyeglasses |")
    assert rows == 2, "runs of another configuration are averaged"
    with Image.open(tmp_path / "out" / "figure4.png") as two:
        assert two.size == (2 * alone[0], alone[1])


def test_knowing_nothing_gets_the_more_frequent_value_right() -> None:
    import figure4

    split = Images(torch.zeros(4, 1, dtype=torch.uint8), torch.tensor([0b000, 0b001, 0b001, 0b011]))
    assert figure4.most_frequent(split, 3) == [1.0, 0.75, 0.75]


def test_columns_of_figure4_name_the_attributes_that_are_set() -> None:
    import figure4

    figure = figure4.draw([("direct", np.zeros((4, 8, 3)))], ["Smiling", "Male"])
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["none", "Male", "Smiling", "Smiling\nMale"]


class Colours(nn.Module):
    """Finds an attribute where its colour is bright."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) - 0.4


def test_generated_images_are_judged_by_what_was_asked_for(celeba_run: RunDirectory) -> None:
    """A classifier that is always right, on generated images that are the real means of each combination."""
    import figure4

    ((_, module, dataset),) = figure4.load([celeba_run.path])
    assert dataset.test.labels is not None
    means = torch.stack([dataset.test.pixels[dataset.test.labels == value].float().mean(0) for value in range(8)]) / 255
    assert figure4.accuracy(Colours(), dataset.test, dataset.shape) == [1.0, 1.0, 1.0]
    wrong = means.clone()
    wrong[:4] = means[4:]
    for images, expected in ((means, [1.0, 1.0, 1.0]), (wrong, [0.5, 1.0, 1.0])):
        figure4.class_conditional = lambda networks, seed, position, rows, images=images: images.expand(rows, -1, -1)
        rows = figure4.scores(celeba_run.path, Colours(), module, [1.0] * 3, 5)
        assert [row["generated_with_attribute"] for row in rows] == expected * 2


def test_faces_that_cannot_be_compared_are_one_clear_line(
    celeba_run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import figure4

    turned = train_faces(tmp_path, "data.attributes=[Male,Smiling,Eyeglasses]")
    blocked = tmp_path / "file"
    blocked.touch()
    capsys.readouterr()
    first = str(celeba_run.path)
    for arguments, problem in (
        ([first, first], f"{first} is given twice"),
        ([first, str(turned.path)], f"{turned.path} has the attributes Male, Smiling, Eyeglasses and the shape"),
        ([first, "--output", str(blocked)], f"cannot write to {blocked}"),
    ):
        assert figure4.main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"figure4: {problem}")
        assert error.count("\n") == 1


def test_a_run_of_another_model_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import figure4
    import figure7

    run = train(tmp_path)
    capsys.readouterr()
    assert figure4.main([str(run.path)]) == 2
    assert capsys.readouterr().err == (
        f"figure4: {run.path} is no run of model=attributes on a data set with attributes\n"
    )
    assert figure7.main([str(run.path), str(run.path)]) == 2
    assert capsys.readouterr().err == f"figure7: {run.path} is no run of model=mixture on a data set with classes\n"


def test_figure7_refuses_faces(celeba_run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    import figure7

    capsys.readouterr()
    assert figure7.main([str(celeba_run.path)] * 2) == 2
    assert capsys.readouterr().err.startswith(f"figure7: {celeba_run.path} is no run of model=mixture on a data set")


def test_figure7_puts_two_runs_side_by_side(tmp_path: Path) -> None:
    import figure7

    small = ("model=mixture", "model.hidden=[8]", "model.row=4", "model.component_hidden=[4]", "model.gaussian=2")
    run = train(tmp_path, *small, "model.discrete_hidden=[]", "model.decoder_hidden=[6]", "model.latents=1x10")
    assert figure7.main([str(run.path), str(run.path), str(tmp_path / "figure7.png")]) == 0
    with Image.open(tmp_path / "figure7.png") as picture:
        pixels = np.asarray(picture)
    side = 2 * (10 * 9 + 1)
    assert pixels.shape == (side, 2 * side + 2 * figure7.GAP)
    assert np.array_equal(pixels[:, :side], pixels[:, -side:])
    frame = pd.read_csv(tmp_path / "figure7.csv")
    assert list(frame["run"]) == [run.path.name] * 2
    assert frame["test_clustering_accuracy"].between(0.1, 1).all()


def test_figure7_names_what_it_cannot_draw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import figure7

    small = ("model=mixture", "model.hidden=[8]", "model.row=4", "model.component_hidden=[4]", "model.gaussian=2")
    run, other = (
        train(tmp_path, *small, "model.decoder_hidden=[6]", "model.latents=1x10", f"trainer.epochs={epochs}")
        for epochs in (1, 2)
    )
    capsys.readouterr()

    def refusal(output: str = "figure7.png") -> str:
        assert figure7.main([str(run.path), str(run.path), str(tmp_path / output)]) == 2
        return capsys.readouterr().err

    assert refusal("figure7.csv").endswith("figure7.csv: the picture's name must end in .png\n")
    (run.path / "seeds.csv").unlink()
    assert "seeds.csv: no such file" in refusal()
    other.best.replace(run.best)
    assert "best.ckpt belongs to another configuration" in refusal()
    assert not (tmp_path / "figure7.png").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_dashboard_shows_what_the_tracker_logs() -> None:
    pytest.importorskip("wandb_workspaces", reason="the extra argmax-vae[dashboard] is not installed")
    import dashboard

    view = dashboard.workspace("someone", "argmax-vae")
    curves, cost, images, tables = view.sections
    logged = {
        f"{split}_{what}" for split in ("validation", "test") for what in ("bound", "kl", "codes_in_use", "accuracy")
    }
    assert {panel.y[0].name if hasattr(panel.y[0], "name") else panel.y[0] for panel in curves.panels} <= logged
    assert all(panel.y.name == "final/test_bound" for panel in cost.panels)
    assert [panel.media_keys for panel in images.panels] == [["samples"], ["reconstructions"]]
    assert {"seeds", "figure2", "figure3"} <= {panel.table_name for panel in tables.panels}


def test_the_sweep_file_calls_the_command_line_with_keys_that_exist() -> None:
    sweep = yaml.safe_load((SCRIPTS / "wandb_sweep.yaml").read_text(encoding="utf-8"))
    assert sweep["command"][:3] == ["${env}", "argmax-vae", "train"]
    assert sweep["command"][-1] == "${args_no_hyphens}"
    proposed = [f"{key}={space['min']}" for key, space in sweep["parameters"].items()]
    (cell,) = compose.cells("train", [*sweep["command"][3:-1], *proposed])
    assert cell.config.tracker.name == "wandb"
    assert sweep["metric"] == {"name": "validation_bound", "goal": "minimize"}
