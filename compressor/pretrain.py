"""How the tiny language model learns the default text."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from plugins.lm.corpora import load_corpus
from plugins.lm.windows import windows


def pretrain(model: Any, tokenizer: Any, settings: Mapping[str, Any]) -> None:
    """steps batches of windows of the text; AdamW, one-cycle to lr (Smith 2018).

    settings: steps, batch, length (tokens), lr, seed; version: counts the changes of this function
    and of the text.
    """
    ids, _ = windows(load_corpus("state_of_the_union"), tokenizer, settings["length"])
    ids, rng = torch.from_numpy(ids), np.random.default_rng(settings["seed"])
    optimizer = torch.optim.AdamW(model.parameters(), settings["lr"], weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings["lr"], total_steps=settings["steps"]
    )
    model.train()
    for _ in range(settings["steps"]):
        batch = ids[rng.integers(len(ids), size=settings["batch"])]
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
