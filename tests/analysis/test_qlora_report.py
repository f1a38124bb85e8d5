"""The report of qlora_probe: its sentences, with numbers that scipy confirms."""

import numpy as np
import pytest
from qlora_rows import diverged, result, write
from scipy import stats

from analysis.qlora_probe import report, runs_of
from qlora_probe.theory import rank_correlation


def report_of(store, *cells) -> str:
    """Its words, one space between them."""
    write(store, *cells)
    return " ".join(report(runs_of(store)).split())


def lr_cells(finals, **settings):
    return [
        ({"optim.lr": lr, "seed": seed}, result(final, seed=seed, **settings))
        for lr, of_seeds in finals.items()
        for seed, final in enumerate(of_seeds)
    ]


def test_the_best_learning_rate_comes_with_its_runner_up_and_the_spread_of_seeds(tmp_path):
    best, second = (4.0, 4.2, 4.4), (5.0, 5.1, 5.5)
    words = report_of(tmp_path, *lr_cells({1e-3: second, 1e-2: best, 1e-1: (7.0, 7.0, 7.0)}))
    half = stats.t.ppf(0.975, 2) * 0.2 / 3**0.5
    found = stats.ttest_rel(second, best).confidence_interval()
    assert (
        f"optim.lr = 0.01 ends lowest, at 4.2 +- {half:.2g} (SD 0.2); the runner-up 0.001 at 5.2"
        in words
    )
    assert (
        "The runner-up minus the best: 1, 95 % t interval over 3 seeds "
        f"{found.low:.3g} to {found.high:.3g}: told apart." in words
    )
    assert "may lie beyond" not in words


def test_a_best_learning_rate_at_the_edge_is_said_and_one_seed_has_no_spread(tmp_path):
    words = report_of(tmp_path, *lr_cells({1e-3: [5.0], 1e-2: [4.0]}))
    assert "0.01 ends lowest, at 4; the runner-up 0.001 at 5." in words
    assert "1; not two runs of each, so the spread of seeds is unknown." in words
    assert "0.01 is the largest tried: a better one may lie beyond." in words


def test_seeds_that_overlap_do_not_tell_learning_rates_apart(tmp_path):
    words = report_of(tmp_path, *lr_cells({1e-3: (4.0, 5.0), 1e-2: (4.5, 4.4)}))
    assert "over 2 seeds" in words
    assert "not told apart." in words


def test_whether_the_rank_matters_is_answered_under_each_rule(tmp_path):
    cells = [
        (
            {"lora.alpha_policy": policy, "lora.r": r, "seed": seed},
            result(5 + (4 / r if policy == "proportional" else 0.1 * seed) + 0.01 * seed, rank=r),
        )
        for policy in ("fixed", "proportional")
        for r in (2, 4, 8)
        for seed in (0, 1, 2)
    ]
    words = report_of(tmp_path, *cells)
    fixed, proportional = words.split("Did the rank matter?")[1].split("lora.alpha_policy = ")[1:3]
    assert "r = 2 minus r = 8: 0, 95 % t interval over 3 seeds 0 to 0: not told apart." in fixed
    assert "r = 2 minus r = 8: 1.5, 95 % t interval over 3 seeds 1.5 to 1.5: told" in proportional
    assert "The first update is 4 times as large at r = 8." in proportional


def test_forgetting_of_one_run_has_its_interval_of_several_their_spread(tmp_path):
    one = report_of(tmp_path / "one", ({"seed": 0}, result()))
    assert (
        "all runs (n = 1): change -0.25 (95 % interval over prompts -0.50 to +0.12) of the score "
        "on 6 prompts, forgetting significant; 2 lost, 0 gained, one-sided sign test p = 0.25."
        in one
    )
    other = {"forgetting_change": 0.05, "forgetting_verdict": "none", "forgetting_lost": 0}
    cells = [({"seed": 0}, result()), ({"seed": 1}, result(**other, forgetting_p=1.0))]
    two = report_of(tmp_path / "two", *cells)
    assert "all runs (n = 2): change -0.1 +- 1.9 (SD 0.21) of the score on 6 prompts" in two
    assert "significant in 1" in two
    assert "none in 1" in two
    assert "0 to 2 lost, 0 gained, one-sided sign test p = 0.25 to 1." in two


