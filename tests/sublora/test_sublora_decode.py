"""A fresh process finds the bound of a run in its message and its config."""

import os
import shutil
import subprocess
import sys

import pytest
import yaml
from sublora_cases import config, file, run

from sublora.decode import main
from sublora.message import MAGIC
from sublora.prepare import main as prepare


def decode(root, *arguments):
    command = [sys.executable, "-m", "sublora.decode", *map(str, arguments)]
    return subprocess.run(command, cwd=root, env=os.environ, capture_output=True, text=True)


@pytest.fixture
def copied(ended, tmp_path):
    """message.bin and config.yaml of a run, and nothing else of it."""
    one = ended("uniform")
    for name in ("message.bin", "config.yaml"):
        shutil.copy(file(one.result, name), tmp_path)
    return tmp_path / "message.bin"


def printed(text):
    return dict(line.split(": ", 1) for line in text.splitlines())


@pytest.mark.slow
def test_fresh_process_prints_the_bound_to_the_last_digit(root, one, tmp_path):
    for name in ("message.bin", "config.yaml"):
        shutil.copy(file(one.result, name), tmp_path)
    done = decode(root, tmp_path / "message.bin")
    assert done.returncode == 0, done.stderr
    found, row = printed(done.stdout), one.result.scalars
    for name in ("bound_value", "empirical_bpd", "kl_divergence", "alpha_best"):
        assert found[name] == repr(row[name])
    for name in ("compressed_size_bits", "m", "n"):
        assert found[name] == str(row[name])
    assert found["bound_valid"] == "True"


@pytest.mark.slow
def test_corrupted_byte_is_refused_with_status_2(root, copied):
    content = bytearray(copied.read_bytes())
    content[len(content) // 2] ^= 1
    copied.write_bytes(content)
    done = decode(root, copied)
    assert done.returncode == 2
    assert done.stdout == ""
    *_, line = done.stderr.splitlines()  # after what libraries say of themselves
    assert line.startswith("error: the message is damaged")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "damaged, cut"),
        (lambda path: path.write_bytes(b""), "are no message"),
        (lambda path: path.write_bytes(MAGIC), "damaged, cut"),
        (lambda path: path.unlink(), "message.bin"),
        (lambda path: shutil.rmtree(path.parent), "message.bin"),
        (lambda path: path.with_name("config.yaml").unlink(), r"config.yaml is no config.yaml"),
        (lambda path: path.with_name("config.yaml").write_text("a: ["), "config.yaml is no"),
        (lambda path: path.with_name("config.yaml").write_text("3"), "config.yaml is no"),
        (lambda path: edit(path, quant={"levels": 6}), "damaged, cut or not of"),
        (lambda path: edit(path, quant={"levels": 1}), "levels must be an integer >= 2"),
        (lambda path: edit(path, nonsense=3), "nonsense"),
        (lambda path: edit(path, data={"dir": "/nowhere"}), "data.dir=/nowhere is no folder"),
    ],
    ids=["cut", "empty", "magic", "gone", "all gone", "no config", "no yaml", "a number",
         "other levels", "bad value", "unknown key", "no data"],
)  # fmt: skip
def test_bad_input_is_one_line_and_status_2(copied, capsys, damage, message):
    damage(copied)
    assert main([str(copied)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) == 1


def edit(path, **changes):
    config = path.with_name("config.yaml")
    content = yaml.safe_load(config.read_text())
    for key, value in changes.items():
        old = content["config"].get(key)
        content["config"][key] = old | value if isinstance(value, dict) else value
    config.write_text(yaml.safe_dump(content))


def test_data_may_lie_elsewhere_now(copied, ended, folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "elsewhere")
    edit(copied, data={"dir": "/nowhere"})
    assert main([str(copied), "--data-dir", str(tmp_path / "elsewhere")]) == 0
    found = printed(capsys.readouterr().out)
    assert found["bound_value"] == repr(ended("uniform").result.scalars["bound_value"])


def test_bound_on_other_data_is_said_to_be_none(copied, tmp_path, capsys):
    from sublora.dataset import write_dataset

    other = tmp_path / "other"
    other.mkdir()
    write_dataset(other, [[i % 63] * 5 for i in range(200)], [[1]], {"vocab_size": 64, "eot": 63})
    assert main([str(copied), "--data-dir", str(other)]) == 0
    found = printed(capsys.readouterr().out)
    assert found["bound_valid"].startswith("False (the training set")


def test_threads_are_some(copied, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([str(copied), "--threads", "0"])
    assert "--threads 0: at least 1" in capsys.readouterr().err


def test_published_price_is_said_to_be_invalid(folder, tmp_path, capsys):
    result = run(config(folder, bound={"price": "paper"}, train={"steps": 2}), tmp_path)
    assert main([str(file(result, "message.bin"))]) == 0
    found = printed(capsys.readouterr().out)
    assert found["bound_valid"].startswith("False (bound.price=paper")
    assert found["bound_value"] == repr(result.scalars["bound_value"])


@pytest.fixture(scope="module")
def markov(tmp_path_factory):
    """A data set of the command, a run on it, and the run's message."""
    path = tmp_path_factory.mktemp("prepared") / "data"
    prepare(["-o", str(path), "--corpus", "markov"])
    result = run(config(path, train={"steps": 3}, bound={"n": 10_000}), path.parent)
    return result, str(file(result, "message.bin"))


@pytest.mark.slow
def test_fresh_documents_have_the_risk_of_the_training_documents_and_stay_below(markov, capsys):
    """A model of 60 coordinates has learned nothing by heart: both are means of one law. A
    document's mean loss has a standard deviation below 1 bit: .01 for the mean of 10,000."""
    result, message = markov
    found = []
    for n in (10_000, 10_000, 20):
        capsys.readouterr()
        assert main([message, "--fresh", str(n)]) == 0
        found.append(float(printed(capsys.readouterr().out)["fresh_risk"]))
    assert found[0] == found[1] != found[2]
    assert found[0] == pytest.approx(result.scalars["empirical_bpd"], abs=0.05)
    assert found[0] < result.scalars["bound_value"]


def test_fresh_documents_need_a_corpus_that_can_be_drawn(copied, capsys):
    assert main([str(copied), "--fresh", "10"]) == 2
    assert "--fresh needs bound.level=document and the corpus markov" in capsys.readouterr().err


def test_fresh_documents_are_some(markov, capsys):
    assert main([markov[1], "--fresh", "0"]) == 2
    assert "--fresh 0: a number of documents, at least 1" in capsys.readouterr().err
