"""Data set folders: what is written is read, arrays are rebuilt, damaged folders are named."""

import hashlib
import json
import shutil

import numpy as np
import pytest

from sublora import dataset
from sublora.dataset import check_meta, load_dataset, write_dataset, write_split_dataset

META = {"vocab_size": 10, "eot": 9}
DOCUMENTS = [[1, 2, 3], [], [4], [0, 8], []]
IDS = [1, 2, 3, 9, 9, 4, 9, 0, 8, 9, 9]


@pytest.fixture
def folder(tmp_path):
    write_dataset(tmp_path, DOCUMENTS, [[5, 6]], {**META, "seed": 3})
    return tmp_path


def put(path, ids):
    path.write_bytes(np.array(ids, "<u2").tobytes())


def edit_meta(folder, **values):
    meta = json.loads((folder / "meta.json").read_text()) | values
    (folder / "meta.json").write_text(json.dumps(meta))


def test_files_hold_little_endian_ids_each_document_followed_by_eot(folder):
    assert (folder / "train.bin").read_bytes() == b"".join(bytes([i, 0]) for i in IDS)
    assert (folder / "val.bin").read_bytes() == bytes([5, 0, 6, 0, 9, 0])
    np.testing.assert_array_equal(np.load(folder / "eot_indices.npy"), [3, 4, 6, 9, 10])
    np.testing.assert_array_equal(np.load(folder / "doc_lengths.npy"), [3, 0, 1, 2, 0])
    assert {np.load(folder / f"{n}.npy").dtype for n in ("eot_indices", "doc_lengths")} == {
        np.dtype(np.int64)
    }


def test_meta_tells_counts_and_the_digest_of_every_file(folder):
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["counts"] == {
        "train": {"documents": 3, "empty_documents": 2, "tokens": 6},
        "val": {"documents": 1, "empty_documents": 0, "tokens": 2},
    }
    assert {name: meta[name] for name in ("vocab_size", "eot", "seed", "format_version")} == {
        "vocab_size": 10,
        "eot": 9,
        "seed": 3,
        "format_version": 1,
    }
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    del files["meta.json"]
    assert meta["sha256"] == files
    assert len(files) == 4


def test_empty_documents_do_not_count(folder):
    data = load_dataset(folder)
    assert data.n_documents == 3
    assert [data.document(i).tolist() for i in range(3)] == [[1, 2, 3], [4], [0, 8]]
    assert (data.vocab_size, data.eot, data.folder) == (10, 9, folder)
    assert data.train.tolist() == IDS
    assert data.val.tolist() == [5, 6, 9]
    assert data.sha256 == hashlib.sha256((folder / "train.bin").read_bytes()).hexdigest()
    np.testing.assert_array_equal(data.doc_lengths, np.diff(data.eot_indices, prepend=-1) - 1)


def test_ids_are_read_chunk_by_chunk(folder, monkeypatch):
    """Whatever the chunk: no EOT lost or shifted at a border."""
    whole = load_dataset(folder)
    for size in range(1, 13):
        monkeypatch.setattr(dataset, "_CHUNK", size)
        data = load_dataset(folder)
        np.testing.assert_array_equal(data.eot_indices, whole.eot_indices)
        assert data.sha256 == whole.sha256
    put(folder / "train.bin", [*IDS[:7], 10, 9])
    for size in (1, 4, 100):
        monkeypatch.setattr(dataset, "_CHUNK", size)
        with pytest.raises(ValueError, match=r"train\.bin has the id 10 at token 7"):
            load_dataset(folder)


@pytest.mark.parametrize("name", ["eot_indices.npy", "doc_lengths.npy"])
def test_missing_array_is_written_anew(folder, name):
    before = (folder / name).read_bytes()
    (folder / name).unlink()
    load_dataset(folder)
    assert (folder / name).read_bytes() == before


def test_folder_written_by_hand(tmp_path):
    """train.bin and val.bin of another program need a meta.json of three keys."""
    put(tmp_path / "train.bin", IDS)
    put(tmp_path / "val.bin", [1, 2])
    (tmp_path / "meta.json").write_text(json.dumps({**META, "format_version": 1}))
    assert load_dataset(tmp_path).n_documents == 3
    assert (tmp_path / "eot_indices.npy").exists()


