"""From the MODEL of a command line to a source."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from graphclone.errors import GraphcloneError, one_line

if TYPE_CHECKING:
    from graphclone.clones.source import Source
    from graphclone.formats.onnx.drawn_inputs import UserInputs

_WHAT = (
    "an .onnx file, package.module:function or file.py:function that returns (module, args), "
    "a Hugging Face checkpoint (its folder or hub id OWNER/NAME), or the name of a model that comes with graphclone"
)

_HUB_ID = re.compile(r"(?![.-])[\w.-]+/[\w.-]+")
"""An owner and a name. What begins with a dot is a path, which must never be looked up on the hub."""

_FILES = (".onnx", ".py", ".pt", ".pth", ".pt2", ".bin", ".safetensors", ".gguf")
"""Suffixes that no hub id has."""

_WEIGHTS = (".pt", ".pth", ".bin", ".safetensors")
"""Suffixes of files that hold weights, and no code to run them with."""


def resolve(text: str, inputs: UserInputs | None = None) -> Source:
    """The source that the MODEL of a command line means. Nothing of it is read before it is used.

    Args:
        text: MODEL.
        inputs: what the user says about the inputs of an ``.onnx`` file or a checkpoint.

    Raises:
        GraphcloneError: there is none, it is of a kind that cannot be read, or takes no ``inputs``.
    """
    from graphclone.formats.huggingface.layouts import CONFIG
    from graphclone.formats.onnx.source import OnnxSource
    from graphclone.formats.torch.source import FunctionSource
    from graphclone.models import MODELS, build

    path = Path(text)
    if not text:
        raise GraphcloneError(f"the model has an empty name; give {_WHAT}")
    if path.suffix == ".onnx" and path.is_file():
        return OnnxSource(path, inputs or {}, text)
    if path.is_dir() and (text not in MODELS or (path / CONFIG).is_file()):  # a folder of the name of a model of ours
        return _checkpoint(path, inputs or {})
    if text in MODELS or is_function(text):
        if inputs:
            reason = "it takes no inputs, which are for .onnx files and checkpoints"
            raise GraphcloneError(f"{text}: {reason}; the function of a model returns its inputs itself")
        return FunctionSource(text, function(text) if is_function(text) else lambda: build(text))
    if path.exists():
        raise GraphcloneError(_no_model(path) if path.is_file() else f"{path}: is no file and no folder; give {_WHAT}")
    if _HUB_ID.fullmatch(text) and path.suffix not in _FILES:
        return _checkpoint(path, inputs or {})
    if path.suffix or "/" in text:
        what = "file" if path.suffix in _FILES else "file or folder"
        raise GraphcloneError(f"{text}: no such {what}; give {_WHAT}")
    raise GraphcloneError(f"no model is called {text!r}; {_suggestion(text, MODELS)}")


def _checkpoint(path: Path, inputs: UserInputs) -> Source:
    """The Hugging Face checkpoint in a folder, or of a hub id.

    Raises:
        GraphcloneError: it is a folder in which something else lies.
    """
    from graphclone.formats.huggingface.layouts import CONFIG, without_config
    from graphclone.formats.huggingface.source import CheckpointSource

    if path.is_dir() and not (path / CONFIG).is_file():
        raise GraphcloneError(without_config(path))
    return CheckpointSource(str(path), inputs)


def _no_model(path: Path) -> str:
    from graphclone.formats.huggingface.layouts import CONFIG, layout_advice

    if (advice := layout_advice(path)) is not None:
        return advice
    if (path.parent / CONFIG).is_file():
        return f"{path}: a file of a Hugging Face checkpoint; give its folder, {path.parent}"
    if path.suffix == ".py":
        return f"{path}: names no function; give {path}:FUNCTION, which returns (module, args)"
    if path.suffix in _WEIGHTS:
        hint = "give file.py:FUNCTION, which builds the module, loads them and returns (module, args)"
        return f"{path}: weights alone are no model; {hint}"
    return f"{path}: not a model; give {_WHAT}"


def _suggestion(text: str, names: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(text, names, 1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names)}; or give {_WHAT}"


# Functions of the user


def is_function(text: str) -> bool:
    """Whether a text has the form of ``package.module:function`` or ``file.py:function``."""
    module, _, name = text.rpartition(":")
    return bool(module) and name.isidentifier()


def function(text: str) -> Callable[..., Any]:
    """The function that a text names.

    Raises:
        GraphcloneError: there is none.
    """
    module, _, name = text.rpartition(":")
    attribute = getattr(_file(module) if module.endswith(".py") else _module(module), name, None)
    if attribute is None:
        raise GraphcloneError(f"{text}: {module} has no {name}")
    if not callable(attribute):
        raise GraphcloneError(f"{text}: {name} is a {type(attribute).__name__}, not a function")
    result: Callable[..., Any] = attribute
    return result


def _module(name: str) -> ModuleType:
    """The module of that name; the current directory is searched first, as ``python -m`` does."""
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):  # it, or the package that it is in
            hint = "run from the directory it is in, or install it"
            raise GraphcloneError(f"{name}: no such module; {hint}") from None
        raise GraphcloneError(f"{name}: cannot be imported: {one_line(error)}") from error
    except Exception as error:
        raise GraphcloneError(f"{name}: cannot be imported: {one_line(error)}") from error


def _file(text: str) -> ModuleType:
    """The module in a file, which may import its neighbours."""
    path = Path(text)
    if not path.is_file():
        raise GraphcloneError(f"{text}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if (folder := str(path.parent.resolve())) not in sys.path:
        sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise GraphcloneError(f"{text}: cannot be imported: {one_line(error)}") from error
    return module
