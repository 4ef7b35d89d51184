"""No black images: whatever the settings, the weights, the masks and the numbers, attention stays finite.

Two layers of a UNet are wired so that queries, keys and values are the numbers drawn, and are then driven as the UNet
drives them. What diffusers' own processor makes finite, ours have to make finite.

Left out, because there an infinite answer is the right one: `renormalize=False` with weights above 3, which multiply
the output, on numbers above 1000; and numbers above 1e9 in bfloat16 and float32, whose scores exceed float32. Backend
"eager" is tried in float32 alone: it computes scores in the dtype of the model, and float16 cannot hold all of them.
"""

import os

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from hypothesis import given, settings
from hypothesis import strategies as st

from attnmod import Curve, ModulationConfig, Prompt, Token, modulate, self_attention
from attnmod.sampler.layers import find_layers
from tests.sampler.test_failures import Bare

EXAMPLES = int(os.environ.get("ATTNMOD_FUZZ", "250")) // 5  # the nightly run sets 5000
WIDTH, TOKENS, SIDE = 32, 7, 4


@pytest.fixture(scope="module")
def pipe():
    unet = UNet2DConditionModel(
        block_out_channels=(WIDTH, WIDTH),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=2,
        cross_attention_dim=WIDTH,
        norm_num_groups=8,
    )
    with torch.no_grad():
        for layers in find_layers(unet).values():
            for layer in layers.values():
                for part in (layer.to_q, layer.to_k, layer.to_v, layer.to_out[0]):
                    part.weight.copy_(torch.eye(WIDTH))
                layer.to_out[0].bias.zero_()
    return Bare(unet)


SCALES = st.sampled_from([0.0, 1e-7, 1e-3, 1.0, 30.0, 1e3, 6e4])
WEIGHTS = st.sampled_from([0.0, 1e-30, 1e-6, 0.5, 1.0, 3.0, 1e6, 1e30])
MODEST = st.sampled_from([0.0, 1e-6, 0.5, 1.0, 3.0])
TEMPERATURES = st.sampled_from([1e-30, 1e-6, 1e-3, 0.1, 0.8, 1.0, 5.0, 1e6, 1e30])
SPECIAL = st.sampled_from(["plain", "global", "absent"])


@st.composite
def curves(draw, values):
    start, end = draw(values), draw(values)
    return Curve(draw(st.sampled_from(["linear", "cosine", "sigmoid"])), start, end)


CHOICES = dict(
    temperature=curves(TEMPERATURES),
    temperature_rows=st.sampled_from(["conditional", "all"]),
    hidden_weight=curves(st.sampled_from([0.0, 1e-30, 0.5, 1.0])),
    vote=st.sampled_from(["sum", "mean", "head"]),
    balanced=st.booleans(),
    share_heads=st.booleans(),
    unowned_background=st.booleans(),
    bos=SPECIAL,
    eos=SPECIAL,
    padding=SPECIAL,
    backend=st.sampled_from(["auto", "sdpa", "eager"]),
)
# Only an averaged map leaves patches to nobody: to none of them, to all, and between.
OWNERSHIPS = (
    dict(ownership=st.just("layer")),
    dict(ownership=st.just("average"), owned_above=st.sampled_from([0.0, 1e-30, 0.5, 1.0, 3.0, 1e30])),
)
CONFIGS = st.one_of(
    st.builds(
        ModulationConfig,
        **CHOICES,
        **ownership,
        global_weight=curves(weights),
        detail_weight=curves(weights),
        equalize_entities=st.sampled_from(equalized),
        renormalize=st.just(renormalize),
    )
    for weights, equalized, renormalize in ((WEIGHTS, [0.0, 0.5, 1.0], True), (MODEST, [0.0], False))
    for ownership in OWNERSHIPS
)


