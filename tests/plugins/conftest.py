"""Plans of the toy family, made through Hydra as the command line makes them."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from plugins import plan as planning
from plugins.axes import expand
from plugins.composition import compose as compose_bases
from plugins.experiment import CONF, get_experiment
from plugins.overrides import translate_override


class Planner:
    """Plans overrides of toy/trivial and composes single runs by Hydra alone, as the oracle."""

    experiment = get_experiment("toy/trivial")

    def hydra(self, lines):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("toy/trivial", list(lines))

    def grid(self, overrides, zips=()):
        parsed = OverridesParser.create().parse_overrides(
            [translate_override(o) for o in overrides]
        )
        return expand(parsed, zips)

    def bases(self, overrides, zips=()):
        grid = self.grid(overrides, zips)
        return grid, compose_bases(
            grid, self.hydra, lambda key: False, lambda config: self.experiment.schema
        )

    def __call__(self, overrides, zips=()):
        """(grid, frame, configs) before duplicates are dropped."""
        grid, bases = self.bases(overrides, zips)
        frame, configs = planning.identify(bases, self.experiment)
        return grid, frame, configs

    def lines(self, grid, index):
        """The single run's overrides."""
        lines = list(grid.fixed)
        for axis, codes in zip(grid.axes, grid.codes, strict=True):
            lines += axis.lines(int(codes[index]))
        return lines

    def resolved(self, lines):
        return OmegaConf.to_container(self.hydra(lines), resolve=True)


@pytest.fixture(scope="session")
def planner():
    return Planner()
