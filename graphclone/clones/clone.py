"""A clone, and the format that says how it is written and verified; the formats themselves are handed in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch

from graphclone.analysis.dims import Group
from graphclone.clones.summary import factors
from graphclone.clones.traced import Traced
from graphclone.errors import GraphcloneError
from graphclone.graph.ir import Value
from graphclone.optimizers.kinds import kind_of
from graphclone.optimizers.optimizers import is_by_name, named_state, param_groups
from graphclone.optimizers.optimizers import state_dict as state_dict_of
from graphclone.optimizers.parameters import Parameters
from graphclone.optimizers.states import Inexact, Rule, grown
from graphclone.runtime.tensors import lazily_widened, state_dict
from graphclone.verification.steps import Options

if TYPE_CHECKING:
    from graphclone.progress import Progress
    from graphclone.runtime.sessions import Provider
    from graphclone.verification.checks import Report


Writer = Callable[["Clone", Path], None]
"""Writes a clone to a path, whole or not at all.

It raises ``GraphcloneError`` where the format cannot hold the clone, or the path not be written to.
"""


Verifier = Callable[["Clone", "Options"], "Report"]
"""Compares a clone with its source.

It raises ``GraphcloneError`` where the source cannot be run. What is wrong with the clone is in the report.
"""


@dataclass(frozen=True)
class Format:
    """The abilities of the clones of one kind of source.

    Attributes:
        source: what they are clones of, with its article.
        writers: by the suffix of the path they write to; that of folders is empty.
        verifier: compares a clone with its source.
        module: makes a torch module of a clone; None where there is none.
    """

    source: str
    writers: Mapping[str, Writer]
    verifier: Verifier
    module: Callable[[Clone], torch.fx.GraphModule] | None = None

    def writer(self, path: Path) -> Writer:
        """The writer that the suffix of a path asks for.

        Raises:
            GraphcloneError: there is none.
        """
        if path.suffix not in self.writers:
            suffixes = [suffix or "a folder" for suffix in self.writers]
            raise GraphcloneError(f"{path}: a clone of {self.source} can be written as {', '.join(suffixes)} only")
        return self.writers[path.suffix]


@final
@dataclass(frozen=True, repr=False)
class Clone(Traced):
    """A bigger model that computes what its source computes. Nothing is computed before it is asked for.

    Attributes:
        state: the widened graph, with the source's graph as ``state.source``.
        timings: how long each pass took, in seconds.
        format: how a clone of this kind of source is written and verified.

    Examples:
        >>> clone.module()(x).shape
        torch.Size([3, 2])
        >>> clone.verify(onnx=False).verdict
        'equivalent'
    """

    format: Format

    def factors(self, group: Group) -> tuple[int | Fraction, ...]:
        """By how much every dim of a group grew."""
        return factors(self.state, group)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The widened tensors under the source's names. Tied tensors share their storage.

        They are those of ``module()``, whose code has the numbers of the source. A wider instance of a class that
        computes numbers from its widths, such as ``x * hidden ** 0.5``, wants others: clone with ``into=`` for that.
        """
        return state_dict(self.state)

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The entries of ``state_dict()``, one at a time. Each is made when it is asked for, and then forgotten."""
        lazy = lazily_widened(self.state, lambda initializer: initializer.read().detach())
        for initializer in self.graph.initializers:
            if initializer.kind != "constant":
                tensor = lazy[initializer.value]
                yield from ((name, tensor) for name in initializer.names)

    def module(self) -> torch.fx.GraphModule:
        """The widened model as a trainable module in eval mode. It is called as the source is.

        The module raises ``InputError``, a ``ValueError``, for inputs that the trace does not hold for. What a trace
        leaves open, runs of the source tell, once.

        Raises:
            GraphcloneError: the source is not a module, or computes something else than its trace.
        """
        if self.format.module is None:
            raise GraphcloneError(f"{self.graph.name}: a clone of {self.format.source} has no torch module; save it")
        return self.format.module(self)

    @cached_property
    def parameters(self) -> Parameters:
        """The parameters of the clone: how their gradients and shapes follow from the source's."""
        return Parameters.of(self.state)

    def optimizer_state_dict(
        self,
        state: Mapping[str, Any],
        optimizer: str | type = "AdamW",
        *,
        names: Sequence[str] | None = None,
        rule: Rule = "function",
        inexact: Inexact = "refuse",
    ) -> dict[str, Any]:
        """The state of an optimizer of the source, grown to the clone's parameters.

        Args:
            state: what ``state_dict()`` of the optimizer gives; or a state by names, as distributed checkpoints have
                it.
            optimizer: the class of the optimizer, or its name.
            names: the names of the parameters in the order of the optimizer's groups, if the state does not have them.
                By default they are the source's, in the order of ``named_parameters()``.
            rule: ``function`` splits groups, so that the function moves as the source's does; ``same`` keeps groups,
                rates and weight decays. See ``graphclone.grow_optimizer``.
            inexact: as for ``graphclone.grow_optimizer``.

        Returns:
            A state in the form of the one given. Parameters are numbered in the order of its groups.

        Raises:
            GraphcloneError: a parameter does not fit, or its state cannot grow. The error names the first one.
        """
        entries, groups = named_state(state, names, self.parameters.order)
        result = grown(self.parameters, kind_of(optimizer), entries, groups, rule=rule, inexact=inexact)
        return state_dict_of(result, by_name=is_by_name(state))

    def param_groups(
        self,
        module: torch.nn.Module,
        optimizer: str | type = "AdamW",
        *,
        rule: Rule = "function",
        **options: float,
    ) -> list[dict[str, Any]]:
        """The trainable parameters of the clone in groups, for an optimizer that begins without a state.

        Args:
            module: ``module()``, or the module that was cloned ``into``.
            optimizer: the class that the groups are for, or its name.
            rule: ``function`` gives each group the rates at which the function moves as the source's does; ``same``
                leaves the options as they are. See ``graphclone.grow_optimizer``.
            options: the options of the source's optimizer, such as ``lr``, ``weight_decay`` and ``eps``.

        Raises:
            GraphcloneError: the module is not the clone's, or no single rate suits a parameter.
        """
        return param_groups(self.parameters, module, kind_of(optimizer), options, rule)

    def save(self, path: str | Path) -> None:
        """Write the widened model. The suffix of the path says as what:

        - ``.pt2``: an exported program, which ``torch.export.load`` reads with no other library. What the source
          returns in a class of its own, it returns as a dict of the fields.
        - ``.onnx``: an ONNX file. Weights of more than 1.9 GB together go to ``<name>.data`` beside it.
        - ``.safetensors``: the state dict.
        - no suffix: the folder of a checkpoint.

        Raises:
            GraphcloneError: a clone of this source has no such form, or the path cannot be written to.
        """
        self.format.writer(Path(path))(self, Path(path))

    def save_onnx(self, path: str | Path) -> None:
        """Write the widened model as ONNX, whatever the suffix; see ``save``.

        Raises:
            GraphcloneError: it cannot be exported to ONNX, or the path not be written to.
        """
        self.format.writer(Path("model.onnx"))(self, Path(path))

    def verify(
        self,
        *,
        provider: Provider = "auto",
        onnx: bool | str | Path = True,
        exact: bool = True,
        sets: int = 3,
        seed: int = 0,
        tensors: Mapping[Value, torch.Tensor] | None = None,
        progress: Progress | None = None,
    ) -> Report:
        """Check that source and clone compute the same.

        Args:
            provider: what ONNX Runtime runs on: ``cpu``, ``cuda``, or ``auto``, which is CUDA if there is a GPU.
            onnx: whether to run both in ONNX Runtime; or the path of the file that the clone was written to.
            exact: whether to compare all values in float64.
            sets: the number of input sets. The example inputs are one of them.
            seed: of the random input sets.
            tensors: the data of the clone's weights, if they are not what its recipes give.
            progress: a callback that is told how many steps are done.

        Returns:
            The report, with one check for each comparison. A wrong clone is no error: the report says so.

        Raises:
            GraphcloneError: the source cannot be run, for example because it was traced without weights; the
                ``provider`` is not installed; or ``onnx`` is not there.
        """
        file = onnx if isinstance(onnx, bool) else Path(onnx)
        if isinstance(file, Path) and not file.is_file():
            raise GraphcloneError(f"{file}: no such file")
        return self.format.verifier(self, Options(provider, file, exact, sets, seed, tensors, progress))
