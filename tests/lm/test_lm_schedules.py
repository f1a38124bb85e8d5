"""Learning rates over a training."""

import numpy as np

from plugins.lm.schedules import warmup_cosine


def test_learning_rate_rises_linearly_then_falls_by_a_cosine():
    factors = [warmup_cosine(step, 110, 10, 0.1) for step in range(111)]
    np.testing.assert_allclose(factors[:10], np.arange(1, 11) / 10)
    expected = 0.1 + 0.9 * (1 + np.cos(np.pi * np.arange(101) / 100)) / 2
    np.testing.assert_allclose(factors[10:], expected)
    assert warmup_cosine(0, 10, 0, 0.0) == 1
    assert warmup_cosine(5, 3, 100, 0.0) == 0.06  # a training that ends in its warm-up
