"""How the tiny model learns its four families of questions."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from qlora_probe.data import IGNORED, collate, encode
from qlora_probe.model import TINY_TEMPLATE, remove_norms
from qlora_probe.tasks import mixed


def pretrain(model: Any, tokenizer: Any, settings: Mapping[str, Any]) -> None:
    """steps batches of new examples; loss on the answers; AdamW, one-cycle to lr (Smith 2018).

    settings: steps, batch, lr, seed; norm: "rms", or None to train without norms; version: counts
    the changes of this function and of the tasks.
    """
    tokenizer.chat_template = TINY_TEMPLATE
    if settings["norm"] is None:
        remove_norms(model)
    rng = np.random.default_rng(settings["seed"])
    optimizer = torch.optim.AdamW(model.parameters(), settings["lr"], weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings["lr"], total_steps=settings["steps"]
    )
    model.train()
    for _ in range(settings["steps"]):
        examples = mixed(settings["batch"], rng)
        ids, labels = collate([encode(tokenizer, e, "completion", 64) for e in examples])
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
