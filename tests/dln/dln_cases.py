"""Configs, networks and references that the tests of dln share."""

from pathlib import Path

import torch

from dln.clean_set import CleanSet
from dln.config import REPLICA_KEYS, DataConfig, ModelConfig, TrainConfig, TrainingConfig
from dln.context import EvalContext
from dln.criteria import get_criterion
from dln.loader import TrainSetLoader
from dln.lockstep import train_in_lockstep
from dln.train import make_trainer
from dln.trainer import make_columns

POWER_LAW = {"matrix": "power_law", "scale": 50, "alpha": 1}
SECTIONS = {"model": ModelConfig, "data": DataConfig, "training": TrainingConfig}


def config(**values):
    """A TrainConfig; keys with `__` for dots, a power-law teacher unless another is given."""
    parts = {"model": {}, "data": {"params": dict(POWER_LAW)}, "training": {}}
    top = {}
    for key, value in values.items():
        section, _, name = key.partition("__")
        if name:
            parts[section][name] = value
        else:
            top[key] = value
    sections = {name: make(**parts[name]) for name, make in SECTIONS.items()}
    return TrainConfig(device="cpu", **sections, **top)


def small(**values):
    """A config of width 6 with few samples."""
    defaults = {
        "model__hidden_dim": 6,
        "model__num_hidden": 2,
        "model__in_dim": 3,
        "model__out_dim": 3,
        "data__params": {"matrix": "diagonal", "scale": 1},
        "data__train_samples": 20,
        "data__test_samples": 10,
        "training__lr": 0.01,
        "max_steps": 30,
        "num_evaluations": 6,
        "dtype": "float64",
    }
    return config(**{**defaults, **values})


def trainer(cfg, replicas=None, n=1):
    """The trainer of a stack of n."""
    return make_trainer(cfg, make_columns(cfg, REPLICA_KEYS, replicas or {}, n))


def train(cfg, replicas=None, n=1):
    """The results of a stack of n."""
    return train_in_lockstep({"": trainer(cfg, replicas, n)})


def sample_loader(cfg):
    """The loader of a run on a train set that never hands out moments."""
    return TrainSetLoader(
        trainer(cfg).dataset,
        cfg.training.batch_size,
        [cfg.training.batch_seed],
        cfg.max_steps,
        dtype=getattr(torch, cfg.dtype),
        by_moments=False,
    )


def workdirs(n):
    return [Path("unused")] * n


def context(shapes, samples, replicas=1, seed=0, criterion="MSELoss"):
    """Random weights of layers [(n_out, n_in), ...], samples and teacher; float64."""
    generator = torch.Generator().manual_seed(seed)

    def normals(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weights = [normals(replicas, *shape) / shape[1] ** 0.5 for shape in shapes]
    inputs = normals(replicas, samples, shapes[0][1])
    return at_weights(weights, inputs, normals(replicas, shapes[-1][0], shapes[0][1]), criterion)


def at_weights(weights, inputs, teacher, criterion="MSELoss"):
    """What metrics see of these weights, inputs [R, N, d] and teacher [R, o, d]."""
    return EvalContext(weights, CleanSet.of(inputs, teacher), get_criterion(criterion))


def reference_losses(cfg, *, record_every):
    """Test losses of a run with torch's own network, autograd, criterion and optimizer.

    Only the data and the batches come from our code, those of a train set sample by sample.
    """
    ours = trainer(cfg)
    loader = ours.loader if cfg.data.online else sample_loader(cfg)
    weights = [W[0].clone().requires_grad_() for W in ours.weights]
    optimizer = getattr(torch.optim, cfg.training.optimizer)(
        weights, lr=cfg.training.lr, **cfg.training.optimizer_params
    )
    criterion = getattr(torch.nn, cfg.training.criterion)()
    losses = []

    def loss(inputs, targets):
        for W in weights:
            inputs = torch.nn.functional.linear(inputs, W)
        return criterion(inputs, targets)

    for step in range(cfg.max_steps + 1):
        if step % record_every == 0 or step == cfg.max_steps:
            with torch.no_grad():
                test = loss(
                    *(
                        t[0].to(ours.dtype)
                        for t in (ours.dataset.test_inputs, ours.dataset.test_targets)
                    )
                )
            losses.append(test.item())
        if step < cfg.max_steps:
            batch = loader.next_batch()
            optimizer.zero_grad()
            loss(batch.inputs[0], batch.targets[0]).backward()
            optimizer.step()
    return losses