@pytest.mark.parametrize("name", ["eot_indices", "doc_lengths"])
@pytest.mark.parametrize("damage", ["value", "shorter", "cut", "text", "empty"])
def test_stale_array_is_refused(folder, name, damage):
    path = folder / f"{name}.npy"
    array = np.load(path)
    if damage == "value":
        array[-1] += 1
        np.save(path, array)
    elif damage == "shorter":
        np.save(path, array[:-1])
    else:
        contents = {"cut": path.read_bytes()[:-3], "text": b"no array", "empty": b""}
        path.write_bytes(contents[damage])
    with pytest.raises(ValueError, match=rf"^data\.dir=.*: {name}\.npy does not fit train\.bin"):
        load_dataset(folder)


def test_arrays_of_longer_training_documents_are_stale(folder):
    put(folder / "train.bin", [*IDS, 3, 9])
    with pytest.raises(ValueError, match=r"does not fit train\.bin; remove it"):
        load_dataset(folder)


def test_other_ids_than_meta_tells_of_are_legal_and_warned_about(folder):
    digest = load_dataset(folder).sha256
    put(folder / "train.bin", [7, *IDS[1:]])
    with pytest.warns(UserWarning, match=r"train\.bin is not the file that meta\.json tells of"):
        assert load_dataset(folder).sha256 != digest


def test_fitting_folder_warns_of_nothing(folder, recwarn):
    load_dataset(folder)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("train.bin", b"\1\0\2", r"train\.bin has 3 bytes, an odd number"),
        ("val.bin", b"\1\0\2", r"val\.bin has 3 bytes, an odd number"),
        ("train.bin", b"", r"train\.bin has no token"),
        ("val.bin", b"", r"val\.bin has no token"),
        ("train.bin", None, r"train\.bin is missing"),
        ("val.bin", None, r"val\.bin is missing"),
        ("train.bin", b"\1\0\2\0", r"train\.bin has no EOT, which is 9 in meta\.json"),
        ("train.bin", b"\1\0\x09\0\2\0", r"train\.bin does not end in EOT, which is 9"),
        ("train.bin", b"\x09\0\x09\0", r"train\.bin has no document that is not empty"),
        ("train.bin", b"\1\0\x0a\0\x09\0", r"train\.bin has the id 10 at token 1, vocab_size in"),
        (
            "val.bin",
            b"\xff\xff\x09\0",
            r"val\.bin has the id 65535 at token 0, vocab_size in .* 10",
        ),
    ],
)
def test_bad_ids_are_named(folder, name, contents, message):
    (folder / name).unlink()
    if contents is not None:
        (folder / name).write_bytes(contents)
    with pytest.raises(ValueError, match=rf"^data\.dir={folder}: {message}"):
        load_dataset(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be an object with format_version, vocab_size and eot: JSONDecodeError"),
        ("3", "must be an object with"),
        ('{"vocab_size": 10, "eot": 9}', "must be an object with .*KeyError 'format_version'"),
        ('{"format_version": 2, "vocab_size": 10, "eot": 9}', "format_version=2, .* reads 1"),
        ('{"format_version": 1, "vocab_size": 1, "eot": 0}', "vocab_size=1, not 2 to 65,536"),
        ('{"format_version": 1, "vocab_size": 65537, "eot": 0}', "vocab_size=65537, not 2 to"),
        ('{"format_version": 1, "vocab_size": "10", "eot": 0}', "vocab_size='10', not 2 to"),
        ('{"format_version": 1, "vocab_size": 10, "eot": 10}', "eot=10, not 0 to vocab_size - 1"),
        ('{"format_version": 1, "vocab_size": 10, "eot": -1}', "eot=-1, not 0 to"),
        ('{"format_version": 1, "vocab_size": 10, "eot": null}', "eot=None, not 0 to"),
    ],
)
def test_bad_meta_is_named(folder, text, message):
    (folder / "meta.json").write_text(text)
    for function in (check_meta, load_dataset):
        with pytest.raises(ValueError, match=rf"^data\.dir={folder}: .*meta\.json.*{message}"):
            function(folder)


def test_folder_without_meta_names_what_makes_one(tmp_path):
    with pytest.raises(ValueError, match=r"has no meta\.json; python -m sublora\.prepare"):
        check_meta(tmp_path)
    with pytest.raises(ValueError, match=r"data\.dir=.*nowhere is no folder; .*data\.dir=null"):
        check_meta(tmp_path / "nowhere")


