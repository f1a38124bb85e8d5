"""What the report says of runs whose numbers are known."""

import math

import polars as pl
import pytest
from compressor_rows import DIM, costs, predictor, train, with_columns, write
from scipy.stats import t as student

from analysis.compressor import load_store, report
from compressor.theory import EXPECTED_COSINE


@pytest.fixture(scope="module")
def sizes(tmp_path_factory):
    """D' 2, 4 and 48 = D by two seeds."""
    folder = tmp_path_factory.mktemp("sizes")
    train(folder, "model.d_compressed=2,4,48", "train.seed=0,1")
    return load_store(folder)


def section(text: str, question: str) -> str:
    [found] = [part for part in text.split("\n\n") if part.startswith(question)]
    return " ".join(found.split())


def whole(text: str, question: str) -> list[str]:
    """The lines below a question, up to the next one."""
    after = text.split(f"{question}\n")[1].splitlines()
    end = next((i for i, line in enumerate(after) if line and line[0] != " "), len(after))
    return [line for line in after[:end] if line]


def test_tables_hold_the_numbers_of_the_rows(sizes):
    header, *rows = whole(report(sizes), "How well are the states reconstructed?")[:4]
    assert " ".join(header.split()) == (
        "D' (D/D') n cos of PCA centred mean only rel error of PCA published"
    )
    for line, k in zip(rows, (2, 4, 48), strict=True):
        own = sizes.rows.filter(k=k)
        cos, n = own["cos_heldout"], len(own)
        half = student.ppf(0.975, n - 1) * cos.std() / math.sqrt(n)
        assert line.split()[:6] == [
            str(k), f"({DIM / k:g}x)", "2", f"{cos.mean():.4f}", "+-", f"{half:.2g}",
        ]  # fmt: skip
        assert line.split()[6] == f"{own['cos_pca_heldout'][0]:.4f}"
        published = EXPECTED_COSINE.get(DIM / k)
        assert line.split()[-1] == (f"{published:.2f}" if published else "-")


def test_second_table_holds_errors_and_gaps(sizes):
    header, *rows = whole(report(sizes), "How well are the states reconstructed?")[4:8]
    assert header.split()[-4:] == ["gap", "train", "gap", "heldout"]
    own = sizes.rows.filter(k=4)
    assert f"{own['gap_pca_train'].mean():.2%} +- " in rows[1]
    assert f"{(own['mse_heldout'] / own['mse_train']).mean():.3f} +- " in rows[1]
    assert rows[2].split()[-2:] == ["-", "-"]  # PCA has no error there


def test_the_smallest_rank_with_the_cosine_and_what_it_costs(sizes):
    """cos by formula: .90, .96 and 1."""
    cos = pl.col("k").replace_strict({2: 0.9, 4: 0.96, 48: 1.0}, return_dtype=pl.Float64)
    store = with_columns(sizes, **costs(), cos_heldout=cos, cos_mean_only_heldout=pl.lit(0.75))
    said = section(report(store), "Which D' is enough?")
    assert "The smallest D' with a cosine above 0.95 is 4 (12x), at 0.9600;" in said
    assert "the mean state alone, which tells nothing of a token, has 0.7500." in said
    # kl: 1/4 and 1.1/4, so .2625, and 1.5 times that as nats of loss.
    assert "costs 0.394 +- 0.24 nats per token, a KL divergence of 0.263 +- 0.16 nats" in said
    assert "changes the first choice of 20.8% of the tokens" in said


def test_no_rank_with_the_cosine_is_said(sizes):
    cos = pl.col("k").replace_strict({2: 0.1, 4: 0.3, 48: 0.2}, return_dtype=pl.Float64)
    said = section(report(with_columns(sizes, cos_heldout=cos)), "Which D' is enough?")
    assert "No D' has a cosine above 0.95; D' = 4 comes to 0.300." in said


