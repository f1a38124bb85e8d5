"""Language models and texts that several families share: sources, tokenizers, corpora, a cache.

torch and transformers are imported inside the functions that need them.
"""
