"""What a config of this family names: metrics."""

from plugins.registry import Registry

metrics = Registry("noisy_quadratic", "metric", ("state",))

register_metric = metrics.register  # (State, **params) -> [R]; law: metric(stack)[r] == of r alone
