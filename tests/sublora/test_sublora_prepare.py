"""The command that makes data sets: three corpora, tokenizers, and how it fails."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from plugins.lm.tokenizers import raw_bytes
from sublora import markov, prepare
from sublora.dataset import load_dataset
from sublora.prepare import bytes_tokenizer, default_dataset, load_tokenizer, main
from sublora.streams import stream

END = "<|endoftext|>"


def words_tokenizer(path, special=(END,), **settings):
    """A tokenizer.json of a few words, the special tokens last."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"[UNK]": 0, "one": 1, "two": 2, "three": 3}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(special))
    if settings:
        tokenizer.enable_truncation(settings["longest"])
        tokenizer.enable_padding()
    tokenizer.save(str(path))
    return str(path)


def texts_of(folder):
    """Documents of both sides of a data set of bytes."""
    data = load_dataset(folder)
    ids = np.concatenate([data.train, data.val])
    parts = np.split(ids, np.flatnonzero(ids == 256) + 1)
    return sorted(bytes(part[:-1].tolist()).decode() for part in parts if len(part))


@pytest.fixture
def notes(tmp_path):
    """Three files, of which one is empty."""
    folder = tmp_path / "notes"
    (folder / "more").mkdir(parents=True)
    (folder / "a.txt").write_bytes("Zürich\r\nlies\r\n\r\n\r\n low\n \t\nlast".encode())
    (folder / "b.txt").write_bytes(b"one two\n")
    (folder / "more" / "c.txt").write_bytes(b"")
    return folder


def text(output, *more):
    return main(["-o", str(output), "--corpus", "text", *map(str, more)])


def test_markov(tmp_path, capsys):
    out = tmp_path / "new" / "m"
    start = time.perf_counter()
    assert main(["-o", str(out), "--corpus", "markov", "--seed", "4"]) == 0
    assert time.perf_counter() - start < 10
    data = load_dataset(out)
    assert (data.vocab_size, data.eot, data.n_documents) == (64, 63, 40_000)
    assert (data.val == 63).sum() == 2_000
    expected = markov.documents(40_000, stream(4, "markov", "train"))
    for i in (0, 1, 39_999):
        np.testing.assert_array_equal(data.document(i), expected[i])
    assert sorted(path.name for path in out.parent.iterdir()) == ["m"]
    printed = capsys.readouterr().out
    assert f"{out}: V=64, EOT 63\ntrain.bin: 40,000 documents, " in printed
    assert f"tokens, sha256 {data.sha256}\nval.bin: 2,000 documents, " in printed


def test_default_dataset_is_markov_made_once():
    folder = default_dataset()
    before = (folder / "train.bin").stat().st_mtime_ns
    assert default_dataset() == folder
    assert (folder / "train.bin").stat().st_mtime_ns == before
    data = load_dataset(folder)
    assert data.n_documents == 40_000
    expected = markov.documents(40_000, stream(0, "markov", "train"))
    np.testing.assert_array_equal(data.document(7), expected[7])


def test_files_are_documents_with_their_bytes_as_they_are(notes, tmp_path, capsys):
    assert text(tmp_path / "out", "--files", notes / "**" / "*.txt") == 0
    texts = ["", "Zürich\r\nlies\r\n\r\n\r\n low\n \t\nlast", "one two\n"]
    assert texts_of(tmp_path / "out") == texts
    assert load_dataset(tmp_path / "out").n_documents == 1
    assert ", 1 empty documents, sha256" in capsys.readouterr().out
    meta = json.loads((tmp_path / "out" / "meta.json").read_text())
    known = ("vocab_size", "eot", "tokenizer", "corpus", "split", "seed", "val_fraction")
    assert [meta[name] for name in known] == [257, 256, "bytes", "text", "file", 0, 0.05]


def test_paragraphs_end_at_blank_lines(notes, tmp_path):
    files = ("--files", notes / "b.txt", notes / "*.txt", notes / "more" / "c.txt")
    assert text(tmp_path / "out", *files, "--split", "paragraph") == 0
    assert texts_of(tmp_path / "out") == [" low", "Zürich\r\nlies", "last", "one two"]


