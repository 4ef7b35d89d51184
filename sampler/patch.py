"""`modulate(pipe)`: attach the modulation to one diffusers pipeline, and take it off again without a trace."""

import contextlib
import functools
import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import torch

from attnmod.parser.prompt import Prompt
from attnmod.parser.readers import Reader
from attnmod.sampler.config import ModulationConfig
from attnmod.sampler.encoding import WatchedEncoder, prompt_encoders
from attnmod.sampler.installed import InstalledProcessors, make_processor
from attnmod.sampler.known_prompts import KnownPrompts
from attnmod.sampler.layers import attention_levels, check_unet, choose_layers
from attnmod.sampler.map_queries import MapQueries
from attnmod.sampler.pickup import MatchedRows, calling_pipeline
from attnmod.sampler.processor import CrossAttentionProcessor
from attnmod.sampler.state import ModulationState
from attnmod.sampler.warmup import warm_up

# UNet -> its handle, so that no two handles work on one UNet. Neither is kept alive by this.
_attached: weakref.WeakKeyDictionary[torch.nn.Module, "weakref.ref[ModulationHandle]"] = weakref.WeakKeyDictionary()


def modulate(
    pipe,
    config: ModulationConfig | str | None = None,
    *,
    maps: bool = False,
    spacy_model: Any = None,
    reader: Reader | None = None,
) -> "ModulationHandle":
    """Attach attention modulation to a diffusers pipeline.

    From now on the prompt of every call of this pipeline object is parsed, and the UNet's attention is modulated
    by it. Attaching to the same pipeline again replaces the first handle. Other pipelines that share the UNet run
    as before.

        handle = modulate(pipe, maps=True)            # or `with modulate(pipe) as handle:`
        image = pipe("a boy in front of a girl").images[0]
        handle.remove()

    Args:
        pipe: a pipeline with a UNet of SDXL, SD 1.5 or SD 2.1 and `encode_prompt`, such as
            StableDiffusionXLPipeline; or a modular pipeline that has its UNet.
        config: what is modulated and how; a preset's name; left out, the defaults.
        maps: remember who owns which patch, for `handle.entity_map()` and its like: one byte for each patch, layer and
            step, of the last 128 steps at most (SDXL at 1024x1024: 0.1 MB a row and step). Off, it costs nothing.
        spacy_model: the spaCy pipeline that reads prompts, by name or as an object; left out, a small English one.
        reader: any callable that makes a Prompt of a text, in place of `parse_prompt`; not beside spacy_model.

    Raises:
        TypeError: no such pipeline.
        ValueError: a UNet of another kind; a layer pattern that matches nothing; a layer that already has a processor
            of another tool; a UNet that another pipeline's handle modulates. Then everything is as it was before.
    """
    unet = getattr(pipe, "unet", None)
    if not isinstance(unet, torch.nn.Module) or not prompt_encoders(pipe):
        raise TypeError(
            "modulate needs a diffusers pipeline with a UNet and encode_prompt, or a modular one with its components"
            f" loaded, not {type(pipe).__name__}"
        )
    check_unet(_plain_unet(pipe))
    config = _as_config(config)
    previous = current_handle(pipe)
    if previous is not None and previous.pipe is not pipe:
        raise ValueError(
            f"the UNet of this {type(pipe).__name__} is modulated by the handle of another pipeline;"
            " call remove() on that handle first"
        )
    return ModulationHandle(pipe, config, maps=maps, spacy_model=spacy_model, reader=reader)._attach(
        config, instead_of=previous
    )


def current_handle(pipe) -> "ModulationHandle | None":
    """The handle that modulates this pipeline's UNet now, if any."""
    reference = _attached.get(_plain_unet(pipe))
    return None if reference is None else reference()


