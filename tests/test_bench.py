"""The benchmark measures what it says, for every registered estimator; its numbers are not judged here."""

import time
from pathlib import Path

import pandas as pd
import pytest

from argmax_vae import overhead, tracking
from argmax_vae.bench import applicable, run_bench
from argmax_vae.errors import UsageError
from argmax_vae.estimators import ESTIMATORS


def test_bench_covers_the_registry_and_writes_ratios_within_the_run(tmp_path: Path) -> None:
    target = tmp_path / "speed.csv"
    frame = run_bench(["3x2"], [1, 2], seconds=0.01, output=target, compiled=False)
    assert set(frame["estimator"]) == {name for name in ESTIMATORS if applicable(name, "3x2")}
    assert set(frame.loc[frame["estimator"] == "direct", "path"]) == {"fast", "dense"}
    by_path = frame[(frame["estimator"] == "direct") & (frame["seeds"] == 2)].set_index("path")["steps_per_second"]
    fast = frame[(frame["estimator"] == "direct") & (frame["seeds"] == 2) & (frame["path"] == "fast")]
    assert fast["ratio_to_dense"].item() == round(by_path["fast"] / by_path["dense"], 2)
    assert (frame.loc[frame["seeds"] == 1, "per_seed_gain"] == 1).all()
    pd.testing.assert_frame_equal(pd.read_csv(target), frame, check_dtype=False)


def test_only_the_estimators_asked_for() -> None:
    frame = run_bench(["3x2"], [1], seconds=0.01, output=None, compiled=False, estimators=["arm", "exact"])
    assert list(frame["estimator"]) == ["arm", "exact"]
    with pytest.raises(UsageError, match="bench --estimators amr: unknown; allowed: direct, "):
        run_bench(["3x2"], [1], seconds=0.01, output=None, estimators=["amr"])


def test_deep_networks() -> None:
    frame = run_bench(
        ["3x2"], [1], seconds=0.01, output=None, compiled=False, estimators=["direct", "gumbel_softmax"], model="deep"
    )
    assert set(frame["model"]) == {"deep"}
    fast = frame[(frame["estimator"] == "direct") & (frame["path"] == "fast")]
    assert fast["how"].item().startswith("candidates: first-layer differences")
    with pytest.raises(UsageError, match="bench --model depe: unknown; allowed: linear, deep"):
        run_bench(["3x2"], [1], seconds=0.01, output=None, model="depe")


def test_exact_does_not_apply_beyond_its_limit() -> None:
    assert applicable("exact", "1x40")
    assert not applicable("exact", "20x10")


def test_overhead_is_what_is_neither_step_nor_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 400 images; a tracker that sleeps is seen, and the share stays between nothing and everything."""
    monkeypatch.setattr(overhead, "SMALLEST", (*overhead.SMALLEST, "runtime.compile=false"))
    plain = overhead.measure("none", 10, images=400)
    assert 0 < plain["overhead_percent"] < 100

    class Slow(tracking.NoTracker):
        def log(self, rows: object) -> None:
            time.sleep(2 * plain["seconds"])

    monkeypatch.setitem(tracking.TRACKERS, "none", Slow)
    assert overhead.measure("none", 10, images=400)["overhead_percent"] > 50