def test_split_is_by_documents_and_seed(tmp_path):
    paragraphs = [f"document {i}" for i in range(40)]
    (tmp_path / "t.txt").write_text("\n\n".join(paragraphs))
    vals = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        options = ("--split", "paragraph", "--val-fraction", 0.25, "--seed", seed)
        assert text(tmp_path / name, "--files", tmp_path / "t.txt", *options) == 0
        data = load_dataset(tmp_path / name)
        assert (data.n_documents, (data.val == 256).sum()) == (30, 10)
        assert texts_of(tmp_path / name) == sorted(paragraphs)
        vals.append(data.val.tolist())
    assert vals[0] == vals[1] != vals[2]


def test_texts_are_read_as_they_are_needed(notes):
    """The second file is broken: nobody sees it who stops before."""
    (notes / "b.txt").write_bytes(b"\xff")
    found = prepare._text_documents(sorted(notes.glob("*.txt")), "paragraph")
    assert [next(found) for _ in range(3)] == ["Zürich\r\nlies", " low", "last"]
    with pytest.raises(ValueError, match=r"--files: .*b\.txt is not UTF-8"):
        next(found)


def test_batches_hold_all_texts_in_their_order(monkeypatch):
    monkeypatch.setattr(prepare, "_BATCH", 5)
    texts = ["abc", "", "defghij", "k", "l", "mno", "p"]
    batches = list(prepare._batches(texts))
    assert batches == [["abc", "", "defghij"], ["k", "l", "mno"], ["p"]]


def test_bytes_are_those_of_utf8():
    tokenizer = bytes_tokenizer()
    assert [ids.tolist() for ids in tokenizer.encode(["aé", ""])] == [[97, 195, 169], []]
    assert (tokenizer.vocab_size, tokenizer.eot) == (257, 256)


def test_tokenizer_of_a_file(notes, tmp_path):
    path = words_tokenizer(tmp_path / "tokenizer.json")
    files = ("--files", notes / "a.txt", notes / "b.txt")
    assert text(tmp_path / "out", *files, "--tokenizer", path) == 0
    data = load_dataset(tmp_path / "out")
    assert (data.vocab_size, data.eot) == (5, 4)
    sides = sorted([data.document(0).tolist(), data.val[:-1].tolist()])
    assert sides == [[0, 0, 0, 0], [1, 2]]


def test_special_tokens_in_a_text_are_words_of_the_text(tmp_path):
    """Else a document that quotes the end of text would be two."""
    tokenizer = load_tokenizer(words_tokenizer(tmp_path / "t.json"))
    ids = tokenizer.encode([f"one {END} two"])[0].tolist()
    assert tokenizer.eot not in ids
    assert (ids[0], ids[-1]) == (1, 2)


def test_tokenizer_neither_cuts_nor_pads(tmp_path):
    tokenizer = load_tokenizer(words_tokenizer(tmp_path / "t.json", longest=2))
    texts = ["one two three one", "two"]
    assert [ids.tolist() for ids in tokenizer.encode(texts)] == [[1, 2, 3, 1], [2]]


def test_tokenizer_of_a_folder_has_its_own_end(tmp_path):
    from transformers import PreTrainedTokenizerFast

    file = words_tokenizer(tmp_path / "t.json", special=(END, "[STOP]"))
    PreTrainedTokenizerFast(tokenizer_file=file, eos_token="[STOP]").save_pretrained(
        tmp_path / "lm"
    )
    tokenizer = load_tokenizer(str(tmp_path / "lm"))
    assert (tokenizer.vocab_size, tokenizer.eot) == (6, 5)
    assert [ids.tolist() for ids in tokenizer.encode(["three one"])] == [[3, 1]]
    assert load_tokenizer(file).eot == 4


def test_end_of_text_inside_a_document_is_refused(tmp_path, capsys):
    """Byte 0 is both in the tokenizer of the tiny models."""
    raw_bytes().save_pretrained(tmp_path / "lm")
    for name, contents in (("a", "xy"), ("b", "x\0y")):
        (tmp_path / f"{name}.txt").write_text(contents)
    options = ("--files", tmp_path / "*.txt", "--tokenizer", tmp_path / "lm")
    assert text(tmp_path / "out", *options) == 2
    assert capsys.readouterr().err == "error: document 1 has the id 0 inside it, which is EOT\n"
    assert not (tmp_path / "out").exists()


