"""A pipeline whose picture is known before it runs: SDXL's classes, with weights set by formula.

Every patch wants a colour: channels 4 to 6 of the latents hold the wish as RGB. Every colour word of the prompt
offers one. In cross-attention the wish meets the offers: the score of a colour word is

    SHARPNESS * (wish . colour)        for a colour word,        -SILENCE for every other token

and what is read is the colour itself. Stock, a patch shows a mixture: the colours weighted by their softmax.
Modulated, the patch is owned by the entity whose colour it wants most, sees no other colour word, and shows that
colour pure. So the picture is the owner map, and a mistake anywhere between the text and the pixels shows in it.

How a network with norms and SiLUs in it can be made exact: each signal x occupies a group of channels
(x, -x, c, -c, 0 ...) with a large constant c. Mean and variance of the group are then those of the constants, so a
norm only divides by a known number, and silu(x) - silu(-x) = x. Residual branches have weight zero.
"""

import math

import torch
from diffusers import StableDiffusionXLPipeline

from attnmod.sampler.untrained import sdxl_shaped_pipeline

COLOURS = {
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
}
SHARPNESS = 0.5  # stock, a patch between two colours shows the wanted one at 62 %
SILENCE = 30.0
STRENGTH = 0.25  # a colour's value in the latents, so that guidance up to 4 does not clip

_CONSTANT = 256.0
_GROUPS = 16
_VAE_GROUPS = 8
_RGB, _WISH = (0, 1, 2), (3, 4, 5)  # signals in the UNet
_PATCH = 2  # latent pixels in a patch, each way
_HEADS = 2
_LAYERS = 4  # cross-attention layers; each adds its share of the colour


def handwired_pipeline(**scheduler_options) -> StableDiffusionXLPipeline:
    """Latents are 16x16 by default, attention works on 8x8 patches with two heads, the picture is 32x32."""
    pipe = sdxl_shaped_pipeline(
        channels=(64, 128),
        transformer_layers=(1, 1),
        vae_channels=(32, 32),
        latent_channels=8,
        norm_groups=_GROUPS,
        vae_norm_groups=_VAE_GROUPS,
        sample_size=16,
        prediction_type="original_sample",
        **scheduler_options,
    )
    with torch.no_grad():
        _wire_text_encoders(pipe)
        _wire_unet(pipe.unet)
        _wire_vae(pipe.vae)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def wish_latents(wishes: list[list[str]], batch: int = 1) -> torch.Tensor:
    """Latents [batch, 8, 2h, 2w] for a map [h][w] of colour names: what each patch wants."""
    wish = torch.tensor([[COLOURS[name] for name in line] for line in wishes]).permute(2, 0, 1)  # [3, h, w]
    wish = wish.repeat_interleave(_PATCH, dim=1).repeat_interleave(_PATCH, dim=2)
    latents = torch.zeros(batch, 8, *wish.shape[1:])
    latents[:, 4:7] = wish
    return latents


def colour_latents(colours: list[list[str]], guidance: float = 1.0) -> torch.Tensor:
    """The latents' RGB [3, 2h, 2w] of a picture that shows these colours pure, under guidance from zeros."""
    return guidance * STRENGTH * wish_latents(colours)[0, 4:7]


def stock_mixture(wanted: str, offered: list[str]) -> torch.Tensor:
    """RGB that the unmodulated pipeline shows in a patch that wants one colour and is offered several, at one step."""
    colours = torch.tensor([COLOURS[name] for name in offered])
    weights = (SHARPNESS * colours @ torch.tensor(COLOURS[wanted])).softmax(0)
    return STRENGTH * weights @ colours


# -- the wiring


