"""Models in 4 bits: what is lost and what is kept, and that they can still be trained."""

import pytest
import torch
from bitsandbytes import functional
from bitsandbytes.nn import Linear4bit
from torch.testing import assert_close
from transformers import LlamaConfig, LlamaForCausalLM

from plugins.lm import models
from plugins.lm.models import check_quant, load_lm

# Of Dettmers et al. (2023), appendix E.
NF4 = torch.tensor(
    [
        *(-1, -0.696193, -0.525073, -0.394917, -0.284441, -0.184773, -0.09105, 0),
        *(0.07958, 0.16093, 0.246112, 0.337915, 0.44071, 0.562617, 0.722957, 1),
    ]
)
BLOCK = 64
SIZES = {
    "vocab_size": 50,
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
IDS = torch.arange(40).view(2, 20)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """Folder of a model whose linear layers in the blocks have 128 x 128 weights."""
    folder = tmp_path_factory.mktemp("llama")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(**SIZES)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def normal():
    """[1024, 1024] of N(0, 1)."""
    return torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0))


def quantized(W, quant="nf4", double=False):
    return functional.quantize_4bit(
        W, blocksize=BLOCK, quant_type=quant, compress_statistics=double
    )


def through(W, quant="nf4", double=False):
    return functional.dequantize_4bit(*quantized(W, quant, double))


def nearest(W, codes=NF4):
    """Each block of 64 over its largest |w|, to the nearest code; chosen by plain distances."""
    blocks = W.reshape(-1, BLOCK)
    absmax = blocks.abs().amax(1, keepdim=True)
    at = ((blocks / absmax)[..., None] - codes).abs().argmin(-1)
    return (codes[at] * absmax).view_as(W)


def absmax_of(W):
    return W.reshape(-1, BLOCK).abs().amax(1).repeat_interleave(BLOCK).view_as(W)


def layers(lm):
    return {n: m for n, m in lm.model.named_modules() if isinstance(m, Linear4bit)}


def dequantized(layer):
    return functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)


def original(folder, name):
    return LlamaForCausalLM.from_pretrained(folder).get_parameter(f"{name}.weight").detach()


def bits(weight, state):
    """Per parameter, but for the constants of a whole tensor."""
    kept = [weight, state.absmax, *([state.state2.absmax] if state.nested else [])]
    return 8 * sum(t.nbytes for t in kept) / state.shape.numel()


def test_codes_of_nf4():
    W = torch.cat([NF4, torch.zeros(48)])[None]
    assert_close(through(3 * W), 3 * W, rtol=0, atol=3e-6)
    codes = functional.get_4bit_type("nf4", device="cpu")
    assert_close(codes, NF4, rtol=0, atol=1e-6)


def test_nf4_is_the_nearest_code(normal):
    """But where two codes are equally near, to the rounding of the codes above."""
    wrong = (through(normal) - nearest(normal)).abs() > 1e-5 * absmax_of(normal)
    assert wrong.float().mean() < 1e-5


def test_error_of_nf4_is_at_most_half_its_widest_gap(normal):
    """At -.848, between -1 and -.696: .1519036 of the block's largest. Scales that are quantized
    again, here of one size, add up to a twentieth."""
    assert (NF4.diff().max() / 2).item() == pytest.approx(0.1519036, abs=1e-6)
    W = torch.cat([normal, torch.linspace(-1, 1, 1024 * 64).view(64, 1024)])
    W[-64:, ::BLOCK] = 1
    assert 0.151 < ((through(W) - W).abs() / absmax_of(W)).max() <= 0.1519036
    error = (through(normal, double=True) - normal).abs() / absmax_of(normal)
    assert 0.1519036 < error.max() <= 0.16


@pytest.mark.parametrize(("quant", "relative", "tolerance"), [("nf4", 0.0920, 5e-4),
                                                              ("fp4", 0.122, 1e-3)])  # fmt: skip
def test_error_of_normal_weights(normal, quant, relative, tolerance):
    error = through(normal, quant) - normal
    assert (error.norm() / normal.norm()).item() == pytest.approx(relative, abs=tolerance)
    if quant == "nf4":
        assert error.abs().mean().item() == pytest.approx(0.0728, abs=5e-4)


def test_quantizing_again_changes_nothing(normal):
    once = through(normal)
    assert torch.equal(through(once), once)


@pytest.mark.parametrize(("double", "expected"), [(False, 4.5), (True, 4.127)])
def test_bits_of_a_parameter(normal, double, expected):
    assert bits(*quantized(normal, double=double)) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("quant", ["nf4", "fp4"])
def test_linear_layers_of_the_blocks_come_in_4_bits(llama, quant):
    lm = load_lm("hf", path=str(llama), quant=quant)
    found = layers(lm)
    assert {name.rpartition(".")[2] for name in found} == set(LINEAR)
    assert len(found) == 2 * len(LINEAR)
    assert not lm.model.training
    for kept in (lm.model.get_input_embeddings(), lm.model.get_output_embeddings()):
        assert kept.weight.dtype == torch.float32
    for name, layer in found.items():
        state = layer.weight.quant_state
        assert (state.quant_type, state.blocksize, state.nested) == (quant, BLOCK, True)
        assert not layer.support_avx512bf16_for_cpu  # also where the CPU could not
        assert bits(layer.weight.data, state) == pytest.approx(4.127, abs=5e-4)
        W = original(llama, name)
        assert (dequantized(layer) - W).norm() < 0.13 * W.norm()
        if quant == "nf4":
            assert ((dequantized(layer) - nearest(W)).abs() < 0.01 * absmax_of(W)).all()


def test_computes_with_the_dequantized_weights(llama):
    lm = load_lm("hf", path=str(llama), quant="nf4")
    plain = load_lm("hf", path=str(llama))
    with torch.no_grad():
        for name, layer in layers(lm).items():
            plain.model.get_parameter(f"{name}.weight").copy_(dequantized(layer))
        assert_close(lm.model(IDS).logits, plain.model(IDS).logits, rtol=1e-5, atol=1e-6)


def gradient(lm):
    """Of the embeddings, which every layer passes on; in training mode."""
    lm.model.train()
    weight = lm.model.get_input_embeddings().weight
    weight.grad = None
    lm.model(input_ids=IDS, labels=IDS).loss.backward()
    return weight.grad


def relative_change_by_looking(lm):
    """Of the gradient, by one forward pass in eval mode."""
    before = gradient(lm)
    lm.model.eval()
    with torch.no_grad():
        lm.model(IDS)
    return ((gradient(lm) - before).norm() / before.norm()).item()


def test_gradient_is_right_after_a_look_in_eval_mode(llama):
    assert relative_change_by_looking(load_lm("hf", path=str(llama), quant="nf4")) < 1e-6


@pytest.mark.filterwarnings("ignore:.*an autograd kernel was not registered")
@pytest.mark.skipif(
    not functional.has_avx512bf16(), reason="weights are repacked only on CPUs with AVX512-BF16"
)
def test_gradient_would_be_wrong_without_care(llama, monkeypatch):
    """When this fails, bitsandbytes has mended it, and keep_trainable can go."""
    monkeypatch.setattr(models, "keep_trainable", lambda model: None)
    assert relative_change_by_looking(load_lm("hf", path=str(llama), quant="nf4")) > 0.1


def test_4_bits_without_bitsandbytes_say_what_to_do(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"quant=nf4 needs bitsandbytes: .*or quant=none"):
        check_quant("nf4")
    check_quant(None)
