"""`modulate(pipe)`: attach the modulation to one diffusers pipeline, and take it off again without a trace."""

import inspect
import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.attention_processor import Attention

from attnmod.parser.align import CLIP_LENGTH, align_tokens
from attnmod.parser.prompt import Prompt
from attnmod.parser.second import join_second
from attnmod.parser.syntax import parse_prompt
from attnmod.sampler.config import ModulationConfig
from attnmod.sampler.layers import attention_levels, check_processors, choose_layers
from attnmod.sampler.maps import OwnershipRecord
from attnmod.sampler.pickup import MatchedRows, PromptBook, calling_pipeline
from attnmod.sampler.processor import CrossAttentionProcessor, SelfAttentionProcessor
from attnmod.sampler.regions import read_masks
from attnmod.sampler.state import ModulationState

# UNet -> its handle, so that no two handles work on one UNet. Neither is kept alive by this.
_attached: weakref.WeakKeyDictionary[torch.nn.Module, "weakref.ref[ModulationHandle]"] = weakref.WeakKeyDictionary()


def modulate(
    pipe,
    config: ModulationConfig | str | None = None,
    *,
    maps: bool = False,
    spacy_model: Any = None,
) -> "ModulationHandle":
    """Attach attention modulation to a diffusers pipeline.

    From now on the prompt of every call of this pipeline object is parsed, and the UNet's attention is modulated
    by it. Attaching to the same pipeline again replaces the first handle. Other pipelines that share the UNet run
    as before.

        handle = modulate(pipe, maps=True)            # or `with modulate(pipe) as handle:`
        image = pipe("a boy in front of a girl").images[0]
        handle.remove()

    Args:
        pipe: a pipeline with an SDXL UNet and `encode_prompt`, such as StableDiffusionXLPipeline.
        config: what is modulated and how; a preset's name; left out, the defaults.
        maps: count who owns which patch, for `handle.entity_map()`.
        spacy_model: the spaCy pipeline that reads prompts, by name or as an object; left out, a small English one.

    Raises:
        TypeError: no such pipeline.
        ValueError: a layer pattern that matches nothing; a layer that already has a processor of another tool;
            a UNet that another pipeline's handle modulates.
    """
    if not isinstance(getattr(pipe, "unet", None), torch.nn.Module) or not callable(
        getattr(pipe, "encode_prompt", None)
    ):
        raise TypeError(f"modulate needs a diffusers pipeline with a UNet and encode_prompt, not {type(pipe).__name__}")
    config = _as_config(config)
    handle = current_handle(pipe)
    if handle is not None:
        if handle.pipe is not pipe:
            raise ValueError(
                f"the UNet of this {type(pipe).__name__} is modulated by the handle of another pipeline;"
                " call remove() on that handle first"
            )
        handle.remove()
    return ModulationHandle(pipe, config, maps=maps, spacy_model=spacy_model)


def current_handle(pipe) -> "ModulationHandle | None":
    """The handle that modulates this pipeline's UNet now, if any."""
    reference = _attached.get(_plain_unet(pipe))
    return None if reference is None else reference()