def test_vocabulary_of_the_model_fits_with_padding_to_a_multiple_of_128(folder):
    for vocab, outputs in ((10, 10), (10, 64), (10, 128), (128, 128), (50257, 50304)):
        edit_meta(folder, vocab_size=vocab)
        assert check_meta(folder, outputs)["vocab_size"] == vocab
    for vocab, outputs in ((10, 9), (10, 129), (128, 129), (50257, 50256), (257, 50257)):
        edit_meta(folder, vocab_size=vocab)
        with pytest.raises(ValueError, match=rf"vocab_size={vocab}, the model {outputs} outputs"):
            check_meta(folder, outputs)


def test_meta_is_told_without_reading_ids(folder):
    for path in folder.iterdir():
        if path.name != "meta.json":
            path.unlink()
    assert check_meta(folder)["counts"]["train"]["documents"] == 3


def test_largest_vocabulary(tmp_path):
    write_dataset(tmp_path, [[65534, 0]], [[1]], {"vocab_size": 65536, "eot": 65535})
    assert load_dataset(tmp_path).document(0).tolist() == [65534, 0]


@pytest.mark.parametrize(
    ("documents", "val", "message"),
    [
        ([[1], [2, 10]], [[1]], "document 1 has the id 10, not 0 to 9"),
        ([[1]], [[65536 + 3]], "document 0 has the id 65539, not 0 to 9"),
        ([[-1]], [[1]], "document 0 has the id -1, not 0 to 9"),
        ([[1, 9, 2]], [[1]], "document 0 has the id 9 inside it, which is EOT"),
        ([[1]], [], "val.bin has no token"),
        ([], [[1]], "train.bin has no token"),
        ([[1]], [[]], "val.bin: no document that is not empty"),
        ([[], []], [[1]], "train.bin: no document that is not empty"),
    ],
)
def test_bad_documents_are_not_written(tmp_path, documents, val, message):
    with pytest.raises(ValueError, match=message):
        write_dataset(tmp_path, documents, val, META)


def numbered(n):
    """Documents of lengths 1 to 4 that tell their number."""
    return [[i % 250, i // 250, 251, 252][: 2 + i % 3] for i in range(n)]


@pytest.mark.parametrize(
    ("n", "fraction", "n_val"), [(200, 0.05, 10), (7, 0.05, 1), (7, 0.99, 6), (2, 0.5, 1)]
)
def test_split_puts_each_document_on_one_side_in_its_order(tmp_path, n, fraction, n_val):
    meta = {"vocab_size": 257, "eot": 256}
    write_split_dataset(tmp_path, iter(numbered(n)), meta, fraction, seed=0)
    data = load_dataset(tmp_path)
    train = [data.document(i).tolist() for i in range(data.n_documents)]
    val = [part.tolist() for part in np.split(data.val, np.flatnonzero(data.val == 256) + 1)]
    val = [part[:-1] for part in val if part]
    assert len(val) == n_val
    place = {tuple(document): i for i, document in enumerate(numbered(n))}
    places = [[place[tuple(d)] for d in side] for side in (train, val)]
    assert sorted(places[0] + places[1]) == list(range(n))
    assert all(side == sorted(side) for side in places)
    assert not (tmp_path / "all.bin").exists()


def test_split_is_by_seed(tmp_path):
    def val(seed):
        shutil.rmtree(tmp_path / "d", ignore_errors=True)
        (tmp_path / "d").mkdir()
        meta = {"vocab_size": 257, "eot": 256}
        write_split_dataset(tmp_path / "d", numbered(100), meta, 0.1, seed)
        return (tmp_path / "d" / "val.bin").read_bytes()

    assert val(0) == val(0) != val(1)


def test_empty_documents_are_on_the_training_side(tmp_path):
    documents = [[], [1], [], [2], []]
    meta = write_split_dataset(tmp_path, documents, META, 0.5, seed=0)
    assert meta["counts"]["train"] == {"documents": 1, "empty_documents": 3, "tokens": 1}
    assert meta["counts"]["val"] == {"documents": 1, "empty_documents": 0, "tokens": 1}


@pytest.mark.parametrize(("documents", "n"), [([], 0), ([[]], 0), ([[1], []], 1)])
def test_split_needs_two_documents(tmp_path, documents, n):
    with pytest.raises(ValueError, match=f"documents that are not empty: {n}; training and"):
        write_split_dataset(tmp_path, documents, META, 0.5, seed=0)
