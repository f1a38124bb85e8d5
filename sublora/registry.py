"""What a config of this family names: projectors, callbacks."""

from plugins.registry import Registry

matrices = Registry("sublora", "matrix", ("rows", "cols", "generator"))
callbacks = Registry("sublora", "callback")

# (rows, cols, generator, **params) -> sublora.projectors.Projector of that shape; a factory with
# a parameter `cache_mb` is given the config's
register_matrix = matrices.register
register_callback = callbacks.register  # (**params) -> an object with hooks
