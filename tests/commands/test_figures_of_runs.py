"""Figures 4 and 7, which the networks of finished runs draw: `argmax-vae report figure4 --from RUN`."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from argmax_vae.cli import main
from argmax_vae.commands import classes, faces, judge
from argmax_vae.config import compose, schema
from argmax_vae.data.celeba import ATTRIBUTES
from argmax_vae.data.images import Dataset, Images
from argmax_vae.runs.directory import RunDirectory
from argmax_vae.training import fit
from argmax_vae.training.samples import class_conditional
from helpers import TINY, train


def report(name: str, *runs: RunDirectory, results: Path, more: tuple[str, ...] = ()) -> int:
    """The exit code of `argmax-vae report NAME --from RUN…`."""
    return main(["report", name, "--from", *(str(run.path) for run in runs), "--results", str(results), *more])


def coloured_faces(images: int = 80) -> Dataset:
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
    monkeypatch.setattr(schema, "load_dataset", lambda *arguments: coloured_faces())
    return train_faces(tmp_path)


def test_figure4_scores_every_seed_and_attribute(
    celeba_run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("--codes", "4", "--classifier-epochs", "30")
    assert report("figure4", celeba_run, results=tmp_path / "out", more=small) == 0
    frame = pd.read_csv(tmp_path / "out" / "figure4.csv")
    assert [tuple(row) for row in frame[["seed", "attribute"]].to_numpy()] == [
        (seed, name) for seed in (0, 1) for name in ATTRIBUTES
    ]
    for column in ("generated", "centred", "reconstructed", "component"):
        assert frame[f"{column}_with_attribute"].between(0, 1).all()
    assert (frame["classifier_on_real"] > 0.9).all()
    assert (frame["more_frequent_value"] == 0.5).all(), "every combination equally often"
    final = pd.read_csv(celeba_run.path / "seeds.csv")
    assert frame["test_accuracy"].tolist() == [
        final[f"test_accuracy_{name}"][seed] for seed in (0, 1) for name in ATTRIBUTES
    ]
    assert "| direct | 16 | balanced | 3 | no | 2 | Eyeglasses |" in (tmp_path / "out" / "figure4.md").read_text()
    assert "| direct | 16 | balanced | 3 | no | 2 | Male |" in capsys.readouterr().out
    assert main(["report", "figure4", "--check", "--results", str(tmp_path / "out")]) == 0
    with Image.open(tmp_path / "out" / "figure4.png") as one, Image.open(tmp_path / "out" / "figure8.png") as more:
        assert 2.5 < more.size[1] / more.size[0] < 4
        alone = one.size
    other = train_faces(tmp_path, "supervision.labelled_weight=3")
    assert report("figure4", other, celeba_run, results=tmp_path / "out", more=small) == 0
    rows = (tmp_path / "out" / "figure4.md").read_text().count("| direct | 16 | balanced | 3 | no | 2 | Eyeglasses |")
    assert rows == 2, "runs of another configuration are averaged"
    with Image.open(tmp_path / "out" / "figure4.png") as two:
        assert two.size == (2 * alone[0], alone[1])


def test_knowing_nothing_gets_the_more_frequent_value_right() -> None:
    split = Images(torch.zeros(4, 1, dtype=torch.uint8), torch.tensor([0b000, 0b001, 0b001, 0b011]))
    assert judge.most_frequent(split, 3) == [1.0, 0.75, 0.75]


def test_columns_of_figure4_name_the_attributes_that_are_set() -> None:
    figure = faces.draw([("direct", np.zeros((4, 8, 3)))], ["Smiling", "Male"])
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["none", "Male", "Smiling", "Smiling\nMale"]


class Colours(nn.Module):
    """Finds an attribute where its colour is bright."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) - 0.4