def test_hub(tmp_path, cached_data_set):
    texts = [f"text {i}" for i in range(30)]
    cached_data_set("owner/texts", "default", [{"text": t, "n": 1} for t in texts])
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        options = ["--dataset", "owner/texts", "--val-fraction", "0.2", "--seed", seed]
        assert main(["-o", str(tmp_path / name), "--corpus", "hub", *options]) == 0
        assert texts_of(tmp_path / name) == sorted(texts)
    a, b, c = (load_dataset(tmp_path / name) for name in "abc")
    assert (a.n_documents, a.sha256 == b.sha256) == (24, True)
    orders = [[bytes(d.document(i).tolist()) for i in range(24)] for d in (a, c)]
    common = set(orders[0]) & set(orders[1])  # the rows' order is by seed too, not the split alone
    assert [t for t in orders[0] if t in common] != [t for t in orders[1] if t in common]


def test_hub_that_cannot_be_reached_names_what_works_without(tmp_path, cached_data_set, capsys):
    assert main(["-o", str(tmp_path / "out"), "--corpus", "hub"]) == 2
    error = capsys.readouterr().err
    assert "the hub's data set Skylion007/openwebtext cannot be read" in error
    assert "without a connection: --corpus markov, or --corpus text --files" in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"txt": "a"}, r"--dataset=owner/set: owner/set has no field 'text'; did you mean 'txt'?"),
        ({"text": 5}, "--dataset=owner/set: its field text holds 5, no text"),
    ],
)
def test_hub_without_texts(tmp_path, cached_data_set, capsys, row, message):
    cached_data_set("owner/set", "default", [row])
    assert main(["-o", str(tmp_path / "o"), "--corpus", "hub", "--dataset", "owner/set"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("package", "options", "what"),
    [
        ("datasets", ["--corpus", "hub"], "--corpus hub needs datasets: pip install datasets"),
        (
            "tokenizers",
            ["--corpus", "text", "--files", "a.txt", "--tokenizer", "t.json"],
            "--tokenizer=t.json needs tokenizers: pip install tokenizers",
        ),
    ],
)
def test_package_that_is_not_installed_is_named(tmp_path, root, package, options, what):
    """In a process whose import system knows no such package."""
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "t.json").write_text("{}")
    code = (
        "import sys, importlib.util as util\n"
        "from importlib.machinery import PathFinder\n"
        "class Without(PathFinder):\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, *more):\n"
        f"        is_gone = name.split('.')[0] == {package!r}\n"
        "        return None if is_gone else super().find_spec(name, *more)\n"
        "sys.meta_path = [Without if f is PathFinder else f for f in sys.meta_path]\n"
        "from sublora.prepare import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", code, "-o", "out", *options]
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, f"error: {what}\n")


@pytest.mark.parametrize("tokenizer", ["file", "folder"])
def test_tokenizer_that_is_none(notes, tmp_path, tokenizer, capsys):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("{}")
    path = tmp_path / tokenizer
    assert text(tmp_path / "out", "--files", notes / "*.txt", "--tokenizer", path) == 2
    assert f"error: --tokenizer={path} cannot be read: " in capsys.readouterr().err