def _channel(channels: int, groups: int, signal: int, slot: int) -> int:
    return signal * (channels // groups) + slot


def _zero(*modules: torch.nn.Module) -> None:
    for module in modules:
        for parameter in module.parameters():
            parameter.zero_()


def _tap(layer: torch.nn.Module, row: int, column: int, value: float) -> None:
    """Set one entry of a linear layer, or of the middle of a convolution."""
    middle = () if layer.weight.ndim == 2 else (layer.weight.shape[2] // 2, layer.weight.shape[3] // 2)
    layer.weight[(row, column, *middle)] = value


def _pass_on(layer: torch.nn.Module, inputs: int, outputs: int, groups: int, signals, slots=range(4)) -> None:
    """Let a layer hand these signals on, from a layout of so many channels to another; all else is zero."""
    _zero(layer)
    for signal in signals:
        for slot in slots:
            _tap(layer, _channel(outputs, groups, signal, slot), _channel(inputs, groups, signal, slot), 1.0)


def _keep_scale(norm: torch.nn.Module, constants: int, normed: int) -> None:
    """Undo what a norm divides by, where `constants` of its `normed` channels are +-c and the rest are small."""
    norm.weight.fill_(_CONSTANT * math.sqrt(constants / normed))
    norm.bias.zero_()


def _wire_text_encoders(pipe: StableDiffusionXLPipeline) -> None:
    """The first encoder says what a token offers and how loud, the second which colour is read."""
    for encoder in (pipe.text_encoder, pipe.text_encoder_2):
        model = getattr(encoder, "text_model", encoder)
        for layer in model.encoder.layers:
            _zero(layer.self_attn.out_proj, layer.mlp.fc2)  # hidden states are the embeddings
        _zero(model.embeddings)
    offers = _token_embedding(pipe.text_encoder)
    colours = _token_embedding(pipe.text_encoder_2)
    offers[:, 3] = -1.0
    for name, colour in COLOURS.items():
        token = pipe.tokenizer(name).input_ids[1]
        offers[token, :3] = torch.tensor(colour)
        offers[token, 3] = 0.0
        colours[token, :3] = torch.tensor(colour)


def _token_embedding(encoder: torch.nn.Module) -> torch.Tensor:
    return getattr(encoder, "text_model", encoder).embeddings.token_embedding.weight


def _wire_unet(unet: torch.nn.Module) -> None:
    signals = (*_RGB, *_WISH)
    for module in unet.modules():
        if type(module).__name__ == "ResnetBlock2D":
            _zero(module.conv2)
            if module.conv_shortcut is not None:
                _pass_on(module.conv_shortcut, _width(module.in_channels), module.out_channels, _GROUPS, signals)
        elif type(module).__name__ in ("Downsample2D", "Upsample2D"):
            _pass_on(module.conv, module.channels, module.out_channels, _GROUPS, signals)
        elif type(module).__name__ == "Transformer2DModel":
            _wire_transformer(module, module.in_channels)

    _zero(unet.conv_in)
    for signal, latent in zip(_WISH, (4, 5, 6), strict=True):
        _tap(unet.conv_in, _channel(64, _GROUPS, signal, 0), latent, 1.0)
        _tap(unet.conv_in, _channel(64, _GROUPS, signal, 1), latent, -1.0)
    for signal in signals:
        unet.conv_in.bias[_channel(64, _GROUPS, signal, 2)] = _CONSTANT
        unet.conv_in.bias[_channel(64, _GROUPS, signal, 3)] = -_CONSTANT
    _zero(unet.conv_out)
    _keep_scale(unet.conv_norm_out, constants=2, normed=64 // _GROUPS)
    for latent, signal in (*zip((0, 1, 2), _RGB, strict=True), *zip((4, 5, 6), _WISH, strict=True)):
        _tap(unet.conv_out, latent, _channel(64, _GROUPS, signal, 0), 1.0)
        _tap(unet.conv_out, latent, _channel(64, _GROUPS, signal, 1), -1.0)


def _width(concatenated: int) -> int:
    """Channels of the hidden states in the input of an up block's resnet, which the skip connection follows."""
    return {256: 128, 192: 128}.get(concatenated, 64)


def _wire_transformer(transformer: torch.nn.Module, channels: int) -> None:
    block = transformer.transformer_blocks[0]
    _keep_scale(transformer.norm, constants=2, normed=channels // _GROUPS)
    # The colours so far stay on the residual path: inside the block there are only wishes.
    _pass_on(transformer.proj_in, channels, channels, _GROUPS, _WISH)
    _zero(block.attn1.to_out[0], block.ff)
    _keep_scale(block.norm2, constants=2 * len(_WISH), normed=channels)

    attn = block.attn2
    _zero(attn.to_q, attn.to_k, attn.to_v, attn.to_out[0], transformer.proj_out)
    head_dim = channels // _HEADS
    unit = math.sqrt(head_dim)  # attention divides by it
    for head in range(_HEADS):
        first = head * head_dim
        for i in range(3):
            _tap(attn.to_q, first + i, _channel(channels, _GROUPS, _WISH[i], 0), unit * SHARPNESS)
            _tap(attn.to_k, first + i, i, 1.0)
            _tap(attn.to_v, first + i, 64 + i, STRENGTH / (_HEADS * _LAYERS))
            _tap(attn.to_out[0], _channel(channels, _GROUPS, _RGB[i], 0), first + i, 1.0)
            _tap(attn.to_out[0], _channel(channels, _GROUPS, _RGB[i], 1), first + i, -1.0)
        _tap(attn.to_q, first + 3, _channel(channels, _GROUPS, _WISH[0], 2), unit * SILENCE / _CONSTANT)
        _tap(attn.to_k, first + 3, 3, 1.0)
    for signal in _RGB:
        for slot in range(2):
            channel = _channel(channels, _GROUPS, signal, slot)
            _tap(transformer.proj_out, channel, channel, 1.0)


def _wire_vae(vae: torch.nn.Module) -> None:
    decoder, width = vae.decoder, 32
    for module in decoder.modules():
        if type(module).__name__ == "ResnetBlock2D":
            _zero(module.conv2)
        elif type(module).__name__ == "Upsample2D":
            _pass_on(module.conv, width, width, _VAE_GROUPS, _RGB)
    _zero(vae.post_quant_conv, decoder.conv_in, decoder.conv_out)
    _keep_scale(decoder.conv_norm_out, constants=2, normed=width // _VAE_GROUPS)
    for i in range(3):
        _tap(vae.post_quant_conv, i, i, vae.config.scaling_factor)  # the pipeline has divided by it
        _tap(decoder.conv_in, _channel(width, _VAE_GROUPS, i, 0), i, 1.0)
        _tap(decoder.conv_in, _channel(width, _VAE_GROUPS, i, 1), i, -1.0)
        decoder.conv_in.bias[_channel(width, _VAE_GROUPS, i, 2)] = _CONSTANT
        decoder.conv_in.bias[_channel(width, _VAE_GROUPS, i, 3)] = -_CONSTANT
        _tap(decoder.conv_out, i, _channel(width, _VAE_GROUPS, i, 0), 1.0)
        _tap(decoder.conv_out, i, _channel(width, _VAE_GROUPS, i, 1), -1.0)
