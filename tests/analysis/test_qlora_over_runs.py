"""Figures of qlora_probe over runs, read back from their artists."""

import numpy as np
import polars as pl
import pytest
from artists import (
    assert_inside,
    assert_legend_beside,
    crosses,
    figure_legend_texts,
    figure_legend_title,
    legend_texts,
    legend_title,
)
from qlora_rows import diverged, result, write
from scipy import stats

from analysis.qlora_probe import (
    NotMeasured,
    load_run,
    plot_final_loss,
    plot_forgetting_over_runs,
    plot_loss_curves,
    plot_ranks,
    runs_of,
)
from analysis.qlora_probe.runs import leading_keys
from plugins.registry import UnknownName

FINALS = {1e-4: (6.0, 6.5, 7.0), 1e-3: (4.0, 4.25, 4.75), 1e-2: (5.0, 5.0, 5.0)}


@pytest.fixture(scope="module")
def lr_sweep(tmp_path_factory):
    """Three learning rates by three seeds; at 1 one run diverges and one fails."""
    store = tmp_path_factory.mktemp("lr_sweep")
    cells = [
        ({"optim.lr": lr, "seed": seed}, result(final, seed=seed))
        for lr, finals in FINALS.items()
        for seed, final in enumerate(finals)
    ]
    cells.insert(0, ({"optim.lr": 1.0, "seed": 0}, diverged(at=5)))
    cells.append(({"optim.lr": 1.0, "seed": 1}, RuntimeError("no memory")))
    write(store, *cells)
    return runs_of(store)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """final = 4 + 4 / r with the rule proportional, 5 with fixed; one seed."""
    store = tmp_path_factory.mktemp("ranks")
    write(
        store,
        *(
            ({"lora.alpha_policy": policy, "lora.r": r}, result(final, rank=r))
            for policy in ("proportional", "fixed")
            for r in (8, 2, 4)
            for final in [4 + 4 / r if policy == "proportional" else 5.0]
        ),
    )
    return runs_of(store)


def held_out_lines(ax):
    return [line for line in ax.lines if line.get_marker() == "o"]


def containers(ax):
    """Of each line with bars: x, y, ends of the bars [n, 2]."""
    found = []
    for container in ax.containers:
        line, _, (bars,) = container.lines
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        found.append((*line.get_data(), ends))
    return found


def test_loss_curves_are_means_over_seeds_with_a_t_interval(lr_sweep):
    ax = plot_loss_curves(lr_sweep)
    first, second, third, of_diverged = held_out_lines(ax)
    assert list(first.get_xdata()) == [0, 10, 20]
    for line, finals in zip((first, second, third), FINALS.values(), strict=True):
        mean = np.mean(finals)
        np.testing.assert_allclose(line.get_ydata(), [8, (8 + mean) / 2, mean])
    assert list(of_diverged.get_xdata()) == [0]
    band = ax.collections[0].get_paths()[0].vertices
    at_20 = band[band[:, 0] == 20, 1]
    finals = FINALS[1e-4]
    low, high = stats.t.interval(0.95, 2, np.mean(finals), np.std(finals, ddof=1) / 3**0.5)
    assert (at_20.min(), at_20.max()) == pytest.approx((low, high))
    assert legend_texts(ax) == [
        "training loss of the next batch",
        "held-out loss",
        "0.0001 (n = 3)",
        "0.001 (n = 3)",
        "0.01 (n = 3)",
        "1 (n = 2, 1 diverged, 1 failed)",
        "a run diverged here",
    ]
    assert legend_title(ax) == (
        "line: mean over the runs that have the step (they differ in seed) "
        "band: 95 % t interval of the mean optim.lr:"
    )
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("updates done", "loss (nats per target token)")
    assert_inside(ax.figure)


def test_training_losses_are_faint_and_of_every_update(lr_sweep):
    ax = plot_loss_curves(lr_sweep)
    faint = [line for line in ax.lines if line.get_color()[3:] == (0.35,)]
    assert [len(line.get_xdata()) for line in faint] == [20, 20, 20, 5]
    expected = 8 + (np.mean(FINALS[1e-4]) - 8) * np.arange(20) / 20 + 0.2  # seeds add .1, .2, .3
    np.testing.assert_allclose(faint[0].get_ydata(), expected, rtol=1e-6)


