"""The tokenizers that alignment is tested with: SDXL's two, and one without offsets."""

from functools import lru_cache
from pathlib import Path

from attnmod.parser.align import load_tokenizer

CLIP_BPE = Path(__file__).parents[2] / "sampler" / "data" / "clip_bpe"


@lru_cache(maxsize=1)
def first():
    """SDXL's `tokenizer`: pads with eos."""
    return load_tokenizer(CLIP_BPE)


@lru_cache(maxsize=1)
def second():
    """SDXL's `tokenizer_2`: the same vocabulary, pads with "!"."""
    tokenizer = load_tokenizer(CLIP_BPE)
    tokenizer.pad_token = "!"
    return tokenizer


class Slow:
    """The first tokenizer as transformers 4 had it: no offsets to be had."""

    is_fast = False
    model_max_length = 77
    bos_token, eos_token, pad_token = "<|startoftext|>", "<|endoftext|>", "<|endoftext|>"
    bos_token_id, eos_token_id = 49406, 49407

    def __call__(self, text, return_offsets_mapping=False, add_special_tokens=True, verbose=True):
        if return_offsets_mapping:
            raise NotImplementedError("return_offset_mapping is not available when using Python tokenizers")
        return {"input_ids": first()(text, add_special_tokens=add_special_tokens, verbose=False)["input_ids"]}
