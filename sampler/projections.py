"""Keys and values of the text, projected once per run instead of at every step.

They depend on the prompt alone. For SDXL a step saves 140 small matrix products and 682 MB of weight reads.
Nothing is kept from one run to the next, so weights that change between runs (another LoRA, another scale) are
never read from a stale copy.
"""

from typing import Any

import torch

# an attention layer and the processor that reads its keys and values; the processor and these
TextLayers = list[tuple[Any, Any]]
Projections = dict[Any, tuple[torch.Tensor, torch.Tensor]]


@torch.no_grad()
def project_text(
    unet: torch.nn.Module,
    layers: TextLayers,
    embeddings: torch.Tensor,
    lora_scale: float,
    into: Projections,
) -> None:
    """Project text embeddings [R, T, C] to the keys and values of every layer, [R, H, T, D] as views of [R, T, H*D].

    By the layers' own modules, so that adapters, offloading and quantisation take part, and under the LoRA scale that
    the UNet itself is about to apply.

    Args:
        unet: the UNet that is about to run.
        layers: attention layers with our processors.
        embeddings: the conditioning of this call.
        lora_scale: of this call's cross_attention_kwargs, 1 where it has none.
        into: where to keep them; tensors that are there already are overwritten in place.
    """
    # A model whose weights wait on the CPU is brought in by its own hook; the UNet's forward then finds it there.
    if (offload := getattr(unet, "_hf_hook", None)) is not None:
        offload.pre_forward(unet)
    with _lora_scaled(unet, lora_scale):
        for attn, processor in layers:
            text = attn.norm_encoder_hidden_states(embeddings) if attn.norm_cross else embeddings
            if attn.fused_projections:
                key, value = attn.to_kv(text).chunk(2, dim=-1)
            else:
                key, value = attn.to_k(text), attn.to_v(text)
            key, value = (part.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for part in (key, value))
            kept = into.get(processor)
            if kept is not None and (kept[0].shape, kept[0].dtype, kept[0].device) == (
                key.shape,
                key.dtype,
                key.device,
            ):
                kept[0].copy_(key)
                kept[1].copy_(value)
            else:
                # each densely, in the order of a projection: fused ones lie beside each other
                into[processor] = tuple(part.transpose(1, 2).contiguous().transpose(1, 2) for part in (key, value))


class _lora_scaled:
    """What `UNet2DConditionModel.forward` does around itself with cross_attention_kwargs={"scale": ...}."""

    def __init__(self, unet: torch.nn.Module, scale: float):
        self.unet, self.scale = unet, scale
        self.has_lora = scale != 1.0 and any(hasattr(module, "lora_A") for module in unet.modules())

    def __enter__(self) -> None:
        if self.has_lora:
            from diffusers.utils.peft_utils import scale_lora_layers

            scale_lora_layers(self.unet, weight=self.scale)

    def __exit__(self, *exception) -> None:
        if self.has_lora:
            from diffusers.utils.peft_utils import unscale_lora_layers

            unscale_lora_layers(self.unet, weight=self.scale)
