"""What the tests of compressor share."""

import pytest
from compressor_cases import save_gpt2, save_llama


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory):
    """The folder of a very small GPT-2 with random weights."""
    return save_gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    """Likewise a Llama."""
    return save_llama(tmp_path_factory.mktemp("llama"))
