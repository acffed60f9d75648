"""The benchmark measures what it says, for every registered estimator; its numbers are not judged here."""

import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from argmax_vae.commands import bench, overhead
from argmax_vae.commands.bench import applicable, run_bench
from argmax_vae.errors import UsageError
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.runs import trackers
from argmax_vae.training.vae import DiscreteVAE


def test_bench_covers_the_registry_and_writes_ratios_within_the_run(tmp_path: Path) -> None:
    target = tmp_path / "speed.csv"
    frame = run_bench(["3x2"], [1], seconds=0.01, output=target, compiled=False)
    assert set(frame["estimator"]) == {name for name in ESTIMATORS if applicable(name, "3x2")}
    by_path = frame[frame["estimator"] == "direct"].set_index("path")
    rates = by_path["steps_per_second"]
    assert set(by_path.index) == {"fast", "dense"}
    assert by_path.loc["fast", "ratio_to_dense"] == round(rates["fast"] / rates["dense"], 2)
    pd.testing.assert_frame_equal(pd.read_csv(target), frame, check_dtype=False)


def test_rows_that_are_there_are_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of another device stay, and are no reference for this one."""
    target = tmp_path / "speed.csv"
    before = run_bench(["3x2"], [1], 0.01, target, compiled=False, estimators=["direct"])
    other = before.assign(device="another", steps_per_second=1.0)
    pd.concat([before, other]).to_csv(target, index=False)
    measured = []

    def rate(module: DiscreteVAE, *_: object) -> tuple[float, int]:
        measured.append((len(module.seeds), module.candidates.form))
        return 7.0, 1

    monkeypatch.setattr(bench, "steps_per_second", rate)
    frame = run_bench(["3x2"], [1, 2], 0.01, target, compiled=False, estimators=["direct"], add=True)
    assert measured == [(2, "auto"), (2, "dense")]
    assert len(frame) == 6
    rates = frame[frame["device"] != "another"].set_index(["path", "seeds"])
    assert (rates.loc[[("fast", 1), ("dense", 1)], "per_seed_gain"] == 1).all()
    expected = round(2 * 7.0 / rates.loc[("fast", 1), "steps_per_second"], 2)
    assert rates.loc[("fast", 2), "per_seed_gain"] == expected
    here = frame[(frame["device"] != "another") & (frame["seeds"] == 1)]
    assert list(here["steps_per_second"]) == list(before["steps_per_second"])
    assert frame.loc[frame["device"] == "another", "ratio_to_dense"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("model", ["deep", "mixture", "attributes"])
def test_other_models(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their own sizes; a dense reference behind deep decoders alone; labels in every step of the mixtures."""
    built = []

    def rate(module: DiscreteVAE, *_: object) -> tuple[float, int]:
        built.append(module)
        return (2.0 if module.candidates.form == "dense" else 7.0), 1

    monkeypatch.setattr(bench, "steps_per_second", rate)
    frame = run_bench([], [1], 0.01, None, compiled=False, estimators=["direct", "exact"], models=[model])
    assert set(frame["latents"]) == set(bench.SIZES[model])
    assert ("dense" in set(frame["path"])) == (model == "deep")
    assert ("exact" in set(frame["estimator"])) == (model != "deep")
    fast = frame[(frame["estimator"] == "direct") & (frame["path"] == "fast")]
    assert fast["ratio_to_dense"].isna().item() == (model != "deep")
    assert bench.summary(frame).startswith(
        "deep 20x3" if model == "deep" else "no ratio to dense: it is that of direct,"
    )
    assert {getattr(module, "phase", "") for module in built} == ({""} if model == "deep" else {"both"})


def test_what_is_not_there_is_not_measured() -> None:
    for asked, problem in (
        ({"estimators": ["amr"]}, "bench --estimators=amr must be one of direct, "),
        ({"models": ["depe"]}, "bench --model=depe must be one of linear, deep, mixture, attributes"),
        ({"precision": "half"}, "runtime.precision=half must be one of float32, tf32, bfloat16"),
        ({"estimators": ["arm"]}, "no estimator of arm applies to --latents 3x4"),
    ):
        with pytest.raises(UsageError, match=problem):
            run_bench(["3x4"], [1], seconds=0.01, output=None, **asked)


def test_exact_does_not_apply_beyond_its_limit() -> None:
    assert applicable("exact", "1x40")
    assert not applicable("exact", "20x10")


def test_overhead_is_what_is_neither_step_nor_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 400 images; a tracker that sleeps is seen, and the share stays between nothing and everything."""
    monkeypatch.setattr(overhead, "SMALLEST", (*overhead.SMALLEST, "runtime.compile=false"))
    bare = overhead.measure("none", 10, images=400)
    assert 0 < bare["overhead_percent"] < 100

    class Slow(trackers.NoTracker):
        def log(self, rows: object, epochs: object = (), draw: object = None) -> None:
            time.sleep(2 * bare["seconds"])

    monkeypatch.setitem(trackers.TRACKERS, "none", Slow)
    assert overhead.measure("none", 10, images=400)["overhead_percent"] > 50


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_a_cpu_is_not_measured_in_tf32() -> None:
    with pytest.raises(UsageError, match="bench --precision=tf32 must be float32 or bfloat16 on a CPU"):
        run_bench(["3x2"], [1], seconds=0.01, output=None, precision="tf32")
