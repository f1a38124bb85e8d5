"""Fresh samples: continuing streams, the law of batches drawn by their moments, noise."""

import pytest
import torch
from dln_cases import small, trainer

from dln import online
from dln.streams import Stream


@pytest.mark.parametrize("size", [2, 3, 7])  # below, at and above the input dimension
@pytest.mark.parametrize("entries", [1, 50, 10**6])
def test_batches_do_not_depend_on_the_block_length(monkeypatch, size, entries):
    cfg = small(data__online=True, training__batch_size=size, data__noise_std=0.1, max_steps=40)
    usual = trainer(cfg).loader
    expected = [usual.next_batch() for _ in range(40)]
    monkeypatch.setattr(online, "_BLOCK_ENTRIES", entries)
    other = trainer(cfg).loader
    for batch in expected:
        torch.testing.assert_close(tuple(other.next_batch()), tuple(batch), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("size", [2, 7])
@pytest.mark.parametrize("entries", [1, 10**6])  # next block after they left; none
def test_replicas_that_leave_do_not_change_the_others_batches(monkeypatch, size, entries):
    monkeypatch.setattr(online, "_BLOCK_ENTRIES", entries)
    cfg = small(data__online=True, training__batch_size=size, data__noise_std=0.1, data__d_active=2)
    replicas = {"training.batch_seed": [0, 1, 2], "data.data_seed": [0, 1, 2]}
    whole, reduced = (trainer(cfg, replicas, 3) for _ in range(2))
    keep = torch.tensor([0, 2])
    for step in range(30):
        if step == 7:
            reduced.dataset.keep(keep)
            reduced.loader.keep(keep)
        batch, other = whole.loader.next_batch(), reduced.loader.next_batch()
        if step >= 7:
            batch = (part[keep] for part in batch)
        torch.testing.assert_close(tuple(other), tuple(batch), rtol=1e-14, atol=1e-14)


def test_samples_continue_the_stream_when_the_size_changes():
    cfg = small(data__online=True, training__batch_size=2, training__criterion="L1Loss")
    loader, singles = trainer(cfg).loader, trainer(cfg).loader
    singles.set_batch_size(1)
    samples = torch.cat([singles.next_batch().inputs for _ in range(14)], 1)
    first = [loader.next_batch().inputs for _ in range(2)]
    loader.set_batch_size(5)
    rest = [loader.next_batch().inputs for _ in range(2)]
    torch.testing.assert_close(torch.cat([*first, *rest], 1), samples)


def test_no_draw_is_used_twice_when_the_size_crosses_the_input_dimension():
    loader = trainer(small(data__online=True, training__batch_size=2)).loader
    batches = []
    for size in (2, 7, 2, 7):
        loader.set_batch_size(size)
        batches += [loader.next_batch().inputs.flatten() for _ in range(3)]
    draws = torch.cat(batches)
    draws = draws[draws != 0]  # of the triangular factors
    assert draws.unique().numel() == draws.numel()


def test_batches_of_samples_are_fresh_and_noisy():
    cfg = small(
        data__online=True,
        training__batch_size=2000,
        data__noise_std=0.5,
        training__criterion="L1Loss",
    )
    state = trainer(cfg)
    batch = state.loader.next_batch()
    noise = batch.targets - batch.inputs @ state.dataset.teacher.mT
    assert noise.std().item() == pytest.approx(0.5, rel=0.05)
    S = batch.inputs[0].mT @ batch.inputs[0] / 2000
    assert (S - torch.eye(3)).abs().max() < 5 * (2 / 2000) ** 0.5
    assert not torch.isin(batch.inputs, state.loader.next_batch().inputs).any()


@pytest.mark.parametrize("size", [3, 5, 50])
@pytest.mark.parametrize("d_active", [None, 2])
def test_moments_drawn_whole_have_the_law_of_sampled_batches(size, d_active):
    """Means and covariances of S = X^T X / B and T = Z^T X / B, over 20,000 draws each.

    In standard errors of their differences: 4.5 for the 15 means and variances of a case (4 would
    be a false alarm in one of 17 seeds, all six cases taken together), 5.5 for 225 covariances.
    """
    n = 20_000

    def moments(criterion):
        cfg = small(
            model__num_hidden=0,
            data__online=True,
            data__noise_std=0.7,
            data__d_active=d_active,
            training__batch_size=size,
            training__criterion=criterion,
            max_steps=200,
        )
        replicas = {"training.batch_seed": [s + 100 * (criterion == "L1Loss") for s in range(100)]}
        state = trainer(cfg, replicas, 100)
        S, T = [], []
        for _ in range(n // 100):
            batch = state.loader.next_batch()
            x, z = batch.inputs, batch.targets - batch.inputs @ state.dataset.teacher[0].mT
            S.append(x.mT @ x / x.shape[1])
            T.append(z.mT @ x / x.shape[1])
        upper = torch.triu_indices(3, 3)
        return torch.cat([torch.cat(S)[:, *upper], torch.cat(T).flatten(1)], 1)

    drawn, sampled = moments("MSELoss"), moments("L1Loss")
    assert drawn.shape == (n, 15)

    def gap(statistic_a, statistic_b):
        """Differences of means, in standard errors."""
        a, b = statistic_a.mean(0), statistic_b.mean(0)
        error = ((statistic_a.var(0) + statistic_b.var(0)) / n).sqrt()
        return ((a - b) / error.clamp_min(1e-30)).abs().max().item()

    assert gap(drawn, sampled) < 4.5
    centre = (drawn.mean(0) + sampled.mean(0)) / 2
    assert gap((drawn - centre) ** 2, (sampled - centre) ** 2) < 4.5
    products = [(part - centre)[:, :, None] * (part - centre)[:, None] for part in (drawn, sampled)]
    assert gap(*(product.flatten(1) for product in products)) < 5.5  # 225 covariances


def test_batches_of_two_sizes_have_no_noise_in_common():
    """Correlations of the off-diagonals of X^T X within 5 / sqrt(n)."""
    grams = []
    for size in (10, 20):
        X = online.wishart_roots(Stream("dln/online_x", [0]), 0, 20_000, 3, size)[0]
        grams.append((X.mT @ X)[:, *torch.triu_indices(3, 3, 1)])
    a, b = ((gram - gram.mean(0)) / gram.std(0) for gram in grams)
    assert (a * b).mean(0).abs().max() < 5 / 20_000**0.5


def test_a_whole_batch_of_moments_has_d_rows():
    for size in (3, 500):
        loader = trainer(small(data__online=True, training__batch_size=size)).loader
        assert loader.next_batch().inputs.shape == (1, 3, 3)


def test_a_missing_size_is_refused():
    loader = trainer(small(data__online=True, training__batch_size=2)).loader
    with pytest.raises(ValueError, match="online data has no full batch"):
        loader.set_batch_size(None)
