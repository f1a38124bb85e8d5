"""Statistics over seeds against numpy and scipy.stats, run by run and step by step."""

import numpy as np
import polars as pl
import polars.testing
import pytest
import scipy.stats

from analysis import curves, over_seeds
from analysis.curves import varying_keys
from plugins.registry import UnknownName


def naive(df: pl.DataFrame, y: str, by: list[str], level: float) -> dict:
    """(group..., step) -> n, n_runs, mean, sd, low, high, by dictionaries and scipy.stats."""
    values, runs = {}, {}
    for row in df.iter_rows(named=True):
        group = tuple(row[key] for key in by)
        runs[group] = runs.get(group, 0) + 1
        for step, value in zip(row["step"] or [], row[y] or [], strict=True):
            if not np.isnan(value):
                values.setdefault((*group, step), []).append(value)
    expected = {}
    for cell, v in values.items():
        statistics = [len(v), runs[cell[:-1]], np.mean(v), np.nan, np.nan, np.nan]
        if len(v) > 1:
            sd = np.std(v, ddof=1)
            interval = scipy.stats.t(len(v) - 1, np.mean(v), sd / np.sqrt(len(v))).interval(level)
            statistics[3:] = [sd, *interval]
        expected[cell] = statistics
    return expected


def assert_statistics(curves: pl.DataFrame, expected: dict, n_keys: int) -> None:
    """Null where the reference has nan; 1e-12: float64 sums of few terms."""
    assert len(curves) == len(expected)
    for row in curves.iter_rows():
        statistics = [np.nan if value is None else value for value in row[n_keys:]]
        assert statistics == pytest.approx(expected[row[:n_keys]], rel=1e-12, nan_ok=True)


@pytest.mark.parametrize("level", [0.95, 0.5])
@pytest.mark.parametrize(
    "by", [[], ["model.gamma"], ["model.gamma", "training.batch_seed"], ["experiment"]]
)
def test_statistics_are_those_of_numpy_and_scipy_at_every_step(sweep, by, level):
    """Ragged, diverged, failed and single runs, nan records."""
    result = over_seeds(sweep, "test_loss", by, level).curves
    expected = naive(sweep, "test_loss", by, level)
    assert result.columns == [*by, "step", "n", "n_runs", "mean", "sd", "low", "high"]
    assert result.select(*by, "step").rows() == sorted(expected)
    assert_statistics(result, expected, len(by) + 1)


def test_one_key_may_be_a_plain_text(sweep):
    one, listed = (over_seeds(sweep, "test_loss", by) for by in ("model.gamma", ["model.gamma"]))
    assert one.curves.equals(listed.curves)


def test_runs_that_diverged_failed_or_ended_early_are_named(sweep):
    incomplete = over_seeds(sweep, "test_loss", "model.gamma").incomplete
    assert incomplete.rows() == [
        (1.5, "training.batch_seed = 1", "diverged", 40),
        (1.5, "training.batch_seed = 2", "failed", None),
        (1.5, "training.batch_seed = 3", "ok", 80),
    ]
    alone = over_seeds(sweep, "test_loss", ["model.gamma", "training.batch_seed"])
    assert alone.incomplete.drop("model.gamma").rows() == [
        (1, "run_id = 000000000000000b", "diverged", 40),
        (2, "run_id = 000000000000000c", "failed", None),
    ]
    assert (1.5, 2) not in alone.curves.select("model.gamma", "training.batch_seed").rows()


def test_a_metric_that_only_some_runs_have_names_the_others():
    df = pl.DataFrame({"k": ["a", "b"], "step": [[0], [0]], "y": [[1.0], None], "status": "ok"})
    result = over_seeds(df, "y")
    assert result.curves.rows() == [(0, 1, 2, 1.0, None, None, None)]
    assert result.incomplete.rows() == [("k = b", "ok", None)]


def test_a_run_whose_last_records_are_nan_ended_early():
    y = [[1.0, np.nan, np.nan], [1.0, 2.0, 3.0]]
    df = pl.DataFrame({"seed": [0, 1], "step": [[0, 5, 9]] * 2, "y": y, "status": "ok"})
    assert over_seeds(df, "y").incomplete.rows() == [("seed = 0", "ok", 0)]


def test_no_run_with_a_record_gives_no_step(sweep):
    failed = over_seeds(sweep.filter(pl.col("status") == "failed"), "test_loss")
    assert failed.curves.is_empty()
    assert failed.incomplete["status"].to_list() == ["failed"]


def test_null_is_a_group_of_its_own_and_comes_last():
    df = pl.DataFrame({"k": [None, 2, None], "step": [[0]] * 3, "y": [[1.0], [5.0], [3.0]]})
    result = over_seeds(df, "y", "k").curves
    assert result.select("k", "n", "mean").rows() == [(2, 1, 5.0), (None, 2, 2.0)]


