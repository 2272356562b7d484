"""ONNX Runtime sessions that print nothing, say what they ran on, and fail in one line."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx_ir
import onnxruntime
import torch

from graphclone.errors import GraphcloneError, first_line
from graphclone.runtime.arrays import Array

Provider = Literal["auto", "cpu", "cuda"]

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_CUDA_OPTIONS = {"use_tf32": 0}
"""TF32 keeps ten bits of a product: far from what float32 promises."""

_BFLOAT16 = "bfloat16"
"""A type that numpy has from ml-dtypes, which ONNX Runtime does not know."""

_IN_SINGLE = "MatMulScaleFusion"
"""An optimisation of ONNX Runtime that rounds factors of float64 to single precision."""

_FATAL = 4
_DTYPES: Mapping[str, str] = {
    "float": "float32",
    "double": "float64",
    **{name: name for name in ("float16", "bool")},
    **{f"{kind}{bits}": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}


class NoProviderError(GraphcloneError):
    """The execution provider that was asked for is not there."""


@dataclass(frozen=True)
class Port:
    """An input or output of a model.

    Attributes:
        name: as the model spells it.
        type: such as ``tensor(float)``.
        shape: a number, a symbol or None per axis.
    """

    name: str
    type: str
    shape: tuple[int | str | None, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its elements in numpy.

        Raises:
            GraphcloneError: it is no tensor, or of a type that numpy does not have.
        """
        name = self.type.removeprefix("tensor(").removesuffix(")")
        if name == _BFLOAT16:
            return onnx_ir.DataType.BFLOAT16.numpy()
        if name not in _DTYPES:
            raise GraphcloneError(f"{self.name} is a {self.type}, which numpy cannot hold")
        return np.dtype(_DTYPES[name])


class Session:
    """A model loaded into ONNX Runtime.

    Attributes:
        provider: the execution provider that really runs it.
        inputs: what it is fed.
        outputs: what it returns.
    """

    def __init__(self, model: Path, provider: Provider = "auto", *, optimised: bool = True) -> None:
        """Load a model.

        Args:
            model: an ``.onnx`` file, with its external data beside it.
            provider: ``auto`` takes CUDA where there is a GPU to run on.
            optimised: whether ONNX Runtime may put other operators in place of the file's.

        Raises:
            NoProviderError: CUDA asked for but not there.
            GraphcloneError: no such file, not a model, or an operator or type that ONNX Runtime does not run.
        """
        if not model.is_file():
            raise GraphcloneError(f"{model}: no such file")
        self._session = _load(model, _providers(provider), retry=provider == "auto", optimised=optimised)
        self.provider = str(self._session.get_providers()[0])
        if provider == "cuda" and self.provider != _CUDA:
            raise NoProviderError(
                f"ONNX Runtime fell back to {self.provider}; pip install 'graphclone[cuda]' brings CUDA and cuDNN"
            )
        self.inputs = tuple(_port(node) for node in self._session.get_inputs())
        self.outputs = tuple(_port(node) for node in self._session.get_outputs())

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name.

        Raises:
            GraphcloneError: ONNX Runtime refuses the inputs.
        """
        names = [port.name for port in self.outputs]
        try:
            if any(_BFLOAT16 in port.type for port in (*self.inputs, *self.outputs)):
                arrays = self._run_values(names, feeds)
            else:
                arrays = self._session.run(names, dict(feeds))
        except Exception as error:  # each of ONNX Runtime's codes is a class of its own
            raise GraphcloneError(f"ONNX Runtime: {_reason(error)}") from error
        return dict(zip(names, arrays, strict=True))

    def _run_values(self, names: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """As ``run`` does it, with values that ONNX Runtime is told the type of."""
        values = self._session.run_with_ort_values(names, {name: _to_value(array) for name, array in feeds.items()})
        return [_to_array(value) for value in values]


def _to_value(array: Array) -> Any:
    if array.dtype.name != _BFLOAT16:
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    words, kind = np.ascontiguousarray(array).view(np.uint16), onnx_ir.DataType.BFLOAT16
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(words.reshape(array.shape), kind.value)


def _to_array(value: Any) -> Array:
    if _BFLOAT16 not in value.data_type():
        array: Array = value.numpy()
        return array
    words: Array = torch.utils.dlpack.from_dlpack(value).cpu().contiguous().view(torch.int16).numpy()
    return words.view(onnx_ir.DataType.BFLOAT16.numpy())


def _load(model: Path, providers: Sequence[Any], *, retry: bool, optimised: bool) -> Any:
    options = onnxruntime.SessionOptions()
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = torch.get_num_threads()
    onnxruntime.set_default_logger_severity(_FATAL)
    try:
        return onnxruntime.InferenceSession(
            model, options, providers=providers, enable_fallback=0, disabled_optimizers=[_IN_SINGLE]
        )
    except Exception as error:  # each of ONNX Runtime's codes is a class of its own
        if retry and len(providers) > 1:  # a GPU that is too full, say
            return _load(model, providers[1:], retry=False, optimised=optimised)
        raise GraphcloneError(f"{model}: ONNX Runtime cannot load it: {_reason(error)}") from error


def _port(node: Any) -> Port:
    return Port(node.name, node.type, tuple(node.shape))


def _reason(error: Exception) -> str:
    return first_line(error).removeprefix("[ONNXRuntimeError] : ")


def check_provider(provider: Provider) -> None:
    """Refuse a provider that is not there, before any work is done.

    Raises:
        NoProviderError: CUDA asked for but not there.
        GraphcloneError: no such provider.
    """
    _providers(provider)


def _providers(provider: Provider) -> list[Any]:
    """The providers to ask for. Asking for CUDA where there is none prints errors, so look first."""
    if provider not in get_args(Provider):
        raise GraphcloneError(f"no provider is called {provider!r}; there are {', '.join(get_args(Provider))}")
    if provider == "cpu" or not _cuda_is_usable():
        if provider == "cuda":
            raise NoProviderError("no CUDA: there is no NVIDIA GPU or driver, or ONNX Runtime was built without")
        return [_CPU]
    return [(_CUDA, _CUDA_OPTIONS), _CPU]


@cache
def _cuda_is_usable() -> bool:
    """Whether ONNX Runtime has CUDA and its driver finds a GPU; if so CUDA's libraries are loaded for it."""
    if _CUDA not in onnxruntime.get_available_providers() or not _count_gpus():
        return False
    with redirect_stdout(StringIO()):
        onnxruntime.preload_dlls()
    return True


def _count_gpus() -> int:
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    works = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return count.value if works else 0
