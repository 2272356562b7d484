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
    """What can be done with the clones of one kind of source.

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
    """A widened model. Nothing is computed before it is asked for.

    Attributes:
        state: the widened graph, with the source's graph as ``state.source``.
        timings: of the passes.
        format: what it is written and verified by.
    """

    format: Format

    def factors(self, group: Group) -> tuple[int | Fraction, ...]:
        """By how much every dim of a group grew."""
        return factors(self.state, group)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The widened tensors under the source's names; tied ones share their storage."""
        return state_dict(self.state)

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The entries of ``state_dict()`` one by one, each made when it is asked for and held by nobody else."""
        lazy = lazily_widened(self.state, lambda initializer: initializer.read().detach())
        for initializer in self.graph.initializers:
            if initializer.kind != "constant":
                tensor = lazy[initializer.value]
                yield from ((name, tensor) for name in initializer.names)

    def module(self) -> torch.fx.GraphModule:
        """The widened model as a trainable module in eval mode, called as the source is.

        It refuses inputs that the trace does not hold for (``InputError``, a ``ValueError``). Where the code asks
        whether a size is 1, the source is run once on such inputs, to see whether it does.

        Raises:
            GraphcloneError: it is the clone of no module.
        """
        if self.format.module is None:
            raise GraphcloneError(f"{self.graph.name}: a clone of {self.format.source} has no torch module; save it")
        return self.format.module(self)

    @cached_property
    def parameters(self) -> Parameters:
        """How the gradients of its parameters, and their sizes, follow from the source's."""
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
        """The state of an optimizer of the source, grown to one over the clone's parameters.

        Args:
            state: what ``state_dict()`` of the optimizer gives, or one by names as distributed checkpoints have it.
            optimizer: its class, or the name of that.
            names: of the parameters, in the order of the optimizer's groups, where the state does not say them; if
                they are not given, those of the source in the order of ``named_parameters()``.
            rule: ``function`` splits groups, so that the function moves as the source's does; ``same`` keeps groups,
                rates and weight decays. See ``graphclone.grow_optimizer``.
            inexact: as for ``graphclone.grow_optimizer``.

        Returns:
            A state in the form of the one given; numbers of parameters count them in the order of its groups.

        Raises:
            GraphcloneError: naming the first parameter that does not fit, or whose state cannot be grown.
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
            module: ``module()``, or the module cloned into.
            optimizer: the class that the groups are for, or its name.
            rule: ``function`` gives every group the rates at which the function moves as the source's does; ``same``
                leaves the options as they are. See ``graphclone.grow_optimizer``.
            options: of the source's optimizer, such as ``lr``, ``weight_decay`` and ``eps``.

        Raises:
            GraphcloneError: the module is not the clone's, or no one rate suits a parameter.
        """
        return param_groups(self.parameters, module, kind_of(optimizer), options, rule)

    def save(self, path: str | Path) -> None:
        """Write the widened model in the form that the suffix says: ``.onnx``, ``.pt2``, ``.safetensors``, a folder.

        ``.pt2`` is an exported program; ``.onnx`` has its weights in ``<name>.data`` beside it where they are too many
        for one file; ``.safetensors`` is the state dict. A checkpoint becomes a folder.

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
        onnx: bool | Path = True,
        exact: bool = True,
        sets: int = 3,
        seed: int = 0,
        tensors: Mapping[Value, torch.Tensor] | None = None,
        progress: Progress | None = None,
    ) -> Report:
        """Check that source and clone compute the same.

        Args:
            provider: what ONNX Runtime runs on; ``auto`` is CUDA where there is a GPU.
            onnx: whether to run both in ONNX Runtime, or the file that the clone has been written to.
            exact: whether to compare all values in float64.
            sets: how many input sets, the example included.
            seed: of the random ones.
            tensors: the data of the clone's initializers where they are not those of its recipes.
            progress: told how far it is.

        Raises:
            GraphcloneError: the source cannot be run, for one because it was traced without weights, or ``provider``
                is not there. What is wrong with the clone is in the report.
        """
        return self.format.verifier(self, Options(provider, onnx, exact, sets, seed, tensors, progress))
