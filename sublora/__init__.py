"""PAC-Bayes generalization bounds from language models that are trained in a random subspace."""

from sublora import config as config
