"""Where texts become embeddings: `encode_prompt` of a pipeline object, or of a modular pipeline's text blocks."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch

# (arguments by name, embeddings [N, T, C], negative embeddings or None)
AfterEncoding = Callable[[dict[str, Any], torch.Tensor, torch.Tensor | None], None]


def prompt_encoders(pipe: Any) -> list[Any]:
    """The objects whose encode_prompt a pipeline calls: itself, or, if it is modular, some of its blocks."""
    if callable(getattr(pipe, "encode_prompt", None)):
        return [pipe]
    return [block for block in _blocks(getattr(pipe, "_blocks", None)) if hasattr(block, "encode_prompt")]


def _blocks(block: Any) -> Iterator[Any]:
    """A block and those within it."""
    if block is not None:
        yield block
        for inner in (getattr(block, "sub_blocks", None) or {}).values():
            yield from _blocks(inner)


class WatchedEncoder:
    """Stands in for encode_prompt on one object: the same result, and `after` is told of it.

    On the object, never on its class, so that no other pipeline is watched.
    """

    def __init__(self, encoder: Any, pipe: Any, after: AfterEncoding):
        """Nothing is watched before `start`.

        Args:
            encoder: has encode_prompt.
            pipe: whose texts are meant; blocks may serve several pipelines, and are told for which they work.
            after: called with every result.
        """
        original = encoder.encode_prompt
        # Of the class: a wrapper that is there already may show no more than (*args, **kwargs).
        in_class = inspect.getattr_static(type(encoder), "encode_prompt", None)
        is_method = in_class is not None and not isinstance(in_class, staticmethod)
        signature = inspect.signature(getattr(type(encoder), "encode_prompt", original))

        # A function and no bound method: whoever copies a modular pipeline's blocks copies what those are bound to.
        def encode_prompt(*args, **kwargs):
            result = original(*args, **kwargs)
            if self._is_on:
                given = signature.bind(*((encoder,) if is_method else ()), *args, **kwargs).arguments
                if given.get("components", pipe) is pipe:
                    after(given, result[0], result[1])
            return result

        self._encoder = encoder
        self._original = original
        self._had_own = "encode_prompt" in vars(encoder)
        self._stand_in = encode_prompt
        self._is_on = False

    def start(self) -> None:
        self._is_on = True
        self._encoder.encode_prompt = self._stand_in

    def stop(self) -> None:
        """Put back what was there. Where another tool has wrapped ours in turn, it stays inside and only passes on."""
        self._is_on = False
        if vars(self._encoder).get("encode_prompt") is self._stand_in:
            if self._had_own:
                self._encoder.encode_prompt = self._original
            else:
                del self._encoder.encode_prompt
