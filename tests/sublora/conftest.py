"""What the tests of sublora share: a small data set, and runs that have ended."""

from types import SimpleNamespace

import pytest
from sublora_cases import VARIANTS, config, run

from sublora.dataset import load_dataset, write_dataset
from sublora.markov import EOT, VOCAB, documents
from sublora.streams import stream


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """300 documents of the chain, 40 for validation."""
    path = tmp_path_factory.mktemp("markov")
    drawn = documents(340, stream(0, "test"))
    meta = {"vocab_size": VOCAB, "eot": EOT, "seed": 0}
    write_dataset(path, drawn[:300], drawn[300:], meta)
    return path


@pytest.fixture(scope="session")
def data(folder):
    return load_dataset(folder)


@pytest.fixture(scope="session")
def ended(folder, tmp_path_factory):
    """(variant) -> its config, its workdir's store and its result; each is computed once."""
    runs = {}

    def get(variant):
        if variant not in runs:
            cfg, store = config(folder, **VARIANTS[variant]), tmp_path_factory.mktemp(variant)
            runs[variant] = SimpleNamespace(cfg=cfg, store=store, result=run(cfg, store))
        return runs[variant]

    return get


@pytest.fixture(params=list(VARIANTS))
def one(request, ended):
    """A run of each variant."""
    return ended(request.param)
