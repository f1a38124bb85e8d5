"""What the language model loses, against its own forward pass on one sequence at a time."""

import numpy as np
import pytest
import torch
from compressor_cases import on_model, run

from compressor import extract
from compressor.downstream import columns, downstream, random_projector
from compressor.model import Compressor
from compressor.states import load_model, make_states


def slow(lm, module, ids, keep, change):
    """Sums of nll, kl and agreements, and their number; `module` puts out what is replaced."""
    sums, n = np.zeros(3), 0
    for row, kept in zip(ids, keep, strict=True):

        def hook(_module, _inputs, output, kept=kept):
            states = (output[0] if isinstance(output, tuple) else output).clone()
            for t in np.flatnonzero(kept):
                states[0, t] = change(states[0, t])
            return (states, *output[1:]) if isinstance(output, tuple) else states

        tokens = torch.from_numpy(row)[None]
        with torch.no_grad():
            base = lm.model(tokens).logits[0].log_softmax(-1)
            handle = module.register_forward_hook(hook)
            changed = lm.model(tokens).logits[0].log_softmax(-1)
            handle.remove()
        for t in np.flatnonzero(kept[:-1]):
            p, q = base[t], changed[t]
            sums += [-q[row[t + 1]], (p.exp() * (p - q)).sum(), p.argmax() == q.argmax()]
            n += 1
    return dict(zip(("nll", "kl", "top1_agree"), sums / n, strict=True))


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def model(request):
    return request.getfixturevalue(request.param)


def place(lm, site):
    if site == "post_norm":
        return (
            lm.model.transformer.ln_f if hasattr(lm.model, "transformer") else lm.model.model.norm
        )
    return lm.blocks[-1] if site == "pre_norm" else lm.blocks[int(site[-1]) - 1]


@pytest.mark.parametrize("site", ["post_norm", "pre_norm", "block_1"])
@pytest.mark.parametrize("tokens", [4096, 30], ids=["batched", "one by one"])
def test_costs_are_those_of_a_forward_pass_with_the_states_replaced(
    model, site, tokens, monkeypatch
):
    monkeypatch.setattr(extract, "BATCH_TOKENS", tokens)
    cfg = on_model(model, lm={"site": site}, data={"skip_first": 2, "corpus": "column_arithmetic"})
    states, lm = make_states(cfg), load_model(cfg)
    n = states.sequences.n_train
    ids = [row[: 24 - i] for i, row in enumerate(states.sequences.ids[n:])]  # of many lengths
    keep = [row[: 24 - i].copy() for i, row in enumerate(states.sequences.keep[n:])]
    keep[0][5:9] = False
    mu = torch.linspace(-1, 1, 16)
    changes = {
        "pca": Compressor(states.spectrum.leading(4).float(), mu),
        "rolled": lambda x: x.roll(1, -1),
    }
    found = downstream(lm, site, ids, keep, changes)
    for name, change in changes.items():
        expected = slow(lm, place(lm, site), ids, keep, change)
        assert found[name] == pytest.approx(expected, rel=1e-4, abs=1e-6)
        assert found[name]["kl"] > 1e-3
    base = slow(lm, place(lm, site), ids, keep, lambda x: x)
    assert found["base"] == pytest.approx(base, rel=1e-5, abs=1e-6)
    assert found["base"]["kl"] == 0
    assert found["base"]["top1_agree"] == 1


@pytest.mark.parametrize("site", ["post_norm", "block_1"])
@pytest.mark.parametrize("center", [None, "mean"])
def test_pca_of_all_dimensions_costs_nothing(gpt2, tmp_path, site, center):
    model = {"d_compressed": 16, "center": center, "init": "pca"}
    cfg = on_model(gpt2, lm={"site": site}, model=model, eval={"downstream": True})
    [result] = run(cfg, tmp_path)
    row = result.scalars
    for name in ("pca", "random"):  # which is all of the space, too
        assert row[f"delta_nll_{name}"] == pytest.approx(0, abs=1e-4)
        assert row[f"kl_{name}"] == pytest.approx(0, abs=1e-4)
        assert row[f"top1_agree_{name}"] > 0.99


def test_row_has_the_costs_of_the_best_checkpoint(gpt2, tmp_path):
    cfg = on_model(gpt2, model={"d_compressed": 8}, eval={"downstream": True})
    [result] = run(cfg, tmp_path)
    row = result.scalars
    states, lm = make_states(cfg), load_model(cfg)
    n = states.sequences.n_train
    W = torch.load(result.artifacts[0], weights_only=True)["W"]
    changes = {
        "rec": Compressor(W, torch.zeros(16)),
        "pca": Compressor(states.spectrum.leading(8).float(), torch.zeros(16)),
    }
    ids, keep = states.sequences.ids[n:], states.sequences.keep[n:]
    found = downstream(lm, "post_norm", ids, keep, changes)
    assert row["nll_rec"] == pytest.approx(found["rec"]["nll"], rel=1e-6)
    assert row["kl_pca"] == pytest.approx(found["pca"]["kl"], rel=1e-6)
    assert row["delta_nll"] == pytest.approx(row["nll_rec"] - row["nll_base"])
    assert row["kl_random"] > row["kl_pca"] > 0
    assert row["top1_agree_random"] < row["top1_agree_pca"]


def test_columns_name_what_was_put_in_place():
    values = {"nll": 2.0, "kl": 0.5, "top1_agree": 0.9}
    base = {"nll": 1.5, "kl": 0.0, "top1_agree": 1.0}
    row = columns(base, values, values, values)
    assert row["nll_base"] == 1.5
    for end in ("", "_pca", "_random"):
        assert (row[f"delta_nll{end}"], row[f"kl{end}"], row[f"top1_agree{end}"]) == (0.5, 0.5, 0.9)
    assert [row[name] for name in ("nll_rec", "nll_pca", "nll_random")] == [2.0] * 3
    assert len(row) == 13


def test_random_projector_is_orthonormal_and_its_own_by_seed():
    one, two, other = (random_projector(3, torch.zeros(8), seed).W for seed in (0, 0, 1))
    torch.testing.assert_close(one @ one.T, torch.eye(3))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_head_that_is_followed_by_something_is_refused(gpt2):
    cfg = on_model(gpt2)
    states, lm = make_states(cfg), load_model(cfg)
    forward = lm.model.forward

    def capped(*args, **kwargs):
        out = forward(*args, **kwargs)
        out.logits = out.logits.tanh()
        return out

    lm.model.forward = capped
    with pytest.raises(ValueError, match=r"lm\.site=post_norm: .* changes the logits after"):
        downstream(lm, "post_norm", states.sequences.ids, states.sequences.keep, {})