class ModulationHandle(MapQueries):
    """A modulated pipeline; made by `modulate`. As a context manager it removes itself at the end, also on errors.

    Attributes:
        pipe: the pipeline.
        config: the settings in force.
        self_attention_layers, cross_attention_layers: names of the layers that are modulated.
    """

    def __init__(self, pipe, config: ModulationConfig, *, maps: bool, spacy_model: Any, reader: Reader | None = None):
        self.pipe = pipe
        self.config = config
        self.self_attention_layers: tuple[str, ...] = ()
        self.cross_attention_layers: tuple[str, ...] = ()
        self._collect_maps = maps
        self._spacy_model, self._reader = spacy_model, reader
        self._known = KnownPrompts(pipe, spacy_model, reader)
        self._warned: set[str] = set()
        self._unet = _plain_unet(pipe)
        self._undo: contextlib.ExitStack | None = None  # what takes everything off again; None while removed

    def __enter__(self) -> "ModulationHandle":
        return self

    def __exit__(self, *exception) -> None:
        self.remove()

    # -- attaching and removing

    def _attach(self, config: ModulationConfig, instead_of: "ModulationHandle | None" = None) -> "ModulationHandle":
        """Attach with these settings, in the place of another handle or of this one's own old settings.

        What can go wrong is done before anything is touched. Should attaching itself fail, what was done is undone,
        and the other handle goes on.
        """
        scheduler_config = getattr(getattr(self.pipe, "scheduler", None), "config", {})
        steps = scheduler_config.get("num_train_timesteps", 1000)
        levels = attention_levels(self._unet, config.cross_attention_layers)
        state = ModulationState(config, steps, levels, self._collect_maps)
        installed = InstalledProcessors(self._unet)
        names = {}
        for kind in ("self", "cross"):
            layers = choose_layers(self._unet, kind, getattr(config, f"{kind}_attention_layers"))
            layers = layers if getattr(config, f"modulates_{kind}_attention") else {}
            installed.add(layers, functools.partial(make_processor, kind, state, self._unet))
            names[kind] = tuple(layers)
        # Not compiled: as a frame of its own it would be traced anew at every step.
        before_unet: Any = torch.compiler.disable(
            self._before_unet,
            reason="attnmod prepares each UNet call: compile the UNet itself, not a function around it",
        )
        after_unet: Any = torch.compiler.disable(lambda unet, args, output: self._state.end_call())

        settings = None if instead_of is None else instead_of.config
        undo = contextlib.ExitStack()
        try:
            if instead_of is not None:
                instead_of.remove()
            undo.callback(_attached.pop, self._unet, None)
            _attached[self._unet] = weakref.ref(self)
            undo.callback(state.stand_aside)  # a processor that someone still holds then changes nothing
            undo.callback(installed.take_out)
            installed.put_in()
            for encoder in prompt_encoders(self.pipe):
                watched = WatchedEncoder(encoder, self.pipe, self._after_encoding)
                undo.callback(watched.stop)
                watched.start()
            undo.callback(self._unet.register_forward_pre_hook(before_unet, with_kwargs=True).remove)
            undo.callback(self._unet.register_forward_hook(after_unet).remove)
            self.config, self._state, self._installed = config, state, installed
            self._note_text_layers()
            self.self_attention_layers, self.cross_attention_layers = names["self"], names["cross"]
            self._undo = undo
            return self
        except BaseException:
            undo.close()
            self._undo = None if self._undo is undo else self._undo
            if instead_of is not None and settings is not None:
                instead_of.remove()
                instead_of._attach(settings)
            raise

    def _note_text_layers(self) -> None:
        self._state.text_layers = [
            (layer, processor) for layer, processor in self._installed if isinstance(processor, CrossAttentionProcessor)
        ]

    def remove(self) -> None:
        """Put everything back as it was. Calling it again does nothing."""
        undo, self._undo = self._undo, None
        if undo is not None:
            undo.close()

    def update(self, config: ModulationConfig | str) -> None:
        """Go on with other settings from the next call on.

        Raises:
            ValueError: layer patterns that match nothing; then the old settings stay in force.
            RuntimeError: the handle was removed.
        """
        if self._undo is None:
            raise RuntimeError("this handle was removed; call modulate(pipe, config) again")
        self._attach(_as_config(config), instead_of=self)

    # -- prompts

    @property
    def prompts(self) -> list[Prompt]:
        """The parsed prompts of the pipeline's last call, one per text."""
        return self._known.latest

    def set_prompt(
        self,
        prompt: str | Prompt | Sequence[str | Prompt],
        prompt_embeds: torch.Tensor | None = None,
        *,
        entities: Sequence[Any] | None = None,
        masks: Sequence[Any] | None = None,
        split: str | None = None,
    ) -> None:
        """Say what an embedding means, or how a text is to be understood.

        It holds whenever the pipeline is called with that text, or with embeddings known to come from it, until the
        text is set again; a text set more than 256 texts ago is parsed again.

        Args:
            prompt: a text, which is parsed, also where it was set by hand before, or a `Prompt`, taken as it is; or one
                for each row of the embeddings.
            prompt_embeds: text embeddings [N, T, C] that were made elsewhere and will be passed to the pipeline.
            entities: of a single text, by hand, as `Prompt.from_entities` takes them.
            masks: of a single prompt, one for each of its entities: who owns which patch, in place of the vote. A PIL
                image (white is inside) or a tensor [h, w] in 0 to 1, of any size; None for an entity without a
                region. Patches that no mask covers are nobody's and see every token.
            split: how a text of more than 77 tokens was cut into windows for its embedding: "tokens" (sd_embed),
                "sentences" (Compel), "phrases" or "words", as `align_tokens` has it. Left out, it
                stays as it was told before for embeddings that are known, else "tokens", with a warning where the
                others would put an entity elsewhere.

        Raises:
            ValueError: as many prompts as embeddings are needed; entities that are not in the text; masks that do
                not fit the entities.
            TypeError: entities or masks for more than one prompt, or entities for a `Prompt`.
            RuntimeError: the handle was removed.
        """
        if self._undo is None:
            raise RuntimeError("this handle was removed; call modulate(pipe) again")
        self._known.set_prompt(prompt, prompt_embeds, entities, masks, split)
        self._state.forget()

    def _after_encoding(self, given: dict[str, Any], embeddings: torch.Tensor, negative: torch.Tensor | None) -> None:
        """The pipeline has encoded texts: keep them beside their embeddings."""
        if self.config.is_neutral:
            return
        self._state.new_run()
        self._check_scheduler()
        self._known.note_encoded(given, embeddings, negative)

    def _check_scheduler(self) -> None:
        """Progress is read off the timestep, and some schedulers hand the UNet something else."""
        scheduler = getattr(self.pipe, "scheduler", None)
        settings = getattr(scheduler, "config", {})
        is_logarithmic = settings.get("timestep_type") == "continuous" or "sigma_data" in settings
        if is_logarithmic and self.config.has_phases:
            self._warn_once(
                f"{type(scheduler).__name__} gives the UNet ln(sigma) / 4 for a timestep, which says nothing of the"
                " progress: every curve stays near its end. Use constant curves with it"
            )

    # -- one UNet call

    def _before_unet(self, unet: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Forward pre-hook of the UNet."""
        if not self._installed:
            return
        if not self._installed.seem_in_place():
            self._repair()
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
        self._repair()
        matched = self._known.match(embeddings)
        if matched.unknown:
            self._warn_once(
                f"{matched.unknown} of {embeddings.shape[0]} text embeddings did not come from this pipeline's"
                " encode_prompt and run without modulation; name their text by handle.set_prompt(text, prompt_embeds)"
            )
        return matched

    def _repair(self) -> None:
        """See to processors that another tool has put in the place of ours, and tell of it."""
        again, foreign = self._installed.repair()
        told = "another tool has replaced attention processors of the modulated UNet"
        if again:
            self._note_text_layers()
            self._state.new_run()  # the new ones need the text projected
            self._warn_once(
                f"{told}, in {again} layers by diffusers' own; modulation goes on around these. If it is not to, call"
                " handle.remove()"
            )
        if foreign:
            self._warn_once(
                f"{told} by {', '.join(foreign)}; those layers are not modulated. Take that tool off, and modulation"
                " goes on by itself"
            )

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(message, stacklevel=3)

    def warmup(self, sizes: Sequence[tuple[int, int]] | None = None, batch: int = 1, **call: Any) -> None:
        """Compile everything before the first request: run the pipeline for two steps at each size.

        It runs with entities, without, and with an empty prompt, as requests will; no image is decoded, no random
        number of the caller's is used, and nothing is compiled where nothing was asked to be. A compiled UNet then
        meets other prompts, up to 16 entities, other steps and curves without compiling anything anew.

        Args:
            sizes: heights and widths in pixels; left out, the pipeline's own size.
            batch: prompts of a request.
            call: more arguments of the pipeline's call that decide what is compiled, such as guidance_scale.

        Raises:
            ValueError: sizes or batch are no sizes or no batch.
            RuntimeError: the handle was removed.
        """
        if self._undo is None:
            raise RuntimeError("this handle was removed; call modulate(pipe) again")
        known, self._known = (
            self._known,
            KnownPrompts(self.pipe, self._spacy_model, self._reader),
        )  # its texts may mean another thing
        try:
            warm_up(self.pipe, self._known.by_hand, sizes, batch, call)
        finally:
            self._known = known
            self._state.forget()
        self._known.latest = []
        self._state.record = None

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


def _as_config(config: ModulationConfig | str | None) -> ModulationConfig:
    if config is None:
        return ModulationConfig()
    if isinstance(config, str):
        return ModulationConfig.preset(config)
    if not isinstance(config, ModulationConfig):
        raise TypeError(f"config is a ModulationConfig or a preset's name, not {type(config).__name__}")
    return config


def _plain_unet(pipe) -> torch.nn.Module:
    """The UNet itself, also where torch.compile has wrapped it."""
    return getattr(pipe.unet, "_orig_mod", pipe.unet)
