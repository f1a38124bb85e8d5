"""Adds the config folders of installed third-party families to Hydra's search path."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from plugins.experiment import CONF, families


class FamilyConf(SearchPathPlugin):
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for name, family in families().items():
            if family.conf != CONF:
                search_path.append(provider=name, path=f"file://{family.conf}")
