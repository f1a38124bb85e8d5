"""Where a language model computes."""

from typing import Any


def resolve_device(device: str) -> Any:
    """A torch.device; `auto` is cuda when present, else cpu."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)
