"""Byte-level tokenizers of tiny models: plain bytes, or BPE fitted on a corpus."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plugins.lm.cache import cached
from plugins.lm.corpora import Document

_END = "<|endoftext|>"
END_ID = 0


def byte_bpe(documents: Sequence[Document], vocab: int) -> Any:
    """A byte-level BPE tokenizer of `vocab` tokens (257 or more) fitted on the documents.

    257 are the bytes and the end of text, which also pads; the rest are merges.
    """

    def fit(folder: Path) -> None:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab,
            special_tokens=[_END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator((document.text for document in documents), trainer)
        tokenizer.save(str(folder / "tokenizer.json"))

    from transformers import PreTrainedTokenizerFast

    folder = cached("tokenizers", {"bpe": vocab, "documents": digest(documents)}, fit)
    file = str(folder / "tokenizer.json")
    return PreTrainedTokenizerFast(tokenizer_file=file, eos_token=_END, pad_token=_END)


def raw_bytes() -> Any:
    """A tokenizer of 256 tokens, the bytes; byte 0 is the end of text, which also pads."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = bytes_to_unicode()  # of ByteLevel
    vocab = {letters[byte]: byte for byte in range(256)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = letters[END_ID]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, pad_token=end)


def digest(documents: Sequence[Document]) -> str:
    """sha256 of ids and texts."""
    found = hashlib.sha256()
    for document in documents:
        for text in (document.doc_id, document.text):
            found.update(f"{len(text)}:{text}".encode())
    return found.hexdigest()