def test_costs_are_tabled_beside_pca_and_random(sizes):
    text = report(with_columns(sizes, **costs()))
    base, header, *rows = whole(text, "What does that cost the language model?")
    assert base.strip() == "nll of the language model itself: 2.000"
    assert " ".join(header.split()).endswith(
        "nll of PCA random KL of PCA random top-1 of PCA random"
    )
    assert [row.split()[0] for row in rows] == ["2", "4", "48"]
    assert "6.500" in rows[0]  # 2 + 1.5 * 3, of the random one
    assert " 0.45 " in rows[0]  # .9 / 2, of PCA


def test_gaps_are_counted(sizes):
    heldout = pl.Series([-0.01, 0.02, 0.03, 0.04, None, None])
    store = with_columns(sizes, gap_pca_heldout=heldout.to_list())
    said = section(report(store), "Does training beat PCA?")
    assert "cannot: PCA is the optimum" in said
    assert "(n = 4) (of 2 more PCA has no error)" in said
    assert "Held-out: -1.000% to +4.000%; below that of the train split's PCA in 1 of 4" in said


def test_published_estimates_are_held_against_runs_of_their_ratio(sizes):
    said = section(report(sizes), "Do the published estimates of the cosine hold?")
    assert said.count("published") == 3  # the question, 24x and 12x
    mean = sizes.rows.filter(k=4)["cos_heldout"].mean()
    assert f"12x: {mean:.4f} +- " in said
    assert "published 0.96." in said


def test_stage_1b_says_what_it_forgot(sizes):
    after = pl.lit(0.75)
    columns = {"mse_1a_before": pl.lit(0.5), "mse_1a_after": after, "forget_1a": pl.lit(0.5)}
    said = section(report(with_columns(sizes, **columns)), "What did stage 1b forget?")
    assert "D' = 4 (n = 2): error on the held-out states of stage 1a 0.5 before, 0.75 after" in said
    assert "(+50.0%)" in said


def test_prefixes_and_separate_ones_are_told_apart(tmp_path):
    train(tmp_path, "model.nested=[2,4]", "model.d_compressed=4")
    train(tmp_path, "model.d_compressed=4")
    store = load_store(tmp_path)
    said = section(report(store), "Do nested prefixes lag behind?")
    table = store.table("nested").filter(k=2)
    gap = {split: table.filter(split=split)["gap_pca"][0] for split in ("train", "heldout")}
    assert (
        f"D' = 2, W = prefix of a nested W (n = 1): gap {gap['train']:.2%} on train, "
        f"{gap['heldout']:.2%} held-out." in said
    )
    assert said.count("trained alone") == 1


def test_the_predictor_is_held_against_its_baselines(tmp_path):
    write(tmp_path, *(({"trm.seed": seed}, predictor(seed)) for seed in range(3)))
    text = report(load_store(tmp_path))
    header, *rows, sentence, _ = whole(text, "Does recursion predict better than its baselines?")
    assert header.split() == [
        *("method", "n", "r2", "cos", "parameters", "FLOPs", "in", "training"),
    ]
    assert [row.split()[0] for row in rows] == [
        "train", "copy", "ridge", "one", "one", "recursive",
    ]  # fmt: skip
    # mean .61, SD .01: half an interval is 4.303 * .01 / sqrt(3)
    last = " ".join(rows[-1].split())
    assert last == "recursive 3 0.6100 +- 0.025 0.6600 +- 0.025 500 5000 50"
    assert "R^2 of the recursive predictor 0.610; the best baseline, one pass, equal" in sentence
    assert "No finished run of compressor/train" in section(text, "Not told by these runs")


def test_failed_and_diverged_runs_are_counted(sizes):
    status = ["ok", "ok", "ok", "diverged", "failed", "failed"]
    error = [None] * 4 + ["Traceback\nValueError: too large"] * 2
    said = section(report(with_columns(sizes, status=status, error=error)), "How did the runs end?")
    assert "compressor/train: 3 ok, 1 diverged, 2 failed of 6." in said
    assert "failed, 2 runs: ValueError: too large" in said
