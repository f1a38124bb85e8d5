"""Hidden states of a language model through a linear bottleneck, scored against the optimum."""

from compressor import config as config  # registers the experiments
from compressor import trm_config as trm_config
