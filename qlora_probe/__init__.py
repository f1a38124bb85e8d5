"""Inside a QLoRA fine-tuning run: short trainings of a 4-bit language model, with probes."""

from qlora_probe import config as config  # registers the experiment
