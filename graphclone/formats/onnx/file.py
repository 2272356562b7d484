"""ONNX files that may be broken or hostile, read without their weights."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR, S_ISREG

import onnx_ir
from onnx import ModelProto, TensorProto

from graphclone.errors import GraphcloneError
from graphclone.formats.onnx.checks import OWN_DOMAIN, check, declared_bytes, quoted, shape_text, tensors

_PROTOBUF_LIMIT = 2**31
"""Bytes that no protobuf message reaches."""

_NUMBER = re.compile(r"[0-9]{1,18}")


NOTES_KEY = "graphclone notes"
"""Where a model that has been read keeps what the user should know about it."""


def load(path: Path) -> onnx_ir.Model:
    """Read a model without its weights: those in other files are mapped when they are wanted.

    Args:
        path: of the model. Its external data lies in its folder, or where both are links into another folder, in
            that one. Nothing else is ever opened.

    Returns:
        The model, its nodes in an order they can run in. An external tensor's ``path`` is the real file.

    Raises:
        GraphcloneError: what is wrong, where, and what to do.
    """
    proto = _read(path)
    try:
        check(proto)
        _find_external_data(proto, path)
        _leave_open(proto)
        return _model(proto)
    except GraphcloneError as error:
        raise GraphcloneError(f"{path}: {error}") from None
    except Exception as error:  # a damaged file fails in as many ways as there are
        raise GraphcloneError(f"{path}: is damaged: {_reason(error)}; export or download it again") from error


def _read(path: Path) -> ModelProto:
    data = _contents(path)
    if data.startswith(b"version https://git-lfs"):
        raise GraphcloneError(f"{path}: is a pointer of Git LFS, not the model; `git lfs pull` fetches it")
    try:
        model: ModelProto = ModelProto.FromString(data)
    except Exception as error:  # protobuf has classes of its own
        if "Depth" in str(error):
            hint = "export it with fewer branches and loops"
            raise GraphcloneError(f"{path}: its graphs nest deeper than protobuf reads; {hint}") from error
        hint = "it is none, or damaged; export or download it again"
        raise GraphcloneError(f"{path}: cannot be read as an ONNX model: {hint}") from error
    return model


def _contents(path: Path) -> bytes:
    try:
        status = path.stat()
        if S_ISDIR(status.st_mode):
            raise GraphcloneError(f"{path}: is a folder; give the path of the .onnx file in it")
        if not S_ISREG(status.st_mode):
            raise GraphcloneError(f"{path}: is no regular file; give the path of an .onnx file")
        if not status.st_size:
            raise GraphcloneError(f"{path}: is empty; export or download it again")
        if status.st_size >= _PROTOBUF_LIMIT:
            hint = "export it with external data"
            raise GraphcloneError(f"{path}: has {status.st_size} bytes, and ONNX files end below 2 GiB; {hint}")
        return path.read_bytes()
    except FileNotFoundError:
        raise GraphcloneError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        hint = "check the path and its permissions"
        raise GraphcloneError(f"{path}: cannot be read: {_reason(error)}; {hint}") from error


def _leave_open(proto: ModelProto) -> None:
    """Make sizes below zero unknown ones, as runtimes do: older exporters write -1 for a size that varies."""
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_value < 0:
                size.Clear()


def _model(proto: ModelProto) -> onnx_ir.Model:
    inputs = {value.name for value in proto.graph.input}
    if any(tensor.name not in inputs for tensor in proto.graph.initializer):
        # Legal since version 4 only, but runtimes run older files that have such
        proto.ir_version = max(proto.ir_version, 4)
    for owner in (proto, *proto.functions):
        for entry in owner.opset_import:
            entry.domain = "" if entry.domain in OWN_DOMAIN else entry.domain  # onnx-ir does so in nodes only
    model = onnx_ir.from_proto(proto)
    if proto.training_info:
        model.meta[NOTES_KEY] = ["the training information of the file is not kept: onnx-ir has no place for it"]
    model.graph.sort()
    for function in model.functions.values():
        function.sort()
    for graph in model.graphs():
        for value in graph.initializers.values():
            if not value.is_graph_input():
                _describe(value)
    return model


def _describe(value: onnx_ir.Value) -> None:
    """Give an initializer the type and shape it has: value_info may say otherwise, and no runtime listens to it."""
    tensor = value.const_value
    assert tensor is not None
    value.type, value.shape = onnx_ir.TensorType(tensor.dtype), onnx_ir.Shape(tensor.shape.numpy())


def _reason(error: BaseException) -> str:
    """The first line of what happened first; onnx-ir's own errors print all that they were given."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {quoted(lines[0], 200)}"


# External data


@dataclass(frozen=True)
class _File:
    path: Path
    size: int


class _Folder:
    """Where the external data of a model may lie."""

    def __init__(self, model: Path) -> None:
        self.folder = model.parent
        self.real = {model.parent.resolve(), model.resolve().parent}
        self.files: dict[str, _File] = {}

    def file(self, location: str) -> _File:
        """What a location in the model means. Nothing is opened to find out.

        Raises:
            GraphcloneError: no such file, or it is not in the folder.
        """
        if location not in self.files:
            self.files[location] = self._resolved(location)
        return self.files[location]

    def _resolved(self, location: str) -> _File:
        relative, name = Path(location), quoted(location)
        if relative.anchor or ".." in relative.parts:
            raise GraphcloneError(f"external data {name} must be a path below the model's folder; export it again")
        try:
            real = Path(os.path.realpath(self.folder / relative, strict=True))
            if not any(real.is_relative_to(folder) for folder in self.real):
                hint = "put the file itself beside the model"
                raise GraphcloneError(f"external data {name} is a link that leads out of the model's folder; {hint}")
            status = real.stat()
        except (OSError, ValueError) as error:
            reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be found: {_reason(error)}"
            raise GraphcloneError(f"external data {name} {reason}; put it beside the model") from None
        if not S_ISREG(status.st_mode):
            raise GraphcloneError(f"external data {name} is no regular file; put it beside the model")
        return _File(real, status.st_size)


def _find_external_data(proto: ModelProto, model: Path) -> None:
    """Point every external tensor at the real file, which has been seen to hold it."""
    folder = _Folder(model)
    for where, tensor in tensors(proto):
        if tensor.data_location == TensorProto.EXTERNAL:
            try:
                _find(tensor, folder)
            except GraphcloneError as error:
                raise GraphcloneError(f"{where}: {error}") from None


def _find(tensor: TensorProto, folder: _Folder) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    file = folder.file(entries.get("location", ""))
    total = declared_bytes(tensor)
    offset = _number(entries.get("offset", "0"), "offset")
    length = _number(entries.get("length", str(total)), "length")
    if length != total:
        needs = f"its shape {shape_text(tensor)} needs {total}"
        raise GraphcloneError(f"its external data has {length} bytes, but {needs}; export it again")
    if offset + length > file.size:
        end = f"ends at byte {offset + length} of a file of {file.size}"
        raise GraphcloneError(f"its external data {end}; export or download it again")
    del tensor.external_data[:]
    if not total:  # an empty file cannot be mapped
        tensor.data_location, tensor.raw_data = TensorProto.DEFAULT, b""
        return
    # An absolute location, as onnx-ir would refuse one that is linked to from elsewhere
    for key, value in (("location", file.path), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def _number(text: str, what: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise GraphcloneError(f"the {what} of its external data is {quoted(text)}, not a number; export it again")
    return int(text)
