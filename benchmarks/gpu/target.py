"""A few launches and nothing else, for a program that watches them: `python -m attnmod.benchmarks.gpu.target small`.

Inputs are made on the CPU and copied, results are looked at there: no kernel but ours is ever loaded.
"""

import sys

import torch

from attnmod.benchmarks.gpu.right import inputs
from attnmod.benchmarks.launches import Case
from attnmod.kernels.cross_attention import launch_cross_attention
from attnmod.kernels.self_attention import launch_self_attention

_F16 = torch.float16
# Odd sizes, which need every mask; the last passes in groups, for heads that vote together.
SMALL = [
    Case("self", "temperature", _F16, 2, 100, 333, 64),
    Case("cross", "owner", _F16, 2, 100, 77, 64),
    Case("cross", "vote", _F16, 2, 100, 77, 64),
    Case("cross", "shared", _F16, 2, 100, 231, 64),
]
# What a UNet of SDXL launches most; each once to compile it and once to be watched.
LARGE = [
    Case("self", "temperature", _F16, 10, 4096, 4096, 64),
    Case("cross", "owner", _F16, 10, 4096, 77, 64),
]


def launch(case: Case, device: torch.device) -> list[torch.Tensor]:
    """The outputs, full of NaN before."""
    q, k, v, options = inputs(case, torch.device("cpu"), seed=0)
    out = torch.full((case.batch, case.queries, case.heads, case.head_dim), torch.nan, dtype=case.dtype)
    outputs = [out.to(device).transpose(1, 2)]
    q, k, v = (x.to(device) for x in (q, k, v))
    options = {name: x.to(device) if isinstance(x, torch.Tensor) else x for name, x in options.items()}
    scale = case.head_dim**-0.5
    if case.op == "self":
        launch_self_attention(q=q, k=k, v=v, temperature=options.get("temperature"), scale=scale, out=outputs[0])
        return outputs
    shared = case.feature == "shared"
    if case.feature not in ("plain", "owner"):
        owners = (case.batch, case.queries) if shared else (case.batch, case.heads, case.queries)
        outputs.append(torch.full(owners, 127, dtype=torch.int8).to(device))
    if shared:
        affinity = options["affinity"]
        outputs.append(torch.full((case.batch, case.queries, affinity.shape[2]), torch.nan).to(device))
    left_out = dict.fromkeys(("entity_bits", "affinity", "log_weights", "hidden_weight", "owner"))
    given = {**left_out, "share_heads": False, **options}
    launch_cross_attention(
        q=q, k=k, v=v, **given, renormalize=True, scale=scale, out=outputs[0],
        owner_out=outputs[1] if len(outputs) > 1 else None, affinity_out=outputs[2] if shared else None,
    )  # fmt: skip
    return outputs


def main(which: str) -> int:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for case in SMALL if which == "small" else LARGE + LARGE:
        outputs = [output.cpu() for output in launch(case, device)]
        for output in outputs:
            assert not output.isnan().any() if output.is_floating_point() else (output < 127).all(), case.name
        print(f"launched: {case.name}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
