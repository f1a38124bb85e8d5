"""Callbacks that a config may name; what they are told: plugins.lm.callbacks."""

from compressor.registry import register_callback
from plugins.lm.callbacks import Wandb

register_callback("wandb")(Wandb)
