"""From the MODEL of a command line to a module and its example inputs."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from graphclone.errors import GraphcloneError

if TYPE_CHECKING:
    from graphclone.cloning import Clone, Traced
    from graphclone.drawn_inputs import Given
    from graphclone.models import Built

_WHAT = (
    "an .onnx file, a name in models/, package.module:function or file.py:function that returns (module, args), "
    "or a Hugging Face checkpoint: its folder or hub id"
)

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

_FILES = (".onnx", ".py", ".pt", ".pth", ".pt2", ".bin", ".safetensors", ".gguf")
"""Suffixes that no hub id has."""


@dataclass(frozen=True)
class Source:
    """A model that can be built; nothing is allocated before it is.

    Attributes:
        name: as the user wrote it.
        make: returns ``(module, args)`` or ``(module, args, kwargs)``.
    """

    name: str
    make: Callable[[], Any]

    def build(self) -> Built:
        """The module in eval mode, with its example inputs.

        Raises:
            GraphcloneError: it cannot be made, or is no model.
        """
        try:
            made = self.make()
        except GraphcloneError:
            raise
        except Exception as error:  # it is the user's own code
            raise GraphcloneError(f"{self.name}: building the model failed: {_one_line(error)}") from error
        return _checked(self.name, made)

    def trace(self, widen_io: tuple[str, ...] = ()) -> Traced:
        """The model traced without allocating its weights, where it can be built that way.

        Weights are fake: they have a shape and a dtype but no data. Code that looks at the data of a weight
        while it builds or runs the model cannot run on those; such a model is then built in full.

        Raises:
            GraphcloneError: the model cannot be built or traced.
        """
        from torch._subclasses.fake_tensor import FakeTensorMode

        from graphclone.cloning import trace

        try:
            with FakeTensorMode(allow_non_fake_inputs=True):
                built = self.build()
                return trace(built.module, built.args, built.kwargs, widen_io=widen_io, name=self.name)
        except GraphcloneError as refusal:
            if not isinstance(refusal.__cause__, Exception):
                raise
        built = self.build()
        traced = trace(built.module, built.args, built.kwargs, widen_io=widen_io, name=self.name)
        traced.graph.notes.append("built with its weights: it cannot be built or traced without them")
        return traced

    def clone(self, **options: Any) -> Clone:
        """The model built and widened; see ``graphclone.clone``."""
        from graphclone.cloning import clone

        built = self.build()
        return clone(built.module, built.args, built.kwargs, name=self.name, **options)


@dataclass(frozen=True)
class OnnxFile:
    """A model in an ONNX file.

    Attributes:
        name: its path, as the user wrote it.
        inputs: arrays, or sizes, that it accepts, by name.
    """

    name: str
    inputs: Given = field(default_factory=dict)

    def trace(self, widen_io: tuple[str, ...] = ()) -> Traced:
        """The model as it is read from the file; its weights stay there.

        Raises:
            GraphcloneError: the file cannot be read.
        """
        from graphclone.cloning import trace

        return trace(Path(self.name), widen_io=widen_io, inputs=self.inputs, name=self.name)

    def check_target(self, target: Path) -> None:
        """Refuse to write what a file cannot become, or over the file itself.

        Raises:
            GraphcloneError: the target is a torch program, or the source.
        """
        if target.suffix == ".pt2":
            raise GraphcloneError(f"{target}: a clone of an ONNX file is no torch program; write it as .onnx")
        if target.exists() and target.samefile(self.name):
            raise GraphcloneError(f"{target}: is the source; write the clone elsewhere")

    def clone(self, **options: Any) -> Clone:
        """The model widened; see ``graphclone.clone``."""
        from graphclone.cloning import clone

        return clone(Path(self.name), name=self.name, inputs=self.inputs, **options)


def resolve(text: str, inputs: Given | None = None) -> Source | OnnxFile:
    """The source that the MODEL of a command line means. Nothing of it is read before it is used.

    Args:
        text: MODEL.
        inputs: what the user says about the inputs of an ``.onnx`` file or a checkpoint.

    Raises:
        GraphcloneError: there is none, it is of a kind that cannot be read, or takes no ``inputs``.
    """
    from graphclone.models import MODELS, build

    path = Path(text)
    if path.suffix == ".onnx" and path.is_file():
        return OnnxFile(text, inputs or {})
    if text in MODELS or is_function(text):
        if inputs:
            kinds = ".onnx files and checkpoints; the function of a model returns its inputs itself"
            raise GraphcloneError(f"{text}: --input and --inputs are for {kinds}")
        return Source(text, function(text) if is_function(text) else lambda: build(text))
    if path.is_dir():
        return _checkpoint(path, inputs or {})
    if path.exists():
        raise GraphcloneError(_no_model(path))
    if _HUB_ID.fullmatch(text) and path.suffix not in _FILES:
        return _checkpoint(path, inputs or {})
    if path.suffix or "/" in text:
        raise GraphcloneError(f"{text}: no such file; give {_WHAT}")
    raise GraphcloneError(f"no model is called {text!r}; {_suggestion(text, MODELS)}")


def _checkpoint(path: Path, inputs: Given) -> Source:
    """The Hugging Face checkpoint in a folder, or of a hub id.

    Raises:
        GraphcloneError: it is a folder in which something else lies.
    """
    from graphclone.checkpoints import CheckpointSource
    from graphclone.frontends.layouts import CONFIG, without_config

    if path.is_dir() and not (path / CONFIG).is_file():
        raise GraphcloneError(without_config(path))
    return CheckpointSource.of(str(path), inputs)


def _no_model(path: Path) -> str:
    from graphclone.frontends.layouts import CONFIG, described

    if (path.parent / CONFIG).is_file() and described(path) is None:
        return f"{path}: a file of a Hugging Face checkpoint; give its folder, {path.parent}"
    return described(path) or f"{path}: not a model; give {_WHAT}"


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
    found = getattr(_file(module) if module.endswith(".py") else _module(module), name, None)
    if found is None:
        raise GraphcloneError(f"{text}: {module} has no {name}")
    if not callable(found):
        raise GraphcloneError(f"{text}: {name} is a {type(found).__name__}, not a function")
    made: Callable[..., Any] = found
    return made


def _module(name: str) -> ModuleType:
    """The module of that name; the current directory is searched first, as ``python -m`` does."""
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and name.startswith(error.name):
            hint = "run from the directory it is in, or install it"
            raise GraphcloneError(f"{name}: no such module; {hint}") from None
        raise GraphcloneError(f"{name}: cannot be imported: {_one_line(error)}") from error
    except Exception as error:
        raise GraphcloneError(f"{name}: cannot be imported: {_one_line(error)}") from error


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
        raise GraphcloneError(f"{text}: cannot be imported: {_one_line(error)}") from error
    return module


def _checked(name: str, made: Any) -> Built:
    """What a function returned, if it is a model with its inputs."""
    from torch import nn

    from graphclone.models import Built

    expected = "expected (module, args) or (module, args, kwargs)"
    if not isinstance(made, tuple) or len(made) not in (2, 3):
        raise GraphcloneError(f"{name}: not a model: {expected}, got {_described(made)}")
    module, args, kwargs = (*made, {})[:3]
    if not isinstance(module, nn.Module):
        raise GraphcloneError(f"{name}: not a model: {expected}, but the module is {_described(module)}")
    if not isinstance(args, tuple | list):
        raise GraphcloneError(f"{name}: the args must be a tuple of inputs, got {_described(args)}")
    if not isinstance(kwargs, Mapping):
        raise GraphcloneError(f"{name}: the kwargs must be a dict of inputs, got {_described(kwargs)}")
    return Built(module.eval(), tuple(args), dict(kwargs))


def _described(value: Any) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return type(value).__name__.removeprefix("Fake")


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