def test_a_cross_stands_at_the_last_finite_loss_of_a_diverged_run(lr_sweep):
    """The loss of update 5 is infinite; that of update 4 is 8 - 4 * 4 / 20 + .1."""
    assert crosses(plot_loss_curves(lr_sweep)) == [(4, pytest.approx(7.3))]


def test_a_run_whose_loss_rose_by_half_is_marked_though_it_ended(tmp_path):
    write(
        tmp_path,
        ({"optim.lr": 1e-3}, result(4.0)),
        ({"optim.lr": 1e-2}, result(13.0, diverged=True)),
    )
    ax = plot_loss_curves(runs_of(tmp_path))
    assert crosses(ax) == [(20, 13.0)]
    assert "0.01 (n = 1, 1 diverged)" in legend_texts(ax)
    assert legend_title(ax) == "line: a single run optim.lr:"


@pytest.mark.parametrize(("final", "scale"), [(4.0, "linear"), (0.5, "log")])
def test_losses_over_more_than_a_decade_have_a_log_axis(tmp_path, final, scale):
    write(tmp_path, ({"optim.lr": 1e-3}, result(final)))
    assert plot_loss_curves(runs_of(tmp_path)).get_yscale() == scale


def test_wide_bands_do_not_stretch_the_axis_and_many_are_left_out(tmp_path):
    cells = [({"optim.lr": 1e-3, "seed": s}, result(f)) for s, f in enumerate((1.0, 7.0))]
    write(tmp_path / "wide", *cells)
    low, high = plot_loss_curves(runs_of(tmp_path / "wide")).get_ylim()  # t_1 * 3 = 38
    assert 3 < low < 4 < 8 < high < 9
    many = [({"optim.lr": 10.0**-k, "seed": s}, result(4.0 + s)) for k in range(7) for s in (0, 1)]
    write(tmp_path / "many", *many)
    ax = plot_loss_curves(runs_of(tmp_path / "many"))
    assert not ax.collections
    assert "band" not in legend_title(ax)


def test_final_losses_against_the_learning_rate_and_the_best(lr_sweep):
    ax = plot_final_loss(lr_sweep)
    [(x, y, ends)] = containers(ax)
    assert list(x) == list(FINALS)
    np.testing.assert_allclose(y, [np.mean(f) for f in FINALS.values()])
    half = stats.t.ppf(0.975, 2) * np.std(FINALS[1e-3], ddof=1) / 3**0.5
    np.testing.assert_allclose(ends[1], [y[1] - half, y[1] + half])
    [ring] = [line for line in ax.lines if line.get_markersize() == 12]
    assert ring.get_xydata().tolist() == [[1e-3, np.mean(FINALS[1e-3])]]
    assert crosses(ax) == [(1.0, 1)]  # no final loss: at the top of the axes
    assert ax.get_xscale() == "log"
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0.0001", "0.001", "0.01", "1"]
    assert figure_legend_texts(ax.figure) == [
        "all runs (n = 11, 1 diverged, 1 failed)",
        "best of its line",
        "a run diverged here",
    ]
    assert figure_legend_title(ax.figure) == (
        "point: mean of 3 runs (they differ in seed) bar: 95 % t interval of the mean"
    )
    assert_legend_beside(ax.figure)


def test_other_keys_that_vary_make_lines(tmp_path):
    cells = [
        ({"optim.name": name, "optim.lr": lr}, result(4.0 + i))
        for name in ("sgd", "adamw")
        for i, lr in enumerate((1e-3, 1e-2))
    ]
    write(tmp_path, *cells[:-1])
    ax = plot_final_loss(runs_of(tmp_path))
    assert [list(y) for _, y, _ in containers(ax)] == [[4], [4, 5]]
    assert figure_legend_texts(ax.figure)[:2] == ["adamw (n = 1)", "sgd (n = 2)"]
    assert len([line for line in ax.lines if line.get_markersize() == 12]) == 1  # not of one point
    assert "point: a single run" in figure_legend_title(ax.figure)


