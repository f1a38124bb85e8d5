"""The train set's loader: epochs, block lengths, changes of the batch size, moments."""

import pytest
import torch
from dln_cases import sample_loader, small, trainer

from dln import loader as loader_module
from dln.config import DataConfig, ModelConfig
from dln.data import make_dataset
from dln.loader import Batch, TrainSetLoader
from dln.moments import Moments

N = 11


def indices(n=N, batch_size=3, seeds=(0,), n_steps=40):
    """A loader over samples that are their own numbers."""
    data_config = DataConfig(train_samples=n, params={"matrix": "identity"})
    model = ModelConfig(in_dim=1, out_dim=1)
    data = make_dataset(data_config, model, [0] * len(seeds), [0.0] * len(seeds))
    data.train_inputs = data.train_targets = torch.arange(float(n))[None, :, None]
    return TrainSetLoader(
        data, batch_size, list(seeds), n_steps, dtype=torch.float64, by_moments=False
    )


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


SIZES = [2, 3, 5, None]  # below, at and above the input dimension 3, and the whole set


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("words", [1, 50, 10**6])
def test_batches_do_not_depend_on_the_block_length(monkeypatch, size, words):
    cfg = small(training__batch_size=size, data__noise_std=0.1, max_steps=40)
    usual = trainer(cfg).loader
    expected = [usual.next_batch() for _ in range(40)]
    monkeypatch.setattr(loader_module, "_WORDS", words)
    other = trainer(cfg).loader
    for batch in expected:
        torch.testing.assert_close(tuple(other.next_batch()), tuple(batch), rtol=0, atol=0)


@pytest.mark.parametrize("words", [1, 20, 10**6])
def test_a_new_size_starts_the_next_epoch_of_the_stream(monkeypatch, words):
    """Three batches are epoch 0; a fourth begins epoch 1; then size 5 begins epoch 2."""
    monkeypatch.setattr(loader_module, "_WORDS", words)
    order = indices()._stream.permutations(N, range(5))[0].tolist()
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


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("words", [1, 10**6])  # next block after they left; none
def test_replicas_that_leave_do_not_change_the_others_batches(monkeypatch, size, words):
    monkeypatch.setattr(loader_module, "_WORDS", words)
    cfg = small(training__batch_size=size, data__noise_std=0.1, data__d_active=2)
    replicas = {"training.batch_seed": [0, 1, 2], "data.data_seed": [0, 1, 1]}
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


@pytest.mark.parametrize("outer_bytes", [0, 2**24])  # summed from samples, or from their products
@pytest.mark.parametrize("size", [3, 5, None])
def test_moments_are_those_of_the_batchs_samples(monkeypatch, size, outer_bytes):
    monkeypatch.setattr(loader_module, "_OUTER_BYTES", outer_bytes)
    cfg = small(training__batch_size=size, data__noise_std=0.1, data__data_seed=4)
    state, samples = trainer(cfg), sample_loader(cfg)
    A = state.dataset.teacher[0]
    for _ in range(12):
        moments, batch = state.loader.next_batch(), samples.next_batch()
        x, noise = batch.inputs[0], (batch.targets - batch.inputs @ A.mT)[0]
        torch.testing.assert_close(moments.gram[0], x.mT @ x / len(x), rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(moments.cross[0], x.mT @ noise / len(x), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("size", "criterion", "kind"),
    [(2, "MSELoss", Batch), (3, "MSELoss", Moments), (None, "MSELoss", Moments),
     (3, "HuberLoss", Batch), (None, "HuberLoss", Batch)],
)  # fmt: skip
def test_moments_stand_for_batches_of_d_samples_or_more(size, criterion, kind):
    """Below that the samples are cheaper; another criterion needs them."""
    cfg = small(training__batch_size=size, training__criterion=criterion)
    assert type(trainer(cfg).loader.next_batch()) is kind
