"""What a config of this family names: metrics, callbacks, teacher matrices, optimizers."""

from plugins.registry import Registry

metrics = Registry("dln", "metric", ("ctx",))
comparative_metrics = Registry("dln", "comparative metric", ("ctx_a", "ctx_b"))
callbacks = Registry("dln", "callback")
matrices = Registry("dln", "matrix", ("rows", "cols", "generator"))
optimizers = Registry("dln", "optimizer", ("weights", "lr"))

register_metric = metrics.register  # (ctx, **params) -> Tensor [R], [R, k], or a dict of them
register_comparative_metric = comparative_metrics.register  # (ctx_a, ctx_b, **params), likewise
register_callback = callbacks.register  # (**params) -> callback(step, trainer)
register_matrix = matrices.register  # (rows, cols, generator, **params) -> D [rows, cols] float64
register_optimizer = optimizers.register
