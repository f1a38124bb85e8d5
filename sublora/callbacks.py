"""Callbacks that a config may name; what they are told: plugins.lm.callbacks."""

from plugins.lm.callbacks import Wandb
from sublora.registry import register_callback

register_callback("wandb")(Wandb)
