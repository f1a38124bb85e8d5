"""Comparisons that the tests of dln/compare share."""

from dln_cases import small

from dln.compare_config import CompareConfig, SharedConfig

OWN = ("metrics", "metrics_a", "metrics_b", "comparative_metrics", "callbacks_a", "callbacks_b")


def comparison(make=small, *, a=None, b=None, **values):
    """A CompareConfig of sides as `make` makes them: `values` for both, `a` and `b` for one."""
    own = {name: values.pop(name) for name in OWN if name in values}
    side_a, side_b = (make(**{**values, **(more or {})}) for more in (a, b))
    return CompareConfig(
        device="cpu",
        shared=SharedConfig(),
        model=side_a.model,
        training=side_a.training,
        model_a=side_a.model,
        model_b=side_b.model,
        training_a=side_a.training,
        training_b=side_b.training,
        data=side_a.data,
        max_steps=side_a.max_steps,
        num_evaluations=side_a.num_evaluations,
        dtype=side_a.dtype,
        **own,
    )
