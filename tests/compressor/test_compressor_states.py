"""States: what the cache holds, what makes it build again, what is no state."""

import json
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from compressor_cases import config, on_model, save_gpt2

from compressor.states import load_model, make_sequences_of, make_states
from plugins.lm.tokenizers import raw_bytes


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DYNASCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def folders(cache, kind="states"):
    """When each was made."""
    return {path.name: path.stat().st_mtime_ns for path in (cache / kind).glob("[!.]*")}


def slow_states(cfg, sequences):
    """post_norm, a sequence at a time."""
    lm, found = load_model(cfg), []
    with torch.no_grad():
        for ids, keep in zip(sequences.ids, sequences.keep, strict=True):
            out = lm.model(torch.from_numpy(ids)[None], output_hidden_states=True)
            found.append(out.hidden_states[-1][0][torch.from_numpy(keep)])
    return torch.cat(found)


def test_states_are_those_of_the_kept_tokens_train_first(gpt2, own_cache):
    cfg = on_model(gpt2, data={"skip_first": 3})
    states = make_states(cfg)
    sequences = states.sequences
    expected = slow_states(cfg, sequences)
    n = 21 * sequences.n_train
    assert (len(states.train), len(states.heldout), states.dim) == (n, 21 * 20 - n, 16)
    torch.testing.assert_close(states.train, expected[:n], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(states.heldout, expected[n:], rtol=1e-5, atol=1e-5)
    [folder] = (own_cache / "states").iterdir()
    tokens = np.load(folder / "tokens.npz")
    assert tokens["pos"].tolist() == list(range(3, 24)) * 20
    assert tokens["seq_id"].tolist() == np.repeat(np.arange(20), 21).tolist()
    assert tokens["token"].tolist() == [t for ids in sequences.ids for t in ids[3:]]
    assert {path.name for path in folder.iterdir()} == {
        "states.npy",
        "tokens.npz",
        "manifest.json",
    }


def test_language_model_runs_once_for_what_shares_its_states(gpt2, own_cache):
    cfg = on_model(gpt2)
    make_states(cfg)
    made = folders(own_cache)
    for changes in (
        {"train": {"lr": 0.1, "seed": 3}},
        {"model": {"d_compressed": 5, "center": "mean"}},
        {"eval": {"log_modes": 2}},
    ):
        make_states(on_model(gpt2, **changes))
        assert folders(own_cache) == made
    assert len(made) == 1
    assert len(folders(own_cache, "spectra")) == 2  # with and without the mean


@pytest.mark.parametrize(
    "changes",
    [
        {"lm": {"site": "block_1"}},
        {"lm": {"dtype": "bfloat16"}},
        {"data": {"n_seq": 21}},
        {"data": {"max_len": 23}},
        {"data": {"skip_first": 2}},
        {"data": {"seed": 1}},  # other sequences are held out: another order
        {"data": {"corpus": "column_arithmetic"}},
    ],
    ids=str,
)
def test_what_decides_the_states_makes_them_anew(gpt2, own_cache, changes):
    one = make_states(on_model(gpt2))
    data = {"n_seq": 20, "max_len": 24} | changes.get("data", {})
    other = make_states(on_model(gpt2, **changes | {"data": data}))
    assert len(folders(own_cache)) == 2
    assert one.train.shape != other.train.shape or not torch.equal(one.train, other.train)


def test_split_alone_decides_a_spectrum_of_its_own(gpt2, tmp_path, own_cache):
    """Three documents in one order, of which the last one or the last two are held out."""
    (tmp_path / "text.txt").write_text("\n\n".join(letter * 24 for letter in "abc"))
    data = {"corpus": "file", "path": str(tmp_path / "text.txt"), "n_seq": 3}
    data["seed"] = next(
        seed for seed in range(99) if [*np.random.default_rng(seed).permutation(3)] == [2, 1, 0]
    )
    for share, n_train in ((0.34, 2), (0.66, 1)):
        states = make_states(on_model(gpt2, data=data | {"heldout": share}))
        assert states.sequences.n_train == n_train
        C = states.train.double().T @ states.train.double() / len(states.train)
        torch.testing.assert_close(states.spectrum.C, C, rtol=1e-12, atol=1e-12)
    assert len(folders(own_cache)) == 1
    assert len(folders(own_cache, "spectra")) == 2


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_weights_that_changed_in_their_folder_make_states_anew(tmp_path, own_cache, safe):
    from transformers import AutoModelForCausalLM

    folder, found = tmp_path / "model", []
    for seed in (0, 1):
        save_gpt2(folder, seed)
        if not safe:
            model = AutoModelForCausalLM.from_pretrained(folder)
            (folder / "model.safetensors").unlink()
            torch.save(model.state_dict(), folder / "pytorch_model.bin")
        found.append(make_states(on_model(folder)))
    assert found[0].lm_sha256 != found[1].lm_sha256
    assert not torch.equal(found[0].train, found[1].train)


def test_same_model_elsewhere_is_the_same_states(gpt2, tmp_path, own_cache):
    one = make_states(on_model(gpt2))
    shutil.copytree(gpt2, tmp_path / "copy")
    assert make_states(on_model(tmp_path / "copy")).lm_sha256 == one.lm_sha256
    assert len(folders(own_cache)) == 1


def test_another_tokenizer_is_another_text(gpt2, tmp_path, own_cache):
    one = make_states(on_model(gpt2))
    folder = tmp_path / "copy"
    shutil.copytree(gpt2, folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    vocab = content["model"]["vocab"]
    vocab["a"], vocab["e"] = vocab["e"], vocab["a"]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert raw_bytes()("a").input_ids == [97]
    other = make_states(on_model(folder))
    assert other.corpus_sha256 != one.corpus_sha256
    assert not torch.equal(one.train, other.train)


@pytest.mark.parametrize("damage", ["shorter", "gone"])
def test_damaged_cache_is_built_again(gpt2, own_cache, damage):
    expected = make_states(on_model(gpt2)).train.clone()
    [folder] = (own_cache / "states").iterdir()
    if damage == "gone":
        (folder / "states.npy").unlink()
    else:
        content = (folder / "states.npy").read_bytes()
        (folder / "states.npy").write_bytes(content[:-64])
    with pytest.warns(UserWarning, match="is damaged and is built again"):
        states = make_states(on_model(gpt2))
    assert torch.equal(states.train, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        make_states(on_model(gpt2))


def break_model(folder, tensor, value):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights[tensor][...] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_states_that_are_not_finite_name_their_sequence(tmp_path, own_cache):
    """The embedding of one byte is nan: only sequences with it are broken."""
    from safetensors.torch import load_file, save_file

    folder = save_gpt2(tmp_path / "model")
    sequences = make_sequences_of(on_model(folder))
    letters = [set(ids.tolist()) for ids in sequences.ids]
    byte = next(b for b in range(256) if 0 < sum(b in found for found in letters) < 5)
    first = next(i for i, found in enumerate(letters) if byte in found)
    weights = load_file(folder / "model.safetensors")
    weights["transformer.wte.weight"][byte] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    expected = rf"sequence {first} \(document {sequences.doc_id[first]}\) at lm\.site=post_norm"
    with pytest.raises(ValueError, match=expected):
        make_states(on_model(folder))
    assert folders(own_cache) == {}
    assert list((own_cache / "states").iterdir()) == []


def test_states_that_are_all_zero_are_an_error(tmp_path):
    folder = save_gpt2(tmp_path / "model")
    for name in ("weight", "bias"):
        break_model(folder, f"transformer.ln_f.{name}", 0.0)
    with pytest.raises(ValueError, match="all states of the train split are 0"):
        make_states(on_model(folder))


def test_states_that_are_all_equal_are_an_error_only_where_they_are_centred(tmp_path):
    folder = save_gpt2(tmp_path / "model")
    break_model(folder, "transformer.ln_f.weight", 0.0)
    break_model(folder, "transformer.ln_f.bias", 0.3)
    assert make_states(on_model(folder)).spectrum.eigenvalues[1] == 0
    with pytest.raises(ValueError, match=r"or equal where model\.center=mean"):
        make_states(on_model(folder, model={"center": "mean"}))


def test_sequences_longer_than_the_model_reads_are_an_error(gpt2):
    with pytest.raises(ValueError, match=r"data\.max_len=33: the language model reads at most 32"):
        make_states(on_model(gpt2, data={"max_len": 33}))


def test_block_that_is_not_there_is_an_error(gpt2):
    with pytest.raises(ValueError, match=r"lm\.site=block_4: .*block_1 \.\. block_3"):
        make_states(on_model(gpt2, lm={"site": "block_4"}))


def test_declared_dimension_must_be_the_states(gpt2):
    with pytest.raises(ValueError, match=r"lm\.dim=17: the states have 16 dimensions"):
        make_states(on_model(gpt2, lm={"dim": 17}))


def test_another_site_is_extracted_from_the_same_tokens(gpt2):
    cfg = on_model(gpt2)
    deep, shallow = make_states(cfg), make_states(cfg, "block_1")
    assert deep.corpus_sha256 == shallow.corpus_sha256
    assert deep.train.shape == shallow.train.shape
    assert not torch.equal(deep.train, shallow.train)
    other = make_states(replace(cfg, lm=replace(cfg.lm, site="block_1")))
    assert torch.equal(other.train, shallow.train)


def test_synthetic_states_have_the_spectrum_that_was_asked_for():
    """Relative error of an eigenvalue of N Gaussian states: sqrt(2 / N), 1 %; checked to 5 %."""
    cfg = config(lm={"rows": 25_000, "dim": 6, "spectrum": "geometric:0.5", "mean": 3.0})
    cfg = replace(cfg, model=replace(cfg.model, center="mean"))
    states = make_states(cfg)
    assert (len(states.train), len(states.heldout)) == (20_000, 5_000)
    found = states.spectrum.eigenvalues.numpy()
    assert found == pytest.approx(0.5 ** np.arange(6), rel=0.05)
    assert states.spectrum.mean.norm().item() == pytest.approx(3.0, rel=0.02)
    rotation = states.spectrum.eigenvectors
    assert (rotation.abs().max(0).values < 0.99).all()  # not along the axes


def test_seed_of_the_data_decides_synthetic_states():
    one, two, other = (make_states(config(data={"seed": seed})) for seed in (0, 0, 1))
    assert torch.equal(one.train, two.train)
    assert one.lm_sha256 == two.lm_sha256 != other.lm_sha256
    assert not torch.equal(one.train, other.train)


@pytest.mark.parametrize(("rows", "share", "n"), [(2, 0.01, 1), (2, 0.99, 1), (10, 0.25, 2)])
def test_both_splits_of_synthetic_states_have_one_at_least(rows, share, n):
    states = make_states(config(lm={"rows": rows}, data={"heldout": share}))
    assert (len(states.train), len(states.heldout)) == (rows - n, n)
