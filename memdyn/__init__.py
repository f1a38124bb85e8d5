"""Memorization while a language model is fine-tuned. Importing this loads no torch."""

from memdyn import config as config