def test_sharpness_is_counted_against_both_limits(tmp_path):
    """50, 55, 60, 65 against 55; 500 against 995, 990, 985."""
    words = report_of(tmp_path, ({"seed": 0}, result()))
    assert (
        "above 2 / lr, the limit of gradient descent (sgd), in 2 of 4 measurements; at most 1.2 "
        "times it." in words
    )
    assert "(preconditioned Hessian), in 0 of 3 measurements; at most 0.51 times it." in words
    assert "rank correlation" not in words


def test_sharpness_and_the_gap_to_the_training_loss_are_correlated_over_runs(tmp_path):
    """Last sharpness 65, 60, 70, 80, 90; the gap falls by .1 with every seed."""
    cells = []
    for seed, last in enumerate((65.0, 60.0, 70.0, 80.0, 90.0)):
        own = result(seed=seed)
        own.curves["sharpness"][15] = last
        cells.append(({"seed": seed}, own))
    found = rank_correlation([65, 60, 70, 80, 90], -np.arange(5))
    assert f"rank correlation {found.rho:.2f} (p = {found.p:.2g}, 5 runs)" in report_of(
        tmp_path, *cells
    )
    assert found.rho == pytest.approx(-0.9)


def test_clipping_noise_overfitting_and_plateaus_are_counted(tmp_path):
    cells = [
        ({"seed": 0}, result(clip_fraction=1.0, overfit=True, plateau=True)),
        ({"seed": 1}, result(clip_fraction=0.5, noise_scale=50.0, plateau=True)),
    ]
    words = report_of(tmp_path, *cells)
    half = stats.t.ppf(0.975, 1) * 25
    assert f"75 +- {half:.2g} % (SD 35) of the updates measured." in words
    assert "batch 16 sequences: mostly noise." in words
    assert (
        "Overfit (held-out loss above 1.1 times the training loss of the last fifth): 1 of 2"
        in (words)
    )
    assert "Plateau (training loss of the last fifth flat within 1 %): 2 of 2 runs." in words


def test_runs_that_diverged_or_failed_are_named_and_not_in_the_means(tmp_path):
    cells = [
        ({"optim.lr": 1e-3, "seed": 0}, result(4.0)),
        ({"optim.lr": 1e-3, "seed": 1}, diverged()),
        ({"optim.lr": 1e-2, "seed": 0}, diverged()),
        ({"optim.lr": 1e-2, "seed": 1}, RuntimeError("no memory")),
    ]
    words = report_of(tmp_path, *cells)
    assert "1 ok, 2 diverged, 1 failed of 4." in words
    assert "diverged: run 000000000000000b, optim.lr = 0.001, seed = 1." in words
    assert "failed, 1 runs: RuntimeError: no memory" in words
    assert "optim.lr = 0.001 (n = 2): 8 before, 4 of 1 after: a fall of 50 % of 1" in words
    assert "optim.lr = 0.01 (n = 1): no run came to its end." in words
    assert "one learning rate came to an end." in words


def test_what_is_not_measured_is_said(tmp_path):
    words = report_of(tmp_path, ({"seed": 0}, RuntimeError("no memory")))
    assert "How did the runs end? * 0 ok, 0 diverged, 1 failed of 1." in words
    for line in (
        "Did the held-out loss fall? None of the 1 runs has reduction.",
        "Which learning rate was best? None of the 1 runs has final_eval_loss.",
        "Did the rank matter? None of the 1 runs has final_eval_loss.",
        "What was forgotten? None of the 1 runs has forgetting_change.",
        "How sharp was the loss? None of the 1 runs has sharpness.",
        "How many updates were clipped? None of the 1 runs has clip_fraction.",
        "Was the batch large against the gradient's noise? None of the 1 runs has noise_scale.",
    ):
        assert line in words.split("Not told by these runs")[1]
