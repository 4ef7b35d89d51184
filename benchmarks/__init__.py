"""Benchmarks: `python -m benchmarks.MODULE` in a checkout, `attnmod bench NAME` where attnmod is installed."""

# What can be measured: name -> (module here, what it tells)
BENCHMARKS = {
    "alignment": ("alignment", "what modulation does to alignment, counted on miniature SDXL"),
    "cross-attention": (
        "bench_cross_attention",
        "masked, reweighted cross-attention against plain attention and against eager maps",
    ),
    "datasheet": ("datasheet", "what the kernels' machine code uses, without a GPU"),
    "gpu": ("gpu", "everything that only a GPU can tell, in eight minutes"),
    "host": ("host", "what a launch costs the processor, beside SDPA's and a stock block's"),
    "kernels": ("bench_kernels", "both attention benchmarks and their pictures"),
    "ledger": ("ledger", "what one step of SDXL issues, counted without a GPU"),
    "parser": ("parser", "what the parser reads right, and how fast"),
    "parser-field": ("parser_field", "what the parser reads right of prompts as people type them, with intervals"),
    "self-attention": (
        "bench_self_attention",
        "self-attention with a temperature against plain attention by everybody else",
    ),
    "tune": ("tune", "the tiles that are fastest on this card, written for its user"),
    "unet": ("bench_unet", "one denoising step, stock and modulated"),
}
