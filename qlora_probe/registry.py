"""What a config of this family names: probes of a training."""

from plugins.registry import Registry

callbacks = Registry("qlora_probe", "callback")

register_callback = callbacks.register  # (**params) -> an object with hooks; qlora_probe.hooks