def test_generated_images_are_judged_by_what_was_asked_for(
    celeba_run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A classifier that is always right, on generated images that are the real means of each combination."""
    ((_, module, dataset),) = faces.load([celeba_run.path])
    assert dataset.test.labels is not None
    means = torch.stack([dataset.test.pixels[dataset.test.labels == value].float().mean(0) for value in range(8)]) / 255
    assert judge.accuracy(Colours(), dataset.test, dataset.shape) == [1.0, 1.0, 1.0]
    wrong = means.clone()
    wrong[:4] = means[4:]
    for images, expected in ((means, [1.0, 1.0, 1.0]), (wrong, [0.5, 1.0, 1.0])):
        monkeypatch.setattr(judge, "class_conditional", lambda *arguments, images=images: images.expand(5, -1, -1))
        rows = faces.scores(celeba_run.path, Colours(), module, dataset, [1.0] * 3, 5)
        assert [row["generated_with_attribute"] for row in rows] == expected * 2


def test_reconstructions_are_judged_by_what_the_images_have(
    celeba_run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against every image decoded alone, and judged: a decoder that lights up the colours of the combination."""
    ((_, module, dataset),) = faces.load([celeba_run.path])
    labels, networks = dataset.test.labels, judge.best_networks(module)
    assert labels is not None
    encodings = judge.encoded(module, 1, dataset.test.pixels)
    found = judge.reconstructed(module, 1, labels, encodings)
    for index in (0, 5, 79):
        pixels = (dataset.test.pixels[index] / 255).expand(2, 1, -1)
        logits, mean, _ = networks.encode(pixels)
        assert encodings.component[index] == logits[1, 0, 0].argmax()
        code = torch.eye(8)[labels[index]].expand(2, 1, 1, 8)
        alone = (networks.decode(code, mean)[1, 0].tanh() + 1) / 2
        torch.testing.assert_close(found[index].flatten(), alone)

    def colours(codes: Tensor, gaussian: Tensor) -> Tensor:
        bright = torch.stack([codes[..., 0, :] @ judge.bits(torch.arange(8), 3)[:, c] for c in range(3)], -1)
        return (2 * bright - 1).unsqueeze(-1).expand(*bright.shape, 256).flatten(-2)

    monkeypatch.setattr(networks, "decode", colours)
    shares = judge.judgements(Colours(), module, dataset, 1, 3)
    for column in ("generated", "centred", "reconstructed"):
        assert [share[f"{column}_with_attribute"] for share in shares] == [1.0] * 3


def test_images_of_a_component_are_counted_once_for_each_component() -> None:
    """Three images of component 1, two with its second attribute; one of component 2, with both as it has them."""
    labels, component = torch.tensor([0b01, 0b01, 0b10, 0b10]), torch.tensor([1, 1, 1, 2])
    assert judge.component_shares(labels, component, 4) == pytest.approx([(2 / 3 + 1) / 2, (2 / 3 + 1) / 2])


def test_centres_are_the_means_of_the_images_of_each_component(generator: torch.Generator) -> None:
    mean = torch.randn(4, 3, 2, generator=generator)
    centres = judge.component_centres(judge.Encoded(torch.tensor([2, 0, 2, 2]), mean))
    torch.testing.assert_close(centres[0], mean[1, 0])
    torch.testing.assert_close(centres[1], torch.zeros(2))
    torch.testing.assert_close(centres[2], mean[[0, 2, 3], 2].mean(0))


def test_codes_around_centres_are_those_of_the_prior_moved(celeba_run: RunDirectory) -> None:
    """Far centres: what the decoder gives for the centres themselves, to the size of the codes."""
    ((_, module, _),) = faces.load([celeba_run.path])
    networks = judge.best_networks(module)
    centres = 1e6 * torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    images = class_conditional(networks, 0, 0, 2, centres)
    outputs = networks.decode(torch.eye(8).unsqueeze(1).expand(2, 8, 1, 8), centres.expand(2, 8, 8, 3))[0]
    torch.testing.assert_close(images, ((outputs.tanh() + 1) / 2).expand(2, -1, -1), rtol=0, atol=0.02)
    plain = class_conditional(networks, 0, 0, 2)
    assert torch.equal(plain, class_conditional(networks, 0, 0, 2, torch.zeros(8, 3)))


def test_faces_that_cannot_be_compared_are_one_clear_line(
    celeba_run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turned = train_faces(tmp_path, "data.attributes=[Male,Smiling,Eyeglasses]")
    blocked = tmp_path / "file"
    blocked.touch()
    capsys.readouterr()
    for runs, results, problem in (
        ([celeba_run, celeba_run], tmp_path, f"{celeba_run.path} is given twice"),
        ([celeba_run, turned], tmp_path, f"{turned.path} has the attributes Male, Smiling, Eyeglasses and the shape"),
        ([celeba_run], blocked, f"cannot write to {blocked}"),
    ):
        assert report("figure4", *runs, results=results) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"argmax-vae: {problem}")
        assert error.count("\n") == 1


def test_a_run_of_another_model_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(tmp_path)
    capsys.readouterr()
    for name, runs, what in (("figure4", 1, "attributes"), ("figure7", 2, "classes")):
        assert report(name, *[run] * runs, results=tmp_path / "out") == 2
        model = {"attributes": "attributes", "classes": "mixture"}[what]
        line = f"argmax-vae: {run.path} is no run of model={model} on a data set with {what}\n"
        assert capsys.readouterr().err == line


def test_figure7_refuses_faces(celeba_run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert report("figure7", celeba_run, celeba_run, results=tmp_path / "out") == 2
    assert capsys.readouterr().err.startswith(f"argmax-vae: {celeba_run.path} is no run of model=mixture on a data set")


def test_figure7_puts_two_runs_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("model=mixture", "model.hidden=[8]", "model.row=4", "model.component_hidden=[4]", "model.gaussian=2")
    run = train(tmp_path, *small, "model.discrete_hidden=[]", "model.decoder_hidden=[6]", "model.latents=1x10")
    capsys.readouterr()
    assert report("figure7", run, run, results=tmp_path) == 0
    assert capsys.readouterr().out == f"{tmp_path}/figure7.png\n{tmp_path}/figure7.csv\n"
    with Image.open(tmp_path / "figure7.png") as picture:
        pixels = np.asarray(picture)
    assert 1.6 < pixels.shape[1] / pixels.shape[0] < 2
    drawn = classes.picture(run.path)
    assert drawn.shape == (10 * 9 + 1, 10 * 9 + 1)
    left, right = classes.draw([("without labels", drawn), ("5 labels", drawn)]).axes
    assert [axes.get_title(loc="left") for axes in (left, right)] == ["without labels", "5 labels"]
    assert np.array_equal(left.images[0].get_array(), drawn)
    assert [text.get_text() for text in left.get_xticklabels()] == [str(value) for value in range(10)]
    frame = pd.read_csv(tmp_path / "figure7.csv")
    assert list(frame["run"]) == [run.path.name] * 2
    assert frame["test_clustering_accuracy"].between(0.1, 1).all()


def test_figure7_names_what_it_cannot_draw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("model=mixture", "model.hidden=[8]", "model.row=4", "model.component_hidden=[4]", "model.gaussian=2")
    run, other = (
        train(tmp_path, *small, "model.decoder_hidden=[6]", "model.latents=1x10", f"trainer.epochs={epochs}")
        for epochs in (1, 2)
    )
    capsys.readouterr()

    def refusal(*runs: RunDirectory) -> str:
        assert report("figure7", *runs, results=tmp_path) == 2
        return capsys.readouterr().err

    assert refusal(run) == "argmax-vae: report figure7: --from names two runs, not 1\n"
    (run.path / "seeds.csv").unlink()
    assert "seeds.csv: no such file" in refusal(run, run)
    other.best.replace(run.best)
    assert "best.ckpt belongs to another configuration" in refusal(run, run)
    assert not (tmp_path / "figure7.png").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["figure4"], "figure4.csv: no such file; make it with: argmax-vae report figure4 --from RUN"),
        (["figure7"], "report figure7: name the runs that draw it: --from RUN RUN"),
        (["figure4", "--check", "--from", "a"], "report figure4: --from writes files, without --check and --format"),
        (["figure7", "--from", "a", "b", "--codes", "3"], "report figure7: --codes is for figure4 --from RUN"),
        (["figure4", "--classifier-epochs", "3"], "report figure4: --classifier-epochs is for figure4 --from RUN"),
        (["figure4", "--from", "a", "--codes", "0"], "--codes=0 must be at least 1"),
        (
            ["figure4", "--from", "nowhere"],
            "nowhere is no run: it has no config.yaml; `argmax-vae runs` lists the runs",
        ),
        (["figure2", "--from", "a"], "report figure2: --from is for figure4 and figure7"),
    ],
)
def test_what_draws_a_figure_is_said_in_a_line(
    arguments: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments, "--results", "."]) == 2
    assert capsys.readouterr().err == f"argmax-vae: {line}\n"
    assert list(tmp_path.iterdir()) == []