def test_parts_of_a_big_frame_join_to_the_statistics_of_the_whole(sweep, monkeypatch):
    """Chan's update; mean 1e6 with sd 1 would lose six digits in a sum of squares."""
    generator = np.random.default_rng(1)
    data = 1e6 + generator.normal(size=(100, 4))
    df = pl.DataFrame({"seed": range(100), "step": [[0, 1, 2, 3]] * 100, "y": data.tolist()})
    monkeypatch.setattr(curves, "_ROWS", 7)
    result = over_seeds(df, "y").curves
    np.testing.assert_allclose(result["mean"], data.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(result["sd"], data.std(axis=0, ddof=1), rtol=1e-9)
    expected = naive(sweep, "test_loss", ["model.gamma"], 0.95)
    assert_statistics(over_seeds(sweep, "test_loss", "model.gamma").curves, expected, 2)


@pytest.mark.parametrize("by", [[], ["model.gamma"], ["training.batch_seed", "model.gamma"]])
@pytest.mark.parametrize("rows", [1, 3, 5_000])
def test_a_lazy_frame_gives_the_statistics_of_the_frame(sweep, monkeypatch, by, rows):
    """Incomplete runs and failed ones in any batch; 1e-14: sums in another order."""
    monkeypatch.setattr(curves, "_ROWS", rows)
    shuffled = sweep.sample(fraction=1, shuffle=True, seed=rows)
    for few in (pl.lit(True), pl.col("model.gamma") > 1):
        expected = over_seeds(sweep.filter(few), "test_loss", by)
        lazy = over_seeds(shuffled.lazy().filter(few), "test_loss", by)
        polars.testing.assert_frame_equal(lazy.curves, expected.curves, rel_tol=1e-14)
        assert lazy.incomplete.equals(expected.incomplete)


def test_a_lazy_frame_of_no_run_or_without_the_curve_is_an_error(sweep):
    with pytest.raises(ValueError, match="no runs"):
        over_seeds(sweep.lazy().filter(pl.col("model.gamma") > 9), "test_loss")
    with pytest.raises(UnknownName, match="did you mean 'test_loss'"):
        over_seeds(sweep.lazy(), "test_los")


def test_float32_curves_are_accumulated_in_float64():
    """0.1f + 2^14 runs: a float32 sum is off by 1e-5 or more."""
    df = pl.DataFrame(
        {"step": [[0]] * 2**14, "y": [[0.1]] * 2**14}, schema_overrides={"y": pl.List(pl.Float32)}
    )
    assert over_seeds(df, "y").curves["mean"][0] == pytest.approx(float(np.float32(0.1)), rel=1e-13)


def test_interval_covers_the_true_mean_as_often_as_it_says():
    """5 normal runs a group, 4000 independent (group, step): 0.95 within 4 standard errors."""
    generator = np.random.default_rng(2)
    df = pl.DataFrame(
        {
            "k": np.repeat(np.arange(400), 5),
            "step": [list(range(10))] * 2000,
            "y": generator.normal(3.0, 2.0, size=(2000, 10)).tolist(),
        }
    )
    result = over_seeds(df, "y", "k").curves
    covered = ((result["low"] <= 3.0) & (result["high"] >= 3.0)).mean()
    assert len(result) == 4000
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 4000)


@pytest.mark.parametrize(
    ("y", "by", "message"),
    [
        ("test_los", (), r"no curve 'test_los'; did you mean 'test_loss'\? \(known: .*weight_norm"),
        ("final_test_loss", (), "no curve 'final_test_loss'"),
        ("test_loss", "model.gama", r"no key 'model.gama'; did you mean 'model.gamma'\?"),
        ("test_loss", "weight_norm", "no key 'weight_norm'"),
    ],
)
def test_unknown_names_are_errors_with_the_nearest_match(sweep, y, by, message):
    with pytest.raises(UnknownName, match=message):
        over_seeds(sweep, y, by)


def test_other_bad_input_is_an_error(sweep):
    with pytest.raises(ValueError, match="plot_run"):
        over_seeds(sweep, "singular_values")
    with pytest.raises(ValueError, match="'status' has the name of a statistic"):
        over_seeds(sweep, "test_loss", "status")
    with pytest.raises(ValueError, match="level=95"):
        over_seeds(sweep, "test_loss", level=95)
    with pytest.raises(ValueError, match="no runs"):
        over_seeds(sweep.clear(), "test_loss")
    with pytest.raises(ValueError, match="differ in length"):
        over_seeds(pl.DataFrame({"step": [[0, 1]], "y": [[1.0]]}), "y")


def test_a_key_that_changes_with_the_groups_does_not_vary_within_them(sweep):
    """gamma and width zipped: runs of one gamma differ in their seeds only."""
    zipped = sweep.select(pl.col("model.gamma").alias("width"), pl.all())
    assert varying_keys(zipped) == ["width", "model.gamma", "training.batch_seed"]
    assert varying_keys(zipped, ["model.gamma"]) == ["training.batch_seed"]
    assert varying_keys(zipped, ["model.gamma", "training.batch_seed"]) == []
    named = over_seeds(zipped, "test_loss", "model.gamma").incomplete["run"].to_list()
    assert named == [f"training.batch_seed = {seed}" for seed in (1, 2, 3)]
