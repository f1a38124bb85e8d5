"""What a config of this family names: metrics, callbacks, initial weights, synthetic spectra."""

from plugins.registry import Registry

metrics = Registry("compressor", "metric", ("ctx",))
callbacks = Registry("compressor", "callback")
matrices = Registry("compressor", "matrix", ("rows", "cols", "generator", "basis"))
spectra = Registry("compressor", "spectrum", ("dim",))

register_metric = metrics.register  # (ctx, **params) -> float, or a dict of them by column
register_callback = callbacks.register  # (**params) -> an object with hooks; compressor.callbacks
# (rows, cols, generator, basis, **params) -> W [rows, cols] float64; basis [cols, cols]: the
# eigenvectors of the train states as columns, leading first
register_matrix = matrices.register
register_spectrum = spectra.register  # (dim, **params) -> eigenvalues [dim] float64
