"""The pages on extending: their files installed as packages, their commands and code run.

Blocks are those of other pages (tests/pages.py). On the page of a family those with a title are
lines of the template's files, word for word.
"""

import math
import re
from collections import defaultdict

import polars as pl
import pytest
from pages import Interpreter, commands_of, fenced, install, paths

from plugins.load import load_sweep, load_table

PAGES = ("metric", "callback", "matrix", "corpus", "family")
TEMPLATE = "examples/family_template"
LLAMA = {  # 7 linear modules in each of 2 blocks, outputs 32 + 16 + 16 + 32 + 48 + 48 + 32 wide
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
SMALL = {  # what makes a page's command small
    "-cn=memdyn_quick": ["model={layers:2,width:8,vocab:257}", "data={n_passages:5,length:20}",
                         "schedule.epochs=[0,4]"],
    "-cn=qlora_minimum": ["model={source:hf,path:../llama}", "lora.r=4", "quant=null", "eval.n=0",
                          "eval.suite=null", "data.n_examples=6"],
    "-cn=compressor": ["lm={source:synthetic,rows:640,dim:16}", "model.d_compressed=4",
                       "eval.downstream=false", "train.max_epochs=1"],
}  # fmt: skip
AT = "import os, sys; os.chdir({folder!r}); sys.path[:0] = {paths}"
REFUSED = """
import runpy, sys
sys.argv = {words}
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert end.code == 2, end.code
else:
    raise AssertionError("it ended well")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("extending")


@pytest.fixture(scope="module")
def llama(folder):
    """Random weights that read bytes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from plugins.lm.tokenizers import raw_bytes
    from qlora_probe.model import TINY_TEMPLATE

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=256, eos_token_id=0, **LLAMA))
    model.save_pretrained(folder / "llama")
    tokenizer = raw_bytes()
    tokenizer.chat_template = TINY_TEMPLATE
    tokenizer.save_pretrained(folder / "llama")


@pytest.fixture(scope="module")
def refused(root, folder, llama):
    """All pages, run in one process: {page: [(command, what it printed, what the page shows)]}."""
    site, found = folder / "site", defaultdict(list)
    site.mkdir()
    for page in PAGES:
        place = folder / page
        files = [b for b in fenced(root, f"docs/extending/{page}.md") if b.file]
        for block in files if page != "family" else ():
            (place / block.file).parent.mkdir(parents=True, exist_ok=True)
            (place / block.file).write_text(block.text)
        place.mkdir(exist_ok=True)
        install(place if page != "family" else root / TEMPLATE, site)
    with Interpreter(root, folder) as interpreter:
        for page in PAGES:
            interpreter.ends_well("code", AT.format(folder=str(folder / page), paths=paths(site)))
            for block in fenced(root, f"docs/extending/{page}.md"):
                if block.language == "python" and not block.file:
                    interpreter.ends_well("code", block.text)
                elif block.language == "bash":
                    for words, status in commands_of(block.text):
                        if not status:
                            words += SMALL.get(words[2], [])
                            interpreter.ends_well("command", words)
                            continue
                        argv = [str(root / "sweep.py"), *words[2:]]
                        printed = interpreter.ends_well("code", REFUSED.format(words=argv))
                elif block.language == "text":
                    found[page].append((words, printed, block.text.strip()))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_what_is_wrong_is_said_as_the_page_says(refused, page):
    assert len(refused[page]) >= 2
    for words, printed, shown in refused[page]:
        for part in shown.split("..."):  # what the page leaves out
            assert part in printed, f"{words}\n{printed}"


@pytest.mark.slow
def test_a_norm_with_another_parameter_is_the_frobenius_norm(refused, folder):
    [row] = load_sweep(folder / "metric/out/p2").iter_rows(named=True)
    assert row["schatten_norm"] == pytest.approx(row["effective_weight_norm"], rel=1e-12)


@pytest.mark.slow
def test_states_drift_from_0(refused, folder):
    layers = load_table(folder / "metric/outputs/memdyn/memdyn_quick", name="layers")
    drift = layers.filter(metric="drift")
    assert drift.filter(epoch=0)["value"].to_list() == [0.0, 0.0]  # one layer, two groups
    assert drift.filter(epoch=4)["value"].min() > 0


@pytest.mark.slow
def test_the_first_update_of_adam_moves_all_of_b_by_the_learning_rate(refused, folder):
    [row] = load_sweep(folder / "metric/outputs/qlora_probe/qlora_minimum").iter_rows(named=True)
    n = 4 * 2 * (32 + 16 + 16 + 32 + 48 + 48 + 32)
    assert row["b_norm"][0] == pytest.approx(2e-4 * math.sqrt(n), rel=1e-3)


@pytest.mark.slow
def test_what_is_explained_is_the_rest_of_the_error_and_below_pca(refused, folder):
    [row] = load_sweep(folder / "metric/outputs/compressor/compressor").iter_rows(named=True)
    for split in ("train", "heldout"):
        rest = 1 - row[f"rel_error_{split}"] ** 2
        assert row[f"explained_{split}"] == pytest.approx(rest, rel=1e-9)
    assert 0 < row["explained_train"] <= 1 - row["rel_pca_train"] ** 2


@pytest.mark.slow
def test_passages_are_windows_of_the_coins(refused, folder):
    passages = load_table(folder / "corpus/outputs/memdyn/memdyn_quick", name="passages")
    assert passages["doc_id"].str.starts_with("coins-").all()
    novel = passages.filter(pl.col("group") == "novel")
    assert novel["nll"].mean() > math.log(2)


def test_the_family_page_quotes_the_template(root):
    """Blocks with a title, and the names of files in the text."""
    quoted = [b for b in fenced(root, "docs/extending/family.md") if b.file]
    assert len(quoted) == 5
    for block in quoted:
        assert block.text in (root / TEMPLATE / block.file).read_text(), block.file
    page = (root / "docs/extending/family.md").read_text()
    for name in re.findall(r"`(noisy_quadratic/[\w/]+\.\w+|\w+\.(?:py|toml|md))`", page):
        assert any((root / TEMPLATE / at / name).is_file() for at in ("", "noisy_quadratic")), name
