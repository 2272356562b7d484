"""The states of optimizers on disk: files of ``torch.save``, and folders of ``torch.distributed.checkpoint`` (DCP).

A folder holds a state by the names of parameters, in one of two layouts: ``state.NAME.exp_avg`` beside the options of
every group, ``param_groups.0.lr``, or beside those of every parameter, ``param_groups.NAME.lr``, as FSDP flattens it.
It may lie within a larger state dict, under ``optimizer`` say.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.planner import ReadItem
from torch.distributed.checkpoint.state_dict_saver import save

from graphclone.errors import GraphcloneError, first_line
from graphclone.formats.torch.dcp import Reader
from graphclone.optimizers.kinds import Kind, kind_of_entries
from graphclone.optimizers.optimizers import named_state, state_dict
from graphclone.optimizers.parameters import Parameters
from graphclone.optimizers.states import Grown, grown
from graphclone.runtime.quiet import quiet

_STATE, _GROUPS = "state", "param_groups"
_PARAMS = "params"
_OPTIMIZER = "optimizer"


@dataclass(frozen=True)
class Layout:
    """The layout of a state in a folder.

    Attributes:
        within: the keys of the larger state dict that lead to it.
        by_parameter: whether the options of a group are listed for every parameter.
    """

    within: Sequence[str] = ()
    by_parameter: bool = False

    def tree(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """A state by names as the dict that DCP saves."""
        tree = dict(_by_parameter(state)) if self.by_parameter else dict(state)
        for key in reversed(self.within):
            tree = {key: tree}
        return tree


@dataclass(frozen=True)
class Stored:
    """A state that has been read.

    Attributes:
        state: as ``state_dict()`` of an optimizer gives it, its parameters by number or by name.
        layout: of its folder; None for a file.
    """

    state: Mapping[str, Any]
    layout: Layout | None = None

    @property
    def kind(self) -> Kind:
        """The kind of the optimizer, by what it keeps.

        Raises:
            GraphcloneError: how that grows is not known.
        """
        entries = (entry.items() for entry in self.state[_STATE].values())
        return kind_of_entries({key for items in entries for key, value in items if value is not None})

    def grown(self, parameters: Parameters, kind: Kind, names: Sequence[str] | None = None) -> Grown:
        """The state over the parameters of a clone, in the same groups at the same rates.

        Args:
            parameters: of source and clone.
            kind: of the optimizer.
            names: of the parameters, in the order of the groups, where neither the state says them nor they are those
                of ``named_parameters()``.

        Raises:
            GraphcloneError: naming the first parameter that does not fit, or whose state cannot be grown.
        """
        entries, groups = named_state(self.state, names, parameters.order)
        return grown(parameters, kind, entries, groups, rule="same")

    def beside_a_model(self, result: Grown) -> dict[str, Any]:
        """A grown state as DCP saves it with the model that it belongs to, by names and in the layout of this one."""
        layout = Layout((_OPTIMIZER,), self.layout is not None and self.layout.by_parameter)
        return layout.tree(state_dict(result, by_name=True))

    def write(self, state: Mapping[str, Any], path: Path) -> None:
        """Write another state as this one has been."""
        if self.layout is None:
            torch.save(state, path)
            return
        with quiet():
            save(self.layout.tree(state), checkpoint_id=path, no_dist=True)


def read_state(path: Path) -> Stored:
    """The state of an optimizer in a file or a folder, of which nothing but tensors and plain values is unpickled.

    Raises:
        GraphcloneError: there is none, or it cannot be read so.
    """
    if path.is_dir():
        return _from_folder(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise GraphcloneError(f"{path}: there is no such file") from None
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise GraphcloneError(f"{path}: cannot be read as the state of an optimizer: {first_line(error)}") from error
    return Stored(_checked(path, state))


def _checked(path: Path, state: Any) -> Mapping[str, Any]:
    """What has been read, if it is the state of an optimizer."""
    whole = isinstance(state, Mapping) and isinstance(state.get(_STATE), Mapping)
    if whole and all(isinstance(entry, Mapping) for entry in state[_STATE].values()):
        groups = state.get(_GROUPS)
        if isinstance(groups, list) and all(
            isinstance(g, Mapping) and isinstance(g.get(_PARAMS), list) for g in groups
        ):
            return cast("Mapping[str, Any]", state)
    raise GraphcloneError(
        f"{path}: is no state of an optimizer, which has a '{_STATE}' of parameters and '{_GROUPS}' with '{_PARAMS}'"
    )


# Folders


def _from_folder(path: Path) -> Stored:
    reader = Reader(path)
    described = reader.described()
    prefix = _prefix(path, described)
    kept = (f"{prefix}{_STATE}.", f"{prefix}{_GROUPS}.")
    wanted = {name: _empty(entry) for name, entry in described.items() if name.startswith(kept)}
    planner = _Planner()
    reader.fill(wanted, planner)
    wanted |= planner.plain
    options = _under(wanted, f"{prefix}{_GROUPS}.")
    by_parameter = not any(re.fullmatch(rf"\d+\.{_PARAMS}", rest) for rest in options)
    groups = _groups_by_parameter(options) if by_parameter else _groups(options)
    numbered = any(isinstance(key, int) for group in groups for key in group.get(_PARAMS, ()))
    entries: dict[Any, dict[str, Any]] = {}
    for rest, value in _under(wanted, f"{prefix}{_STATE}.").items():
        name, _, key = rest.rpartition(".")
        entries.setdefault(int(name) if numbered else name, {})[key] = value
    within = prefix.rstrip(".").split(".") if prefix else ()
    return Stored(_checked(path, {_STATE: entries, _GROUPS: groups}), Layout(tuple(within), by_parameter))


def _empty(entry: Any) -> Any:
    """What an entry of a checkpoint is read into."""
    if isinstance(entry, TensorStorageMetadata):
        return torch.empty(entry.size, dtype=entry.properties.dtype)
    return entry


def _prefix(path: Path, names: Iterable[str]) -> str:
    """What stands before the names of a state in a checkpoint.

    Raises:
        GraphcloneError: there is no state of an optimizer, or there are several.
    """
    split = (f".{name}".partition(f".{_GROUPS}.") for name in names)
    found = list(dict.fromkeys(f"{before}.".removeprefix(".") for before, dotted, _ in split if dotted))
    if not found:
        raise GraphcloneError(f"{path}: holds no state of an optimizer: nothing in it is called {_GROUPS}")
    if len(found) > 1:
        raise GraphcloneError(f"{path}: holds the states of several optimizers: {', '.join(found)}")
    return found[0]


def _under(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _groups(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    groups: dict[int, dict[str, Any]] = {}
    for rest, value in options.items():
        place, _, key = rest.partition(".")
        groups.setdefault(int(place), {})[key] = value
    return [groups[place] for place in sorted(groups)]


def _groups_by_parameter(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A group of every parameter's own."""
    groups: dict[str, dict[str, Any]] = {}
    for rest, value in options.items():
        name, _, key = rest.rpartition(".")
        groups.setdefault(name, {})[key] = value
    return [{**group, _PARAMS: [name]} for name, group in groups.items()]


def _by_parameter(state: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, entry in state[_STATE].items():
        yield from ((f"{_STATE}.{name}.{key}", value) for key, value in entry.items())
    for group in state[_GROUPS]:
        for name in group[_PARAMS]:
            yield from ((f"{_GROUPS}.{name}.{key}", value) for key, value in group.items() if key != _PARAMS)


class _Planner(DefaultLoadPlanner):
    """Reads the tensors of a flat state dict into it, and unpickles nothing else but plain values, which it keeps."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False)
        self.plain: dict[str, Any] = {}

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        self.plain[read_item.dest_index.fqn] = torch.load(value, map_location="cpu", weights_only=True)
