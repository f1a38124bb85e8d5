"""Gradient descent on a noisy quadratic. Importing this registers the experiment, nothing more."""

from noisy_quadratic import config as config