def test_ranks_have_a_line_per_rule_for_alpha(ranks):
    loss, first = plot_ranks(ranks)
    fixed, proportional = containers(loss)
    assert [list(a) for a in fixed[:2]] == [[2, 4, 8], [5, 5, 5]]
    assert [list(a) for a in proportional[:2]] == [[2, 4, 8], [6, 5, 4.5]]
    assert [list(y) for _, y, _ in containers(first)] == [[0.5, 1, 2]] * 2
    assert figure_legend_texts(loss.figure) == ["fixed (n = 3)", "proportional (n = 3)"]
    assert [t.get_text() for t in first.get_xticklabels()] == ["2", "4", "8"]
    assert_legend_beside(loss.figure)


def test_ranks_without_the_probe_of_updates_have_one_panel(ranks):
    assert len(plot_ranks(ranks.drop("first_update_norm"))) == 1


def test_forgetting_of_one_run_has_its_interval_over_prompts(tmp_path):
    write(tmp_path, *(({"optim.lr": lr}, result()) for lr in (1e-3, 1e-2)))
    change, kl = plot_forgetting_over_runs(runs_of(tmp_path))
    [(_, y, ends)] = containers(change)
    assert list(y) == [-0.25, -0.25]
    np.testing.assert_allclose(ends, [[-0.5, 0.125]] * 2)
    assert list(containers(kl)[0][1]) == [2, 2]
    title = figure_legend_title(change.figure)
    assert title == "point: a single run of one run: 95 % interval over prompts"


def test_forgetting_of_several_seeds_has_a_t_interval(tmp_path):
    changes = (-0.5, -0.25, 0.0)
    cells = [
        ({"optim.lr": lr, "seed": seed}, result(probes=False, forgetting_change=change))
        for lr in (1e-3, 1e-2)
        for seed, change in enumerate(changes)
    ]
    write(tmp_path, *cells)
    [ax] = plot_forgetting_over_runs(runs_of(tmp_path))
    [(_, y, ends)] = containers(ax)
    np.testing.assert_allclose(y, [-0.25] * 2)
    interval = stats.t.interval(0.95, 2, -0.25, np.std(changes, ddof=1) / 3**0.5)
    np.testing.assert_allclose(ends[0], interval)
    assert "over prompts" not in figure_legend_title(ax.figure)


def test_figures_say_what_they_miss(lr_sweep, ranks):
    for draw, runs, message in (
        (plot_final_loss, ranks, "the runs have one value of optim.lr"),
        (plot_forgetting_over_runs, ranks, "the runs have one value of optim.lr"),
        (plot_ranks, lr_sweep, "the runs have one value of lora_rank"),
        (plot_loss_curves, lr_sweep.drop("eval_loss"), "none of the 11 runs has eval_loss"),
    ):
        with pytest.raises(NotMeasured, match=message):
            draw(runs)


def test_leading_keys_put_the_learning_rate_first_and_leave_seeds_and_told_ones_out():
    runs = pl.DataFrame(
        {
            "seed": [0, 1, 0, 1, 0],
            "train.batch": [4, 4, 4, 4, 16],
            "optim.lr": [1e-3, 1e-3, 1e-2, 1e-2, 1e-3],
            "train.accum": [4, 4, 4, 4, 1],
            "step": [[0]] * 5,
        }
    )
    assert leading_keys(runs) == ["optim.lr", "train.batch"]  # which tells train.accum
    assert leading_keys(runs, without=["optim.lr"]) == ["train.batch"]
    assert leading_keys(runs, without=["train.accum", "optim.lr"]) == []


def test_the_first_run_that_ended_well_is_the_default(tmp_path):
    ids = write(
        tmp_path,
        ({"seed": 0}, RuntimeError("no memory")),
        ({"seed": 1}, diverged()),
        ({"seed": 2}, result(diverged=True)),
        ({"seed": 3}, result()),
    )
    assert load_run(tmp_path).row["run_id"] == ids[3]
    assert load_run(tmp_path, ids[1]).row["status"] == "diverged"
    assert runs_of(tmp_path)["status"].to_list() == ["failed", "diverged", "diverged", "ok"]
    with pytest.raises(UnknownName, match="no run '000000000000000'; did you mean"):
        load_run(tmp_path, "000000000000000")


def test_stores_without_runs_are_errors(tmp_path):
    write(tmp_path, ({"seed": 0}, RuntimeError("no memory")))
    with pytest.raises(ValueError, match=r"all 1 runs of .* failed"):
        load_run(tmp_path)
    with pytest.raises(FileNotFoundError, match="no store"):
        runs_of(tmp_path / "nowhere")
