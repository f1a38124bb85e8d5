"""Checks across the fields of a comparison at planning time."""

from collections.abc import Mapping, Sequence

from dln import trials
from dln.check import (
    Keys,
    check_data,
    check_network,
    draws_batches,
    prefixed,
    run_columns,
    warn_of_equal_runs,
)
from dln.comparative_metrics import UnequalShapes
from dln.compare_config import SIDES, CompareConfig, side
from dln.config import TrainConfig, layer_shapes
from dln.metrics import add_owner


def check(cfg: CompareConfig, replicas: Mapping[str, Sequence]) -> None:
    """ValueError with the full key for what one field's own check cannot see.

    Warns of batch seeds where no batches are drawn, unless those of the other side change the run.
    """
    for name in ("in_dim", "out_dim"):
        a, b = getattr(cfg.model_a, name), getattr(cfg.model_b, name)
        if a != b:
            raise ValueError(
                f"model_a.{name}={a} differs from model_b.{name}={b}; "
                "both networks learn one data set, so set them equal"
            )
    networks = [(side(cfg, name), _keys(cfg, name)) for name in SIDES]
    first, its_keys = networks[0]
    check_data(cfg.data, cfg.model_a, its_keys)
    owner = run_columns(first)
    for network, keys in networks:
        check_network(network, keys, owner)
    _check_comparative_metrics(cfg, [network for network, _ in networks], owner)
    seeded = [
        (network, keys) for network, keys in networks if f"{keys.training}.batch_seed" in replicas
    ]
    if not any(draws_batches(network) for network, _ in seeded):
        for network, keys in seeded:
            warn_of_equal_runs(network, keys)


def _keys(cfg: CompareConfig, name: str) -> Keys:
    inherits = getattr(cfg, f"metrics_{name}") is None
    return Keys(
        model=f"model_{name}",
        training=f"training_{name}",
        metrics="metrics" if inherits else f"metrics_{name}",
        callbacks=f"callbacks_{name}",
        suffix=f"_{name}",
    )


def _check_comparative_metrics(
    cfg: CompareConfig, networks: Sequence[TrainConfig], owner: dict[str, str]
) -> None:
    both = (
        tuple(tuple(layer_shapes(network.model)) for network in networks),
        cfg.data.test_samples,
        tuple(network.training.criterion for network in networks),
    )
    for i, spec in enumerate(cfg.comparative_metrics):
        with prefixed(f"comparative_metrics[{i}]"):
            try:
                name, columns = trials.remembered(trials.comparative_columns, spec, *both)
            except UnequalShapes as error:
                raise ValueError(
                    f"{spec!r}: {error}; {_unequal_sizes(cfg)}; frobenius_distance compares any: "
                    "comparative_metrics=[frobenius_distance]"
                ) from None
            add_owner(owner, name, columns)


def _unequal_sizes(cfg: CompareConfig) -> str:
    """The keys that make the networks' shapes differ."""
    a, b = cfg.model_a, cfg.model_b
    return ", ".join(
        f"model_a.{name}={getattr(a, name)} differs from model_b.{name}={getattr(b, name)}"
        for name in ("num_hidden", "hidden_dim")
        if getattr(a, name) != getattr(b, name)
    )