@st.composite
def prompts(draw, weights):
    """Two nested and one single entity; each token belongs to some of them or to none, with any weight."""
    prompt = Prompt.from_entities("a cat with a hat and a dog", [["a cat with a hat"], ["a hat"], ["a dog"]])
    kinds = ["bos", *["word"] * (TOKENS - 3), "eos", "pad"]
    tokens = []
    for n, kind in enumerate(kinds):
        entities = draw(st.sampled_from([(), (0,), (0, 1), (2,)])) if kind == "word" else ()
        kind = ("entity" if entities else "global") if kind == "word" else kind
        tokens.append(Token(n, "x", kind, entities, draw(weights)))
    return prompt.with_tokens(tokens)


@st.composite
def numbers(draw, shape, dtype):
    """Random numbers of some magnitude, with a few at the very edge: of float16, or 1e9."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    values = torch.randn(shape, generator=generator) * draw(SCALES)
    most = min(torch.finfo(dtype).max, 1e9)
    if draw(st.booleans()):
        values.view(-1)[:: draw(st.integers(3, 50))] = draw(st.sampled_from([-1.0, 1.0])) * most
    return values.clamp(-most, most).to(dtype)


def stock_of(attention, attend):
    """Whether stock diffusers gives finite (self-, cross-) attention."""
    layers = attention["self"][0], attention["cross"][0]
    own = [layer.processor for layer in layers]
    for layer in layers:
        layer.set_processor(AttnProcessor2_0())
    finite = [part.isfinite().all() for part in attend()]
    for layer, processor in zip(layers, own, strict=True):
        layer.set_processor(processor)
    return finite


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.data())
@torch.no_grad()
def test_attention_stays_finite(pipe, data):
    config = data.draw(CONFIGS, "config")
    dtypes = [torch.float32] if config.backend == "eager" else [torch.float16, torch.bfloat16, torch.float32]
    dtype = data.draw(st.sampled_from(dtypes), "dtype")
    weights = WEIGHTS if config.renormalize else MODEST
    prompt = data.draw(prompts(weights), "prompt")
    text = data.draw(numbers((1, TOKENS, WIDTH), dtype), "text")
    text[0, 0, 0] = 1.0
    text = torch.cat([torch.zeros_like(text), -text, text])  # an empty negative prompt, another one, a prompt
    if not config.renormalize:
        text = text.clamp(-1e3, 1e3)
    patches = data.draw(numbers((3, SIDE * SIDE, WIDTH), dtype), "patches")
    masks = data.draw(st.sampled_from([None, [1.0, 1.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]), "masks")
    attention = {kind: list(layers.values()) for kind, layers in find_layers(pipe.unet).items()}
    for layer in (*attention["self"], *attention["cross"]):
        layer.to(dtype)

    def attend():
        return attention["self"][0](patches), attention["cross"][0](patches, encoder_hidden_states=text)

    stock = stock_of(attention, attend)
    with modulate(pipe, config, maps=True) as handle:
        if masks is not None:
            handle.set_prompt(prompt, masks=[torch.full((1, 1), inside) for inside in masks])
        handle._known.book.remember(text[1], None)
        handle._known.book.remember(text[2], prompt)
        for timestep in data.draw(st.lists(st.sampled_from([1000, 999, 500, 1, 0, -5, 2000]), min_size=1, max_size=3)):
            handle._before_unet(pipe.unet, (torch.zeros(3, 4, 2 * SIDE, 2 * SIDE), timestep, text), {})
            modulated = attend()
            handle._state.end_call()
            for name, out, fine in zip(("self", "cross"), modulated, stock, strict=True):
                assert out.isfinite().all() or not fine, name


def test_a_small_temperature_does_not_take_float16_beyond_its_range():
    q = torch.full((1, 1, 3, 8), 6e4, dtype=torch.float16)
    for temperature in (0.5, 1e-3, 1e-6):
        assert self_attention(q, q, q, temperature=temperature, backend="sdpa").isfinite().all()