class ModulationHandle:
    """A modulated pipeline; made by `modulate`. As a context manager it removes itself at the end, also on errors.

    Attributes:
        pipe: the pipeline.
        config: the settings in force.
        prompts: the parsed prompts of the pipeline's last call, one per text.
        self_attention_layers, cross_attention_layers: names of the layers that are modulated.
    """

    def __init__(self, pipe, config: ModulationConfig, *, maps: bool, spacy_model: Any):
        self.pipe = pipe
        self.config = config
        self.prompts: list[Prompt] = []
        self.self_attention_layers: tuple[str, ...] = ()
        self.cross_attention_layers: tuple[str, ...] = ()
        self._collect_maps = maps
        self._spacy_model = spacy_model
        self._book = PromptBook()
        self._given: dict[str, Prompt] = {}  # prompts set by hand, by their text
        self._masks: dict[str, torch.Tensor] = {}  # and the regions of their entities
        self._warned: set[str] = set()
        self._unet = _plain_unet(pipe)
        self._processors: dict[Attention, Any] = {}  # layer -> ours
        self._attached = False
        self._attach()

    def __enter__(self) -> "ModulationHandle":
        return self

    def __exit__(self, *exception) -> None:
        self.remove()

    # -- attaching and removing

    def _attach(self) -> None:
        scheduler_config = getattr(getattr(self.pipe, "scheduler", None), "config", {})
        steps = scheduler_config.get("num_train_timesteps", 1000)
        self._state = ModulationState(self.config, steps, attention_levels(self._unet), self._collect_maps)
        self._processors = {}
        self.self_attention_layers = self._make_processors("self", self.config.self_attention_layers)
        self.cross_attention_layers = self._make_processors("cross", self.config.cross_attention_layers)
        self._state.text_layers = [
            (layer, processor)
            for layer, processor in self._processors.items()
            if isinstance(processor, CrossAttentionProcessor)
        ]
        self._encode_prompt = self.pipe.encode_prompt
        self._had_own_encode_prompt = "encode_prompt" in vars(self.pipe)
        # Of the class: a wrapper that is there already may show no more than (*args, **kwargs).
        self._parameters = inspect.signature(getattr(type(self.pipe), "encode_prompt", self._encode_prompt))
        # From here on nothing can fail.
        # Not compiled: as a frame of its own it would be traced anew at every step.
        before_unet: Any = torch.compiler.disable(
            self._before_unet,
            reason="attnmod prepares each UNet call: compile the UNet itself, not a function around it",
        )
        self._hook = self._unet.register_forward_pre_hook(before_unet, with_kwargs=True)
        for layer, processor in self._processors.items():
            layer.processor = processor
        self.pipe.encode_prompt = self._encode_and_remember
        _attached[self._unet] = weakref.ref(self)
        self._attached = True

    def _make_processors(self, kind: str, patterns: tuple[str, ...]) -> tuple[str, ...]:
        """Make a processor for every layer that is to be modulated; nothing is installed yet. Returns their names."""
        layers = choose_layers(self._unet, kind, patterns)
        if not getattr(self.config, f"modulates_{kind}_attention"):
            return ()
        check_processors(layers)
        make = {"self": SelfAttentionProcessor, "cross": CrossAttentionProcessor}[kind]
        self._processors |= {layer: make(self._state, layer.processor) for layer in layers.values()}
        return tuple(layers)

    def remove(self) -> None:
        """Put everything back as it was. Calling it again does nothing."""
        if not self._attached:
            return
        self._attached = False
        self._hook.remove()
        for layer, processor in self._processors.items():
            if layer.processor is processor:  # else another tool has put its own there: leave it
                layer.processor = processor.original
        # Where another tool has wrapped it in turn, ours stays inside and only passes on.
        if vars(self.pipe).get("encode_prompt") == self._encode_and_remember:
            if self._had_own_encode_prompt:
                self.pipe.encode_prompt = self._encode_prompt
            else:
                del self.pipe.encode_prompt
        _attached.pop(self._unet, None)

    def update(self, config: ModulationConfig | str) -> None:
        """Go on with other settings from the next call on.

        Raises:
            ValueError: layer patterns that match nothing; then the old settings stay in force.
            RuntimeError: the handle was removed.
        """
        if not self._attached:
            raise RuntimeError("this handle was removed; call modulate(pipe, config) again")
        before = self.config
        self.remove()
        try:
            self.config = _as_config(config)
            self._attach()
        except Exception:
            self.config = before
            self._attach()
            raise

    # -- prompts

    def set_prompt(
        self,
        prompt: str | Prompt | Sequence[str | Prompt],
        prompt_embeds: torch.Tensor | None = None,
        *,
        entities: Sequence[Any] | None = None,
        masks: Sequence[Any] | None = None,
    ) -> None:
        """Say what an embedding means, or how a text is to be understood.

        It holds whenever the pipeline is called with that text, until the text is set again.

        Args:
            prompt: a text, which is parsed, or a `Prompt`, taken as it is; or one for each row of the embeddings.
            prompt_embeds: text embeddings [N, T, C] that were made elsewhere and will be passed to the pipeline.
            entities: of a single text, by hand, as `Prompt.from_entities` takes them.
            masks: of a single prompt, one for each of its entities: who owns which patch, in place of the vote. A PIL
                image (white is inside) or a tensor [h, w] in 0 to 1, of any size; None for an entity without a
                region. Patches that no mask covers are nobody's and see every token.

        Raises:
            ValueError: as many prompts as embeddings are needed; entities that are not in the text; masks that do
                not fit the entities.
            TypeError: entities or masks for more than one prompt, or entities for a `Prompt`.
            RuntimeError: the handle was removed.
        """
        if not self._attached:
            raise RuntimeError("this handle was removed; call modulate(pipe) again")
        if entities is not None:
            if not isinstance(prompt, str):
                raise TypeError(f"entities go with one text, not with a {type(prompt).__name__}")
            prompt = Prompt.from_entities(prompt, entities)
        several = not isinstance(prompt, str | Prompt)
        if several and masks is not None:
            raise TypeError("masks go with one prompt; call set_prompt for each")
        parsed = [self._parse(one) for one in (prompt if several else [prompt])]
        if prompt_embeds is not None and (prompt_embeds.ndim != 3 or prompt_embeds.shape[0] != len(parsed)):
            raise ValueError(
                f"prompt_embeds has shape {tuple(prompt_embeds.shape)}; {len(parsed)} prompts need"
                f" [{len(parsed)}, tokens, channels]"
            )
        regions = None if masks is None else read_masks(masks, parsed[0])
        for one in parsed:
            self._given[one.text] = one
            self._masks.pop(one.text, None)
        if regions is not None:
            self._masks[parsed[0].text] = regions
        if prompt_embeds is not None:
            self._remember(parsed, prompt_embeds)
        self._state.forget()

    def _parse(self, prompt: str | Prompt) -> Prompt:
        if isinstance(prompt, Prompt):
            return prompt
        return self._given.get(prompt) or parse_prompt(prompt, model=self._spacy_model)

    def _remember(self, prompts: list[Prompt], embeddings: torch.Tensor, seconds: list[Prompt] | None = None) -> None:
        """Pair prompts (seconds: what the second encoder reads) with embeddings [n, T, C], adjacent rows of each."""
        length = embeddings.shape[1]
        tokenizer = getattr(self.pipe, "tokenizer", None) or self.pipe.tokenizer_2
        # A prompt that has its tokens keeps them: their weights may have been set by hand.
        self.prompts = [
            prompt if len(prompt.tokens) == length else _align(prompt, tokenizer, length) for prompt in prompts
        ]
        if seconds is not None:
            aligned = [_align(second, self.pipe.tokenizer_2, length) for second in seconds]
            self.prompts = [join_second(*both) for both in zip(self.prompts, aligned, strict=True)]
        for prompt, rows in zip(self.prompts, embeddings.split(embeddings.shape[0] // len(prompts)), strict=True):
            self._book.remember(rows[0], prompt)

    def _encode_and_remember(self, *args, **kwargs):
        """Stands in for the pipeline's encode_prompt: the same result, and the texts are kept beside it."""
        result = self._encode_prompt(*args, **kwargs)
        if not self._attached or self.config.is_neutral:
            return result
        self._state.new_run()
        embeddings, negative = result[0], result[1]
        given = self._parameters.bind(self.pipe, *args, **kwargs).arguments
        # Negative rows first: where both texts are the same, the row counts as a prompt.
        if negative is not None and given.get("negative_prompt_embeds") is None:
            for row in negative[:: given.get("num_images_per_prompt", 1)]:
                self._book.remember(row, None)
        if given.get("prompt") is not None and given.get("prompt_embeds") is None:
            texts = _as_list(given["prompt"])
            seconds = _as_list(given.get("prompt_2") or texts)
            parsed = [self._parse(text) for text in texts]
            self._remember(parsed, embeddings, None if seconds == texts else [self._parse(text) for text in seconds])
        return result

    # -- one UNet call

    def _before_unet(self, unet: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Forward pre-hook of the UNet."""
        if not self._processors:
            return
        named = dict(zip(("sample", "timestep", "encoder_hidden_states"), args, strict=False)) | kwargs
        embeddings = named["encoder_hidden_states"]
        if named.get("attention_mask") is not None or named.get("encoder_attention_mask") is not None:
            self._warn_once("the UNet was called with an attention mask; such calls are not modulated")
            return self._state.stand_aside()
        lora_scale = (kwargs.get("cross_attention_kwargs") or {}).get("scale", 1.0)
        self._state.begin_call(unet, named["sample"], named["timestep"], embeddings, lora_scale, self._match)

    def _match(self, embeddings: torch.Tensor) -> MatchedRows:
        caller = calling_pipeline()
        if caller is not None and caller is not self.pipe:
            return MatchedRows([None] * embeddings.shape[0], [False] * embeddings.shape[0], unknown=0)
        if any(layer.processor is not processor for layer, processor in self._processors.items()):
            self._warn_once(
                "another tool has replaced attention processors of the modulated UNet; those layers are not"
                " modulated. Call modulate(pipe) again after it, or remove it"
            )
        matched = self._book.match(embeddings)
        matched.masks = [None if prompt is None else self._masks.get(prompt.text) for prompt in matched.prompts]
        if matched.unknown:
            self._warn_once(
                f"{matched.unknown} of {embeddings.shape[0]} text embeddings did not come from this pipeline's"
                " encode_prompt and run without modulation; name their text by handle.set_prompt(text, prompt_embeds)"
            )
        return matched

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(message, stacklevel=3)

    # -- what is seen

    def stats(self) -> dict[str, int]:
        """What the projections of the text, made once per run, cost and save.

        Returns:
            projection_bytes: memory that they hold now. projections_made, projections_saved: matrix products with the
            layers' to_k and to_v since attaching.
        """
        state = self._state
        return {
            "projection_bytes": state.projection_bytes,
            "projections_made": state.projections_made,
            "projections_saved": state.projections_saved,
        }

    def entity_map(self) -> torch.Tensor:
        """Who owned which patch in the last run, over all heads, layers and steps.

        Returns:
            int8 [N, h, w] on the CPU, for the N images of the run, at the finest attention resolution: ids of
            `handle.prompts` entities, -1 where nobody.

        Raises:
            RuntimeError: attached without `maps=True`, or nothing modulated has run yet.
        """
        return self._ownership("entity_map").entity_map()

    def heat_map(self, entity: int | str, *, image: int = 0) -> torch.Tensor:
        """How clearly an entity owns each patch: its share of the heads, layers and steps of the last run.

        Args:
            entity: id, text ("a red hat") or head noun ("hat") of an entity; of several the first.
            image: which image of the run.

        Returns:
            float32 [h, w] in 0 to 1 on the CPU, of the size of `entity_map`.

        Raises:
            RuntimeError: as `entity_map`.
            ValueError: no such entity.
            IndexError: no such image.
        """
        ownership = self._ownership("heat_map")
        prompt = ownership.prompts[image]
        for one in prompt.entities:
            if entity in (one.id, one.text, one.head):
                return ownership.share_of(image, one.id)
        known = ", ".join(f"{one.id} {one.text!r}" for one in prompt.entities) or "none"
        raise ValueError(f"the prompt has no entity {entity!r}; it has {known}")

    def _ownership(self, asked: str) -> OwnershipRecord:
        if not self._collect_maps:
            raise RuntimeError(f"{asked}() needs modulate(pipe, maps=True)")
        if self._state.ownership is None:
            raise RuntimeError(f"{asked}() has nothing to show: no modulated run since attaching")
        return self._state.ownership


def _as_config(config: ModulationConfig | str | None) -> ModulationConfig:
    if config is None:
        return ModulationConfig()
    if isinstance(config, str):
        return ModulationConfig.preset(config)
    if not isinstance(config, ModulationConfig):
        raise TypeError(f"config is a ModulationConfig or a preset's name, not {type(config).__name__}")
    return config


def _align(prompt: Prompt, tokenizer: Any, length: int) -> Prompt:
    """Tokens for an embedding of this length; a multiple of 77 is chunks of 77, each with its own BOS and EOS."""
    chunks = length // CLIP_LENGTH if length % CLIP_LENGTH == 0 else 1
    return align_tokens(prompt, tokenizer, length=length // chunks, chunks=chunks)


def _as_list(texts: str | Sequence[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)


def _plain_unet(pipe) -> torch.nn.Module:
    """The UNet itself, also where torch.compile has wrapped it."""
    return getattr(pipe.unet, "_orig_mod", pipe.unet)
