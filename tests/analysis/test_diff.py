"""What two stores differ in: pairs and samples by hand, and the command."""

from datetime import UTC, datetime

import pytest
from scipy.special import stdtrit

from analysis.diff import differences, differing_keys, load_side, main, shared_keys
from plugins.config_files import ConfigFile, write_config
from plugins.result import RunResult
from plugins.store import SweepWriter


def write_store(store, values, *, lr=0.1, code="aaa", seeds=None, **scalars):
    """A run per value: final_loss; seed 0, 1, ...; None is a failed run."""
    config = ConfigFile({"experiment": "test/train", "lr": lr}, ("seed",), 1)
    write_config(store, config)
    about = {"experiment": "test/train", "host": "h", "job": None, "code": code}
    with SweepWriter(store, "plan", about | {"versions": '{"torch": "2.1"}'}) as writer:
        for index, (seed, value) in enumerate(zip(seeds or range(9), values, strict=False)):
            outcome = RuntimeError("no memory")
            if value is not None:
                outcome = RunResult(scalars={"final_loss": value, "seconds_train": 1.0, **scalars})
            now = datetime.now(UTC)
            run_id = f"{lr}".replace(".", "") + f"{seed:x}".zfill(14)
            writer.append(index, run_id, config.config_id, {"seed": seed}, outcome, now, now, 1.0)
    return store


@pytest.fixture
def stores(tmp_path):
    """Differences 1, 2, 6: mean 3, sd sqrt(7); a failed run and seeds of one store only."""
    a = write_store(tmp_path / "a", [1.0, 2.0, 3.0, 50.0, None, 7.0])
    b = write_store(tmp_path / "b", [2.0, 4.0, 9.0, None, 60.0], lr=0.2, code="bbb")
    return a, b


def test_keys_that_differ_and_keys_that_pair(stores):
    a, b = map(load_side, stores)
    assert differing_keys(a, b) == {
        "seed": ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4]),
        "lr": ([0.1], [0.2]),
    }
    assert shared_keys(a, b) == ["seed"]
    assert a.scalars == ["final_loss"]  # no time, no bookkeeping


def test_pairs_have_the_interval_of_their_mean_difference(stores):
    """3 +- t_2 sqrt(7 / 3) = 4.30265 x 1.52753."""
    a, b = map(load_side, stores)
    [row] = differences(a, b, ["final_loss"])
    assert (row["is_paired"], row["n_a"], row["n_b"]) == (True, 3, 3)
    assert (row["mean_a"], row["mean_b"], row["difference"]) == (2.0, 5.0, 3.0)
    assert row["high"] - 3 == pytest.approx(6.5725, abs=1e-4)
    assert 3 - row["low"] == pytest.approx(6.5725, abs=1e-4)


def test_samples_without_pairs_have_welchs_interval(tmp_path):
    x, z = [1.0, 2.0, 3.0, 4.5], [2.0, 4.0, 9.0]
    a = load_side(write_store(tmp_path / "a", x))
    b = load_side(write_store(tmp_path / "b", z, lr=0.2, seeds=[10, 11, 12]))
    [row] = differences(a, b, ["final_loss"])
    of_x, of_z = 6.6875 / 3 / 4, 13 / 3  # variances of the means
    df = (of_x + of_z) ** 2 / (of_x**2 / 3 + of_z**2 / 2)  # Welch & Satterthwaite: 2.52
    half = stdtrit(df, 0.975) * (of_x + of_z) ** 0.5
    assert (row["is_paired"], row["n_a"], row["n_b"]) == (False, 4, 3)
    assert row["difference"] == 5 - 2.625
    assert (row["low"], row["high"]) == pytest.approx((2.375 - half, 2.375 + half))


def test_one_run_has_no_interval_and_equal_ones_a_point(tmp_path):
    a = load_side(write_store(tmp_path / "a", [1.0]))
    b = load_side(write_store(tmp_path / "b", [3.0], lr=0.2))
    [row] = differences(a, b, ["final_loss"])
    assert (row["difference"], row["low"], row["high"]) == (2.0, None, None)
    c = load_side(write_store(tmp_path / "c", [1.0, 2.0]))
    [row] = differences(c, c, ["final_loss"])
    assert (row["difference"], row["low"], row["high"]) == (0.0, 0.0, 0.0)


def test_groups_are_compared_apart(stores):
    a, b = map(load_side, stores)
    rows = differences(a, b, ["final_loss"], by=["seed"])
    assert [(row["group"], row["difference"]) for row in rows] == [
        ({"seed": 0}, 1.0),
        ({"seed": 1}, 2.0),
        ({"seed": 2}, 6.0),
    ]


def test_the_command_tells_runs_keys_code_and_results(stores, capsys):
    assert main([*map(str, stores)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0].endswith("a, 6 runs (5 ok, 1 failed)")
    assert "runs in both: 0; only in A: 6; only in B: 5" in lines
    assert "lr 0.1 0.2" in lines
    assert "code aaa bbb" in lines
    assert "final_loss 3 2 5 3 [-3.57, 9.57]" in lines
    assert not any(line.startswith(("torch", "host")) for line in lines)


def test_the_same_runs_with_other_results_are_told(tmp_path, capsys):
    a = write_store(tmp_path / "a", [1.0, 2.0, 3.0])
    b = write_store(tmp_path / "b", [1.0, 2.5, 3.0])
    assert main([str(a), str(b)]) == 0
    out = capsys.readouterr().out
    assert "runs in both: 3; their results differ: final_loss of 1 (by 0.5 at most)" in out
    assert "configuration: equal" in out


def test_bad_input_names_what_is_there(stores, tmp_path, capsys):
    a, b = map(str, stores)
    assert main([a, str(tmp_path / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err
    assert main([a, b, "--y", "final_los"]) == 2
    assert (
        "no scalar 'final_los' in both stores; did you mean 'final_loss'" in capsys.readouterr().err
    )
    assert main([a, b, "--by", "sed"]) == 2
    assert "did you mean 'seed'" in capsys.readouterr().err
