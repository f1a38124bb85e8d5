"""Streams: a known answer, other keys give other and independent numbers."""

import itertools

import numpy as np

from sublora.streams import stream


def test_known_answer():
    """First 64-bit words of Philox4x64-10 under the hashed key, recorded when it was written.

    A stored run keeps its seed only: another answer here is another prior.
    """
    words = stream(42, "projector", 3, "B").bit_generator.random_raw(3)
    assert [int(w) for w in words] == [
        12449797369284935873,
        16785749284718509157,
        4007152331911700886,
    ]


def test_the_same_arguments_draw_the_same_from_the_start():
    first = stream(0, "data").standard_normal(9)
    assert stream(0, "data").standard_normal(9).tolist() == first.tolist()


def test_every_part_of_the_name_counts():
    names = [
        (0,), (1,), (2**40,), (-1,), (0, 0), (0, "0"), (0, "a"), (0, "a", "b"), (0, "b", "a"),
        (0, "ab"), (0, "a,b"), (0, "a", 1), (0, "a", "1"), (0, "a", 11), (0, "a", 1, 1),
    ]  # fmt: skip
    draws = {stream(*name).integers(2**63) for name in names}
    assert len(draws) == len(names)


def test_streams_are_uncorrelated():
    """Correlations of 40 streams of 4,000 normals: sd 1/sqrt(4000), the largest < 5 sd."""
    keys = itertools.product(range(5), ("A", "B"), range(4))
    draws = np.stack([stream(*key).standard_normal(4000) for key in keys])
    correlations = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlations).max() < 5 / np.sqrt(4000)
    assert abs(correlations[np.triu_indices(40, 1)].std() * np.sqrt(4000) - 1) < 0.15
