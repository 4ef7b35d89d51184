"""torch.compile: no more graphs than the stock UNet driven the same way.

Counted with a backend that compiles nothing, so that only tracing is timed and counted.
"""

import pytest
import torch

from attnmod import ModulationConfig, modulate
from attnmod.kernels import sdpa
from attnmod.sampler.untrained import sdxl_shaped_pipeline

PROMPTS = ("a red cube and a blue sphere", "a cat", "a red cube, a blue sphere, a green cone and two dogs")


class Counter:
    """A backend for torch.compile that counts the graphs it is given and runs them as they are."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, module, inputs):
        self.graphs += 1
        return module.forward

    def during(self, run) -> int:
        before = self.graphs
        run()
        return self.graphs - before


@pytest.fixture
def pipe():
    torch._dynamo.reset()
    pipe = sdxl_shaped_pipeline(channels=(64, 64), transformer_layers=(1, 2), vae_channels=(32, 32), sample_size=8)
    pipe.set_progress_bar_config(disable=True)
    yield pipe
    torch._dynamo.reset()


def compile_blocks(pipe, counter):
    pipe.unet.compile_repeated_blocks(backend=counter, fullgraph=True)


def compile_method(pipe, counter):
    pipe.unet.compile(backend=counter, fullgraph=True)


def compile_wrapper(pipe, counter):
    pipe.unet = torch.compile(pipe.unet, backend=counter, fullgraph=True)


def images(pipe, prompt, **call):
    call = {"num_inference_steps": 3, "generator": torch.Generator().manual_seed(0), "output_type": "latent", **call}
    return pipe(prompt, **call).images


def graphs_of(pipe, counter) -> list[int]:
    """New graphs for: three prompts of 2, 1 and 5 entities, more steps, guidance off, another size."""
    runs = [dict(prompt=prompt) for prompt in PROMPTS]
    runs += [dict(prompt="a cat", num_inference_steps=5), dict(prompt="a cat", guidance_scale=1.0)]
    runs += [dict(prompt="a cat", width=32, height=48)]
    return [counter.during(lambda run=run: images(pipe, **run)) for run in runs]


@pytest.mark.parametrize("attach_first", [True, False], ids=["attach-compile", "compile-attach"])
def test_blocks(pipe, attach_first):
    stock = Counter()
    compile_blocks(pipe, stock)
    expected = graphs_of(pipe, stock)
    assert expected == [1, 0, 0, 0, 1, 1]

    torch._dynamo.reset()
    counter = Counter()
    for block in pipe.unet.modules():
        block._compiled_call_impl = None
    if not attach_first:
        compile_blocks(pipe, counter)
    with modulate(pipe, maps=True) as handle:
        if attach_first:
            compile_blocks(pipe, counter)
        assert graphs_of(pipe, counter) == expected
        assert counter.during(lambda: handle.update(ModulationConfig(temperature=0.5, hidden_weight=0.2))) == 0
        assert counter.during(lambda: images(pipe, PROMPTS[0])) == 0, "other curves need no other graph"


@pytest.mark.parametrize("compile_unet", [compile_method, compile_wrapper])
def test_the_whole_unet(pipe, compile_unet):
    eager_stock = images(pipe, PROMPTS[0])
    with modulate(pipe):
        eager = images(pipe, PROMPTS[0])
    counter = Counter()
    compile_unet(pipe, counter)
    with modulate(pipe):
        assert counter.during(lambda: images(pipe, PROMPTS[0])) == 1
        assert counter.during(lambda: images(pipe, PROMPTS[2], num_inference_steps=4)) == 0
        assert torch.allclose(images(pipe, PROMPTS[0]), eager, atol=1e-5)
        assert counter.during(lambda: images(pipe, "")) <= 1, "neutral may cost one more"
    assert torch.allclose(images(pipe, PROMPTS[0]), eager_stock, atol=1e-5)


def test_a_function_around_the_unet_is_refused_with_a_message(pipe):
    """The hook cannot be traced, so a fullgraph function around it cannot be either."""
    step = torch.compile(lambda *args, **kwargs: pipe.unet(*args, **kwargs), backend=Counter(), fullgraph=True)
    with modulate(pipe), torch.no_grad():
        embeddings, _, pooled, _ = pipe.encode_prompt(PROMPTS[0])
        conditions = {"text_embeds": pooled, "time_ids": torch.zeros(1, 6)}
        with pytest.raises(Exception, match="compile the UNet itself"):
            step(torch.randn(1, 4, 8, 8), torch.tensor(500.0), embeddings, added_cond_kwargs=conditions)


def test_no_look_at_a_tensor_inside_the_loop(pipe, monkeypatch):
    """Each item(), tolist() or bool() would make the host wait for a GPU. One look per run is allowed."""
    looks = []
    for name in ("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__"):
        original = getattr(torch.Tensor, name)

        def look(tensor, *args, name=name, original=original, **kwargs):
            looks.append(name)
            return original(tensor, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, look)

    # On a CPU, and nowhere else, the op looks at its rows.
    monkeypatch.setattr(sdpa, "_rows_by_kind", lambda k, *_: [("masked", slice(0, k.shape[0]))])
    with modulate(pipe, maps=True) as handle, torch.no_grad():
        embeddings, _, pooled, _ = pipe.encode_prompt(PROMPTS[0])
        conditions = {"text_embeds": pooled, "time_ids": torch.zeros(1, 6)}
        sample = torch.randn(1, 4, 8, 8)

        def call(t):
            looks.clear()
            pipe.unet(sample, t, embeddings, added_cond_kwargs=conditions)
            return list(looks)

        assert call(999.0), "the rows are matched"
        assert [call(t) for t in (700.0, 400.0, 10.0)] == [[], [], []]
        handle.set_prompt(PROMPTS[0])
        assert call(5.0), "and matched anew"


def test_after_warmup_nothing_is_compiled(pipe):
    counter = Counter()
    compile_blocks(pipe, counter)
    with modulate(pipe, maps=True) as handle:
        random_state = torch.get_rng_state()
        assert counter.during(lambda: handle.warmup([(16, 16)], batch=2)) > 0
        assert torch.equal(torch.get_rng_state(), random_state)
        with pytest.raises(RuntimeError, match="nothing to show"):
            handle.entity_map()
        for request in ([PROMPTS[0], PROMPTS[1]], [PROMPTS[2], "a cat"], ["red", ""], ["", ""]):
            run = dict(prompt=request, height=16, width=16)
            assert counter.during(lambda run=run: images(pipe, **run)) == 0, request


def test_warmup_forgets_its_prompts_and_refuses_nonsense(pipe):
    with modulate(pipe) as handle:
        handle.set_prompt("red and blue", entities=[["red"], ["blue"]])
        handle.warmup()
        images(pipe, "red and blue")
        assert len(handle.prompts[0].entities) == 2, "what was set by hand holds"
        for arguments in (dict(batch=0), dict(sizes=[]), dict(sizes=[64])):
            with pytest.raises(ValueError, match=r"batch|sizes"):
                handle.warmup(**arguments)
    with pytest.raises(RuntimeError, match="removed"):
        handle.warmup()
