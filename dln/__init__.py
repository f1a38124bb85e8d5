"""Deep linear networks: learning dynamics of W_{L-1} ... W_0. Importing this loads no torch."""

from dln import compare_config as compare_config
from dln import config as config
