"""The baseline of benchmarks/dln.py: one network, trained as one would write it in PyTorch."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch.func import functional_call, grad, vmap

from dln.config import TrainConfig, layer_shapes
from dln.data import make_dataset
from dln.model import init_weights
from dln.streams import Stream

EVERY = 40  # steps between two records: gph's 250 on 10,000 steps
Curves = Mapping[str, Sequence[float]]


def plain(cfg: TrainConfig) -> Callable[[], Curves]:
    """The script one would write: nn.Linear, autograd, torch.optim.SGD, one run.

    Data, initial weights and the order of the batches are ready-made and ours.
    """
    data = make_dataset(cfg.data, cfg.model, [cfg.data.data_seed], [cfg.data.noise_std])
    x, y = data.train_inputs[0].float(), data.train_targets[0].float()
    x_test, y_test = data.test_inputs[0].float(), data.test_targets[0].float()
    model = cfg.model
    initial = init_weights(model, [model.model_seed], [model.gamma], data.rotation)
    batches = batch_order(cfg)
    criterion = torch.nn.MSELoss()

    def train() -> Curves:
        layers = [torch.nn.Linear(cols, rows, bias=False) for rows, cols in layer_shapes(model)]
        net = torch.nn.Sequential(*layers)
        with torch.no_grad():
            for layer, W in zip(layers, initial, strict=True):
                layer.weight.copy_(W[0])
        optimizer = torch.optim.SGD(net.parameters(), lr=cfg.training.lr)

        def sample_loss(params: dict, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return criterion(functional_call(net, params, (x,)), y)

        sample_gradients = vmap(grad(sample_loss), in_dims=(None, 0, 0))
        curves = {"test_loss": []}
        if cfg.metrics:
            curves |= {"grad_norm_squared": [], "trace_gradient_covariance": []}

        def record() -> None:
            with torch.no_grad():
                curves["test_loss"].append(criterion(net(x_test), y_test).item())
                if cfg.metrics:
                    params = {name: value.detach() for name, value in net.named_parameters()}
                    gradients = sample_gradients(params, x_test, y_test).values()
                    means = [g.mean(0) for g in gradients]
                    norm = sum(mean.square().sum() for mean in means)
                    size = sum(g.ravel().dot(g.ravel()) for g in gradients) / len(x_test)
                    curves["grad_norm_squared"].append(norm.item())
                    curves["trace_gradient_covariance"].append((size - norm).item())

        for step in range(cfg.max_steps):
            if step % EVERY == 0:
                record()
            if batches is None:
                inputs, targets = x, y
            else:
                index = batches[step]
                inputs, targets = x[index], y[index]
            optimizer.zero_grad(set_to_none=True)
            criterion(net(inputs), targets).backward()
            optimizer.step()
        record()
        return curves

    return train


def batch_order(cfg: TrainConfig) -> torch.Tensor | None:
    """Samples of each step, [steps, B]: epochs in slices of exactly B; None: the full batch."""
    n, size = cfg.data.train_samples, cfg.training.batch_size
    if size is None:
        return None
    per_epoch = n // size
    epochs = range(math.ceil(cfg.max_steps / per_epoch))
    [order] = Stream("dln/batch_order", [cfg.training.batch_seed]).permutations(n, epochs)
    return order[:, : per_epoch * size].reshape(-1, size).long()
