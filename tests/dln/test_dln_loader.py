"""Loaders: epochs, block lengths, changes of the batch size, online draws."""

import pytest
import torch
from dln_cases import small, trainer

from dln import loader as loader_module
from dln.loader import TrainSetLoader

N = 11


def indices(n=N, batch_size=3, seeds=(0,), n_steps=40):
    """A loader over samples that are their own numbers."""
    numbers = torch.arange(float(n))[None, :, None].expand(len(seeds), n, 1)
    return TrainSetLoader(numbers, numbers, batch_size, list(seeds), n_steps)


def take(loader, steps):
    """The sample numbers of the next batches: [steps, R, B] as lists."""
    return [loader.next_batch().inputs[..., 0].long().tolist() for _ in range(steps)]


def test_an_epoch_is_a_permutation_in_full_slices():
    loader = indices(seeds=(0, 1))
    batches = torch.tensor(take(loader, 3 * 5))  # 11 // 3 = 3 batches an epoch, two samples left
    epochs = batches.reshape(5, 3, 2, 3).permute(2, 0, 1, 3).flatten(2)
    for epoch in epochs.flatten(0, 1):
        assert len(set(epoch.tolist())) == 9
    assert len({tuple(epoch.tolist()) for epoch in epochs.flatten(0, 1)}) == 10
    assert set(epochs[0].flatten().tolist()) == set(range(N))  # what is left out changes


def test_targets_belong_to_their_inputs():
    loader = indices()
    for _ in range(10):
        batch = loader.next_batch()
        assert batch.inputs.equal(batch.targets)


@pytest.mark.parametrize("batch_size", [None, N, N + 1])
def test_null_and_large_sizes_are_the_whole_set_in_order(batch_size):
    assert take(indices(batch_size=batch_size), 2) == [[list(range(N))]] * 2


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("entries", [1, 50, 10**6])
def test_batches_do_not_depend_on_the_block_length(monkeypatch, online, entries):
    cfg = small(data__online=online, training__batch_size=3, data__noise_std=0.1, max_steps=40)
    usual = trainer(cfg).loader
    expected = [usual.next_batch() for _ in range(40)]
    monkeypatch.setattr(loader_module, "_BLOCK_ENTRIES", entries)
    other = trainer(cfg).loader
    for batch in expected:
        torch.testing.assert_close(tuple(other.next_batch()), tuple(batch), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("entries", [1, 20, 10**6])
def test_a_new_size_starts_the_next_epoch_of_the_stream(monkeypatch, entries):
    """Three batches are epoch 0; a fourth begins epoch 1; then size 5 begins epoch 2."""
    monkeypatch.setattr(loader_module, "_BLOCK_ENTRIES", entries)
    order = indices()._order.permutations(N, range(5))[0].tolist()
    loader = indices()
    take(loader, 4)
    loader.set_batch_size(5)
    assert take(loader, 3) == [[order[2][:5]], [order[2][5:10]], [order[3][:5]]]
    loader.set_batch_size(None)
    assert take(loader, 1) == [[list(range(N))]]
    loader.set_batch_size(4)
    assert take(loader, 1) == [[order[4][:4]]]


def test_a_switch_to_the_same_size_changes_nothing():
    loader, other = indices(), indices()
    take(loader, 1), take(other, 1)
    loader.set_batch_size(3)
    assert take(loader, 5) == take(other, 5)


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("entries", [1, 10**6])  # next block after they left; none
def test_replicas_that_leave_do_not_change_the_others_batches(monkeypatch, online, entries):
    monkeypatch.setattr(loader_module, "_BLOCK_ENTRIES", entries)
    cfg = small(data__online=online, training__batch_size=3, data__noise_std=0.1, data__d_active=2)
    replicas = {"training.batch_seed": [0, 1, 2], "data.data_seed": [0, 1, 2]}
    whole, reduced = (trainer(cfg, replicas, 3).loader for _ in range(2))
    keep = torch.tensor([0, 2])
    for step in range(30):
        if step == 7:
            reduced.keep(keep)
        batch, other = whole.next_batch(), reduced.next_batch()
        if step >= 7:
            batch = (part[keep] for part in batch)
        torch.testing.assert_close(tuple(other), tuple(batch), rtol=1e-14, atol=1e-14)


def test_online_batches_continue_the_stream_when_the_size_changes():
    cfg = small(data__online=True, training__batch_size=2)
    loader, singles = trainer(cfg).loader, trainer(cfg).loader
    singles.set_batch_size(1)
    samples = torch.cat([singles.next_batch().inputs for _ in range(14)], 1)
    first = [loader.next_batch().inputs for _ in range(2)]
    loader.set_batch_size(5)
    rest = [loader.next_batch().inputs for _ in range(2)]
    torch.testing.assert_close(torch.cat([*first, *rest], 1), samples)


def test_online_batches_are_fresh_noisy_samples_of_the_teacher():
    cfg = small(data__online=True, training__batch_size=2000, data__noise_std=0.5)
    state = trainer(cfg)
    batch = state.loader.next_batch()
    noise = batch.targets - batch.inputs @ state.dataset.teacher.mT
    assert noise.std().item() == pytest.approx(0.5, rel=0.05)
    S = batch.inputs[0].mT @ batch.inputs[0] / 2000
    assert (S - torch.eye(3)).abs().max() < 5 * (2 / 2000) ** 0.5
    assert not torch.isin(batch.inputs, state.loader.next_batch().inputs).any()


def test_online_without_a_size_is_refused():
    loader = trainer(small(data__online=True, training__batch_size=2)).loader
    with pytest.raises(ValueError, match="online data has no full batch"):
        loader.set_batch_size(None)
