"""Comparing two runs: pairing, what differs, what is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from argmax_vae.cli import main
from argmax_vae.errors import UsageError
from argmax_vae.report.comparison import compare, draw, text

PLAIN = {
    "data": {"name": "digits"},
    "model": {"latents": "3x4"},
    "estimator": {"name": "direct", "epsilon": {"name": "constant", "value": 0.1}},
    "objective": {"kl": "analytic"},
    "trainer": {"epochs": 5},
    "runtime": {"device": "cpu"},
    "seeds": [0, 1, 2, 3],
    "table": "x",
}


def run(path: Path, bounds: list[float], seeds: list[int] | None = None, done: bool = True, **changes: dict) -> Path:
    """A directory like that of a run; a bound of NaN is that of a seed that diverged."""
    path.mkdir()
    (path / "config.yaml").write_text(yaml.safe_dump(PLAIN | changes))
    frame = pd.DataFrame({"seed": seeds or list(range(len(bounds))), "test_bound": bounds, "test_kl": 1.0})
    frame["status"] = ["diverged" if pd.isna(bound) else "done" for bound in bounds]
    frame.to_csv(path / "seeds.csv", index=False)
    if done:
        (path / "done.json").write_text('{"status": "done"}')
    return path


GUMBEL = {"name": "gumbel_softmax", "temperature": {"name": "constant", "value": 0.1}}


def test_pairs_by_seed_and_leaves_out_what_diverged(tmp_path: Path) -> None:
    a = run(tmp_path / "a", [10.0, 11.0, 12.5, float("nan")])
    b = run(tmp_path / "b", [11.5, 10.0, 9.0, 3.0], seeds=[2, 1, 0, 3], estimator=GUMBEL, table="y", runtime={})
    found = compare(a, b)
    differences = [10.0 - 9.0, 11.0 - 10.0, 12.5 - 11.5]
    assert list(found.common) == [0, 1, 2]
    assert found.difference.mean == pytest.approx(1.0)
    assert found.p_value == 2 / 8
    assert found.lost == (1, 0)
    shown = text(found)
    assert "A − B = +1, 95 % interval +1 to +1, on 3 paired seeds" in shown
    assert "3x4 direct, KL analytic: test_bound 11.1667 ± 3.1, 3 seeds, 1 without a value" in shown
    assert stats.sem(differences) == 0


def test_names_the_choices_that_decide_numbers(tmp_path: Path) -> None:
    a = run(tmp_path / "a", [1.0, 2.0])
    b = run(tmp_path / "b", [1.5, 2.0], estimator=GUMBEL, table="y", seeds=[0, 1])
    assert compare(a, b).choices == {
        "estimator.epsilon": ({"name": "constant", "value": 0.1}, "–"),
        "estimator.name": ("direct", "gumbel_softmax"),
        "estimator.temperature": ("–", {"name": "constant", "value": 0.1}),
    }
    assert compare(a, a).choices == {}


def test_draws_both_runs_and_their_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = run(tmp_path / "a", [1.0, 2.0, 4.0]), run(tmp_path / "b", [1.5, 2.0, 3.0], estimator=GUMBEL)
    left, right = draw(compare(a, b)).axes
    assert [line.get_ydata().tolist() for line in left.lines[:3]] == [[1.0, 1.5], [2.0, 2.0], [4.0, 3.0]]
    assert right.lines[0].get_ydata().tolist() == [-0.5, 0.0, 1.0]
    assert main(["compare", str(a), str(b), "--output", str(tmp_path / "c.svg")]) == 0
    assert "<svg" in (tmp_path / "c.svg").read_text()
    assert "A − B = +0.1667" in capsys.readouterr().out


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    a = run(tmp_path / "a", [1.0, 2.0])
    with pytest.raises(UsageError, match=r"b is no run: it has no config\.yaml"):
        compare(a, tmp_path / "b")
    unfinished = run(tmp_path / "unfinished", [1.0], done=False)
    with pytest.raises(UsageError, match="unfinished is interrupted, not done: run the same command again"):
        compare(a, unfinished)
    with pytest.raises(UsageError, match=r"--metric bound: not among the numbers of .*: test_bound, test_kl"):
        compare(a, a, "bound")
    other = run(tmp_path / "other", [1.0, 2.0], seeds=[7, 8])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"no seed in common that is done: \[0, 1\], \[7, 8\]"):
        compare(a, other)


def test_other_formats_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = run(tmp_path / "a", [1.0, 2.0])
    assert main(["compare", str(a), str(a), "--output", str(tmp_path / "c.png")]) == 2
    assert "c.png: must end in .svg" in capsys.readouterr().err
    assert not (tmp_path / "c.png").exists()


def test_one_paired_seed_has_no_interval(tmp_path: Path) -> None:
    a, b = run(tmp_path / "a", [10.0]), run(tmp_path / "b", [11.5])
    told = text(compare(a, b))
    assert "A − B = -1.5 on one paired seed: an interval needs two" in told
    assert "nan" not in told


def test_more_than_two_are_compared_with_the_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the paired t test of SciPy; Holm's method takes the smaller p value twice."""
    values = {"a": [10.0, 11.0, 12.0], "b": [9.0, 10.2, 10.9], "c": [12.0, 13.5, 13.9]}
    paths = [run(tmp_path / name, found) for name, found in values.items()]
    assert main(["compare", *map(str, paths)]) == 0
    heads, *lines = capsys.readouterr().out.splitlines()
    assert "behind the best" in heads
    assert [line.split()[-1] for line in lines] == ["b", "a", "c"]
    p = {name: stats.ttest_rel(values[name], values["b"]).pvalue for name in ("a", "c")}
    smaller, larger = sorted(p.values())
    corrected = {smaller: 2 * smaller, larger: max(2 * smaller, larger)}
    assert "best" in lines[0]
    for line, name in zip(lines, "bac", strict=True):
        interval = stats.t.interval(0.95, len(values[name]) - 1, np.mean(values[name]), stats.sem(values[name]))
        assert f" {np.mean(values[name]):.2f} ± {(interval[1] - interval[0]) / 2:.2f} " in line
    for line, name, mean in ((lines[1], "a", 0.97), (lines[2], "c", 3.1)):
        assert f"+{mean:.2f} ± " in line
        assert f" {corrected[p[name]]:.2g} " in line
    assert main(["compare", *map(str, paths), "--output", str(tmp_path / "c.svg")]) == 2
