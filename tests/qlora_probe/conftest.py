"""What the tests of qlora_probe share."""

import pytest
from qlora_cases import save_llama


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    """The folder of a very small Llama with random weights."""
    return save_llama(tmp_path_factory.mktemp("llama"))
