"""What a config of this family names: metrics of hidden states, callbacks."""

from plugins.registry import Registry

metrics = Registry("memdyn", "metric", ("states",))
callbacks = Registry("memdyn", "callback")

register_metric = metrics.register  # (LayerStates, **params) -> Values
register_callback = callbacks.register  # (**params) -> callback(step, trainer), before an update
