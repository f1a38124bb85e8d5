"""Synthetic spectra by the names that a config gives them."""

import pytest
import torch

from compressor.spectra import parse_spectrum


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("power:1", [1, 1 / 2, 1 / 3, 1 / 4]),
        ("power:0", [1, 1, 1, 1]),
        ({"power": {"a": 2}}, [1, 1 / 4, 1 / 9, 1 / 16]),
        ("geometric:.5", [1, 0.5, 0.25, 0.125]),
        ({"name": "geometric", "params": {"q": 0.1}}, [1, 0.1, 0.01, 0.001]),
        ([3, 2, 1, 0], [3, 2, 1, 0]),
        ({"list": {"values": [1, 1, 1, 5.5]}}, [1, 1, 1, 5.5]),
    ],
)
def test_spectra_are_their_formulas(spec, expected):
    values = parse_spectrum(spec)(4)
    assert values.dtype == torch.float64
    assert values.tolist() == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("powr:1", "did you mean 'power'"),
        ("power", "needs the parameter 'a'"),
        ("power:x", "'x'"),
        ({"power": {"b": 1}}, "has no parameter 'b'"),
        ({"power": {"a": [1]}}, "list"),
        ("geometric:-1", "finite, >= 0 and not all 0"),
        ("power:nan", "finite, >= 0 and not all 0"),
        ("power:-2000", "finite, >= 0 and not all 0"),
        ([0, 0, 0], "finite, >= 0 and not all 0"),
        ([1, 2], r"2 eigenvalues for states of 3 dimensions \(lm.dim\)"),
        (5, "int"),
    ],
)
def test_a_bad_spectrum_is_named_with_its_key(spec, message):
    with pytest.raises(ValueError, match=rf"lm\.spectrum=.*{message}"):
        parse_spectrum(spec)(3)