def test_tokenizers_that_make_no_data_set(tmp_path):
    with pytest.raises(ValueError, match=r"--tokenizer=byts: no such file or folder; bytes is"):
        load_tokenizer("byts")
    path = words_tokenizer(tmp_path / "t.json", special=("[STOP]",))
    with pytest.raises(ValueError, match=r"has no end of text: neither an eos_token .* </s>"):
        load_tokenizer(path)
    config = json.loads(Path(words_tokenizer(tmp_path / "t.json")).read_text())
    for last in (65_535, 65_536):
        config["model"]["vocab"] = {"[UNK]": 0, END: 4, "w": last}
        Path(path).write_text(json.dumps(config))
        if last == 65_535:
            assert load_tokenizer(path).vocab_size == 65_536
    with pytest.raises(ValueError, match=r"has 65,537 tokens; at most 65,536 are possible"):
        load_tokenizer(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--corpus txt", "argument --corpus: invalid choice: 'txt' (choose from"),
        ("", "the following arguments are required: --corpus"),
        ("--corpus text", "--corpus text needs --files GLOB"),
        ("--corpus text --files nowhere/*.txt", "--files=nowhere/*.txt: no file there"),
        ("--corpus text --files a.txt --split line", "argument --split: invalid choice: 'line'"),
        ("--corpus text --files a.txt", "documents that are not empty: 1; training and"),
        ("--corpus text --files bad.txt a.txt", "--files: bad.txt is not UTF-8: "),
        ("--corpus text --files a.txt --tokenizer byts", "--tokenizer=byts: no such file"),
        (
            "--corpus markov --files a.txt b.txt",
            "--files=a.txt b.txt: --corpus markov takes none; it goes with --corpus text",
        ),
        (
            "--corpus markov --tokenizer bytes",
            "--tokenizer=bytes: --corpus markov takes none; it goes with --corpus text or hub",
        ),
        ("--corpus text --dataset a/b", "--dataset=a/b: --corpus text takes none; it goes with"),
        ("--corpus hub --split file", "--split=file: --corpus hub takes none; it goes with"),
        ("--corpus markov --val-fraction 0", "--val-fraction=0.0 must lie between 0 and 1"),
        ("--corpus markov --val-fraction 1", "--val-fraction=1.0 must lie between 0 and 1"),
        ("--corpus markov --val-fraction nan", "--val-fraction=nan must lie between 0 and 1"),
        ("--corpus markov --val-fraction x", "argument --val-fraction: invalid float value: 'x'"),
        ("--corpus markov --seed -1", "--seed=-1 must be 0 or more"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "bad.txt").write_bytes(b"caf\xe9")
    try:
        status = main(["-o", "out", *options.split()])
    except SystemExit as stopped:  # argparse's own
        status = stopped.code
    found = capsys.readouterr()
    assert (status, found.out) == (2, "")
    assert found.err.startswith(f"error: {message}")
    assert found.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "bad.txt"]


def test_folder_with_something_in_it_is_refused(tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("x")
    for output, what in ((out, "has something in it"), (out / "mine", "is a file")):
        assert main(["-o", str(output), "--corpus", "markov"]) == 2
        expected = f"error: -o {output} {what}: name a folder that is new or empty\n"
        assert capsys.readouterr().err == expected
    assert [path.name for path in out.iterdir()] == ["mine"]


def test_empty_folder_is_filled(notes, tmp_path):
    (tmp_path / "out").mkdir()
    assert text(tmp_path / "out", "--files", notes / "*.txt") == 0
    assert load_dataset(tmp_path / "out").n_documents == 1


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_killed_command_leaves_no_half_folder(tmp_path, root, sent):
    """Stopped while it writes ids; what is hidden stays after SIGKILL only."""
    with open(tmp_path / "t.txt", "w") as file:
        for i in range(1_000_000):
            file.write(f"{i}\n\n")
    (tmp_path / "data").mkdir()
    options = ["-o", tmp_path / "data" / "out", "--corpus", "text", "--split", "paragraph"]
    command = [sys.executable, "-m", "sublora.prepare", *options, "--files", tmp_path / "t.txt"]
    process = subprocess.Popen(command, cwd=root)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in tmp_path.glob("data/.tmp-*/all.bin")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(sent)
    process.wait(60)
    left = [path.name[:5] for path in (tmp_path / "data").iterdir()]
    assert left == ([".tmp-"] if sent == signal.SIGKILL else [])


def test_command_line(tmp_path, root, notes):
    command = [sys.executable, "-m", "sublora.prepare", "-o", "out", "--corpus", "text", "--files"]
    env = {**os.environ, "PYTHONPATH": str(root)}
    command.append(str(notes / "*.txt"))
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "out: V=257, EOT 256"
    assert [line.split(":")[0] for line in lines[1:]] == ["train.bin", "val.bin"]
    assert load_dataset(tmp_path / "out").n_documents == 1


def test_torch_is_not_imported(root):
    code = "import sys, sublora.prepare; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
