"""What the tests of compressor share."""

import numpy as np
import pytest
from compressor_cases import save_gpt2, save_llama
from trm_cases import D, K, L, N, config, draw

from compressor.trm_data import make_task


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory):
    """The folder of a very small GPT-2 with random weights."""
    return save_gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    """Likewise a Llama."""
    return save_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def linear(tmp_path):
    """post = A pre, on the K dimensions that vary: nothing is lost in the codes."""
    pre = draw(N, L, K) @ draw(K, D, seed=1)
    path = tmp_path / "linear.npz"
    np.savez(path, pre=pre + 3, post=pre @ draw(D, D, seed=2) + 1)
    return path


@pytest.fixture
def noisy(tmp_path):
    """Ragged; post depends on pre at the same position and before, and on noise."""
    pre = draw(N, L, D)
    post = pre @ draw(D, D, seed=1) + np.cumsum(pre, 1) + draw(N, L, D, seed=2)
    path = tmp_path / "noisy.npz"
    np.savez(path, pre=pre, post=post, length=1 + np.arange(N) % L)
    return path


@pytest.fixture
def task(noisy, tmp_path):
    return make_task(config(noisy), tmp_path)
