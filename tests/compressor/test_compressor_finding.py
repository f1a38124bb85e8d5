"""The numbers of docs/compressor.md, computed anew from the store that holds its runs."""

import polars as pl
import pytest

from plugins.load import load_sweep, load_table

SIZES = [12, 24, 48, 96, 192]


@pytest.fixture
def store(root):
    return root / "docs" / "data" / "compressor_smollm2"


@pytest.fixture
def runs(store):
    return load_sweep(store, params="all")


@pytest.fixture
def sweep(runs):
    """Stage 1a on the default text at the defaults."""
    return runs.filter(
        pl.col("stage") == "1a",
        pl.col("data.corpus").is_null(),
        pl.col("eval.downstream"),
    )


def means(frame, column, by="k", places=3):
    rows = frame.group_by(by).agg(pl.len(), pl.col(column).mean()).sort(by)
    assert set(rows["len"]) == {3}
    return [round(mean, places) for mean in rows[column]]


def test_reconstruction_over_sizes(sweep):
    assert sorted(set(sweep["k"])) == SIZES
    assert means(sweep, "cos_heldout") == [0.875, 0.908, 0.933, 0.954, 0.974]
    assert means(sweep, "cos_pca_heldout") == [0.875, 0.908, 0.933, 0.954, 0.975]
    assert means(sweep, "cos_centered_heldout") == [0.729, 0.809, 0.863, 0.908, 0.95]
    assert means(sweep, "rel_error_heldout") == [0.478, 0.413, 0.356, 0.297, 0.224]
    assert means(sweep, "variance_ratio_heldout") == [0.248, 0.366, 0.498, 0.641, 0.791]
    assert means(sweep, "variance_ratio_total_heldout") == [0.561, 0.672, 0.756, 0.831, 0.904]
    assert means(sweep, "gap_pca_train", places=4) == [0.0007, 0.0017, 0.0016, 0.004, 0.0093]
    ratio = sweep.with_columns(r=pl.col("mse_heldout") / pl.col("mse_train"))
    assert means(ratio, "r", places=2) == [1.03, 1.04, 1.06, 1.08, 1.12]
    assert set(sweep["cos_mean_only_heldout"].round(2)) == {0.7}


def test_cost_downstream(sweep):
    assert set(sweep["nll_base"].round(2)) == {3.47}
    assert means(sweep, "nll_rec", places=2) == [5.61, 5.19, 4.7, 4.26, 3.82]
    assert means(sweep, "nll_pca", places=2) == [5.59, 5.2, 4.7, 4.26, 3.82]
    assert means(sweep, "kl", places=2) == [2.41, 1.98, 1.44, 0.95, 0.46]
    assert means(sweep, "top1_agree", places=2) == [0.21, 0.25, 0.37, 0.47, 0.61]


def test_updates_decide(runs):
    at_48 = runs.filter(
        pl.col("k") == 48, pl.col("data.corpus").is_null(), pl.col("train.max_epochs") != 10
    )
    gaps = means(at_48, "gap_pca_train", ["train.lr", "n_steps"], places=4)
    assert gaps == [1.0414, 0.0178, 0.0935, 0.0002]


def test_no_objective_has_a_better_cosine(runs):
    objectives = runs.filter(pl.col("model.init") == "pca")
    assert means(objectives, "cos_heldout", "train.objective") == [0.933] * 3
    gaps = dict(
        zip(
            ["cosine", "mse", "relative"],
            means(objectives, "gap_pca_train", "train.objective"),
            strict=True,
        )
    )
    assert 390 < gaps["cosine"] < 410
    assert gaps["relative"] < 0.003


def test_a_start_from_text_helps_at_an_equal_rate(runs):
    traces = runs.filter(
        (pl.col("stage") == "1b") | (pl.col("data.corpus") == "column_arithmetic"),
        ~pl.col("eval.downstream"),
    )

    def gaps(stage, lr):
        chosen = traces.filter(pl.col("stage") == stage, (pl.col("train.lr") - lr).abs() < 1e-6)
        return means(chosen, "gap_pca_train")

    assert gaps("1b", 0.0333333) == [0.001, 0.002, 0.007, 0.03, 0.105]
    assert gaps("1a", 0.01) == [0.002, 0.007, 0.014, 0.08, 0.251]
    assert gaps("1b", 0.01) == [0.006, 0.018, 0.061, 0.157, 0.326]  # x .3
    assert gaps("1a", 0.003) == [0.014, 0.035, 0.106, 0.318, 0.69]
    forgotten = traces.filter(stage="1b")["forget_1a"]
    assert 1.3 < forgotten.min() < forgotten.max() < 2.7


def test_one_nested_run_does_for_five(runs, store):
    table = load_table(store, name="nested").filter(split="train")
    table = table.join(runs.select("run_id", "train.lr", "model.nested_weights"), on="run_id")
    equal = table.filter(pl.col("model.nested_weights") == "equal")
    slow, fast = (equal.filter(pl.col("train.lr") == lr) for lr in (0.01, 0.02))
    assert means(slow, "gap_pca", places=4) == [0.0014, 0.0032, 0.0051, 0.0077, 0.0084]
    assert means(fast, "gap_pca", places=4) == [0.0004, 0.0011, 0.0018, 0.0031, 0.0061]
    weighted = table.filter(
        pl.col("model.nested_weights") == "inverse_pca", pl.col("train.lr") == 0.01
    )
    assert means(weighted, "gap_pca", places=4) == [0.0083, 0.0074, 0.0107, 0.0123, 0.0059]


@pytest.fixture
def predictors(root):
    return load_sweep(root / "docs" / "data" / "compressor_trm", params="all").sort("train.seed")


METHODS = ("trm", "ridge", "one_pass", "equal_flops")


@pytest.mark.parametrize(
    ("source", "task", "expected"),
    [
        ("tiny", "depth", [[0.98, 0.979, 0.984], [0.958] * 3, [0.994] * 3, [0.998, 0.998, 0.996]]),
        (
            "tiny",
            "next",
            [[0.288, 0.291, 0.268], [0.181] * 3, [0.4, 0.41, 0.409], [0.496, 0.501, 0.496]],
        ),
        ("smollm2", "depth", [[0.615], [0.552], [0.724], [0.756]]),
    ],
)
def test_recursion_beats_ridge_and_loses_to_its_own_net(predictors, source, task, expected):
    runs = predictors.filter(pl.col("lm.source") == source, pl.col("task") == task)
    assert set(runs["n_updates"]) == {320}
    assert set(runs["effective_layers"]) == {336}
    assert [runs[f"r2_{method}"].round(3).to_list() for method in METHODS] == expected
    assert (runs["r2_ridge"] < runs["r2_trm"]).all()
    assert (runs["r2_trm"] < runs["r2_one_pass"]).all()


def test_recursion_gains_nothing_over_ridge_downstream(predictors):
    depth = predictors.filter(pl.col("lm.source") == "tiny", pl.col("task") == "depth")
    assert (depth["nll_trm"] - depth["nll_ridge"]).abs().max() < 0.003
    assert (depth["nll_ridge"] - depth["nll_rec"]).min() > 0.03
    assert set(depth["cos_copy"].round(2)) == {0.97}
    assert set(depth["r2_copy"].round()) == {-14}
