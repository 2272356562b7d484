"""Whether a clone computes what its source does: both are run, and nothing of the tool's own verification is used.

A clone's error counts as wrong only where it is neither rounding (1e-9 of the output's magnitude, in float64) nor what
the source itself makes of a change in the last bit of its weights and inputs: argmax ties, cancellation, chaos.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import graphclone as gc
from tests.fuzz.program import Built
from tests.fuzz.requests import Request

EXACT = 1e-9
"""Greatest error of a right clone, of the greatest magnitude of an output."""

EXPORTED = 1e-6
"""The same of files: torch's exporter rounds numbers in the code to float32."""

LAST_BITS = 1e-15
"""The relative change of weights and inputs that shows how well conditioned the source is."""

MARGIN = 1000.0
"""How many times the source's own movement a right clone may be off."""

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
Run = Callable[[Inputs], Any]


@dataclass(frozen=True)
class Verdict:
    """What came of a request.

    Attributes:
        kind: ``grown``, ``flat``, ``refused``, ``skipped``, ``crashed`` or ``wrong``.
        why: the error, or where and by how much it is wrong.
        narrow: why the clone refused inputs of other sizes, which it may.
        call: the call that was made.
    """

    kind: str
    why: str = ""
    narrow: tuple[str, ...] = ()
    call: str = ""

    @property
    def bad(self) -> bool:
        return self.kind in ("crashed", "wrong")


class Wrong(Exception):
    """The clone computes something else."""


class Crash(Exception):
    """The clone does not run where it must."""


def judged(built: Built, request: Request) -> Verdict:
    """Make one request and judge what comes of it."""
    verdict = _judged(built, request)
    changed = [name for name, tensor in built.source.state_dict().items() if not tensor.equal(built.weights[name])]
    return replace(verdict, kind="wrong", why=f"the source's own {', '.join(changed)} changed") if changed else verdict


def _judged(built: Built, request: Request) -> Verdict:
    made = request.code(request.factor)
    narrow: list[str] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind, made = _WAYS[request.way](built, request, narrow)
    except gc.GraphcloneError as error:
        return Verdict("refused", str(error), call=made)
    except Wrong as error:
        return Verdict("wrong", str(error), tuple(narrow), made)
    except Exception as error:  # a crash is any other, the module's own Crash too
        return Verdict("crashed", f"{type(error).__name__}: {str(error)[:500]}", tuple(narrow), made)
    return Verdict(kind, "", tuple(narrow), made)


# The ways


def _widened(built: Built, request: Request, narrow: list[str]) -> tuple[str, str]:
    source, (args, kwargs) = built.source, built.inputs()
    widths = request.widths(source, args, kwargs)
    clone = gc.clone(source, args, kwargs, **{request.keyword(): widths}, **request.options())
    module = clone.module()
    _compare(built, source, _running(source), _running(module), narrow)
    _asked(clone, request, widths)
    return _growth(source, clone.state_dict()), request.code(widths)


def _into(built: Built, request: Request, narrow: list[str]) -> tuple[str, str]:
    source, (args, kwargs) = built.source, built.inputs()
    big = _wider(built, request.factor)
    if big is None:
        return "skipped", request.code(None)
    clone = gc.clone(source, args, kwargs, into=big, **request.options())
    big.load_state_dict(clone.state_dict())
    _compare(built, source, _running(source), _running(big), narrow)
    _compare(built, source, _running(source), _running(clone.module()), narrow)
    return _growth(source, big.state_dict()), request.code(None)


def _wider(built: Built, factor: int) -> nn.Module | None:
    """The program at another width; None where its code does not run at that one."""
    try:
        big = built.make(factor)
        _running(big)(built.inputs())
    except Exception:  # whatever torch says about code that does not fit
        return None
    return big


def _out(built: Built, request: Request, narrow: list[str]) -> tuple[str, str]:
    source, (args, kwargs) = built.source, built.inputs()
    clone = gc.clone(source, args, kwargs, widen=request.factor, **request.options())
    with tempfile.TemporaryDirectory() as folder:
        narrow_file, wide_file = Path(folder, "narrow.onnx"), Path(folder, "wide.onnx")
        gc.clone(source, args, kwargs, widen=1).save_onnx(narrow_file)
        if _unsupported(narrow_file):
            return "skipped", ""
        clone.save_onnx(wide_file)
        _files(built, source, narrow_file, wide_file)
    return _growth(source, clone.state_dict()), request.code(request.factor)


def _file(built: Built, request: Request, narrow: list[str]) -> tuple[str, str]:
    source, (args, kwargs) = built.source, built.inputs()
    with tempfile.TemporaryDirectory() as folder:
        narrow_file, wide_file = Path(folder, "narrow.onnx"), Path(folder, "wide.onnx")
        gc.clone(source, args, kwargs, widen=1).save_onnx(narrow_file)
        if _unsupported(narrow_file):
            return "skipped", ""
        clone = gc.clone(narrow_file, widen=request.factor, **request.options())
        clone.save_onnx(wide_file)
        _files(built, source, narrow_file, wide_file)
        old = gc.clone(narrow_file, widen=1).state_dict()
    return _grown(old, clone.state_dict()), f"gc.clone('narrow.onnx', widen={request.factor}) after {request.code(1)}"


_WAYS: dict[str, Callable[[Built, Request, list[str]], tuple[str, str]]] = {
    "factor": _widened,
    "dims": _widened,
    "sizes": _widened,
    "into": _into,
    "onnx": _out,
    "file": _file,
}


# Running and comparing


def _running(module: nn.Module) -> Run:
    def run(inputs: Inputs) -> Any:
        args, kwargs = copy.deepcopy(inputs)
        with torch.no_grad():
            return module(*args, **kwargs)

    return run


def _compare(built: Built, source: nn.Module, old: Run, new: Run, narrow: list[str]) -> None:
    """Run both on the example, on the same again, on other values, and on other sizes."""
    for label, inputs in _probes(built):
        try:
            expected = old(inputs)
        except Exception:  # the user's own code does not take these sizes
            continue
        if not _finite(expected):
            continue
        try:
            found = new(inputs)
        except Exception as error:
            text = f"{label}: {type(error).__name__}: {str(error).strip()[:300]}"
            if "size" not in label:
                raise Crash(text) from error
            narrow.append(text)
            continue
        check(label, source, inputs, expected, found)


def _probes(built: Built) -> Iterator[tuple[str, Inputs]]:
    yield "the example", built.inputs()
    yield "the example again", built.inputs()
    yield "other values", built.inputs(seed=1)
    for sizes in built.program.probed[1:]:
        yield f"sizes {sizes}", built.inputs(sizes, seed=2)


def check(label: str, source: nn.Module, inputs: Inputs, expected: Any, found: Any, exact: float = EXACT) -> None:
    """Compare two results of one call.

    Args:
        label: of the call.
        source: the module that is cloned.
        inputs: of the call.
        expected: what the source returned.
        found: what the clone returned.
        exact: greatest error that needs no explanation.

    Raises:
        Wrong: they differ by more than the source's own conditioning explains.
    """
    old, old_form = pytree.tree_flatten(expected)
    new, new_form = pytree.tree_flatten(found)
    if old_form != new_form:
        raise Wrong(f"{label}: returns {new_form} and not {old_form}")
    errors = [_error(f"{label}, output {i}", y, z) for i, (y, z) in enumerate(zip(old, new, strict=True))]
    if not any(error > exact * _magnitude(y) for error, y in zip(errors, old, strict=True)):
        return
    moves = movement(source, inputs, LAST_BITS * exact / EXACT)
    for i, (error, move, y) in enumerate(zip(errors, moves, old, strict=True)):
        if error > exact * _magnitude(y) and error > MARGIN * move:
            raise Wrong(
                f"{label}, output {i}: off by {error:.2e} of {_magnitude(y):.2e}; the source moves by {move:.1e}"
            )


def _error(label: str, y: Any, z: Any) -> float:
    """Greatest absolute difference."""
    if not isinstance(y, Tensor) or not isinstance(z, Tensor):
        if y is not z and y != z:
            raise Wrong(f"{label}: {z!r} and not {y!r}")
        return 0.0
    if (y.shape, y.dtype) != (z.shape, z.dtype):
        raise Wrong(f"{label}: {z.dtype} of {tuple(z.shape)} and not {y.dtype} of {tuple(y.shape)}")
    if not z.numel():
        return 0.0
    difference = (y.double() - z.double()).abs()
    return float(difference.nan_to_num(nan=float("inf")).amax())


def _magnitude(y: Any) -> float:
    return float(y.double().abs().amax()) if isinstance(y, Tensor) and y.numel() else 0.0


def _finite(outputs: Any) -> bool:
    return all(bool(t.isfinite().all()) for t in pytree.tree_leaves(outputs) if isinstance(t, Tensor))


def movement(source: nn.Module, inputs: Inputs, change: float = LAST_BITS, draws: int = 4) -> list[float]:
    """How far each output of the source moves when its weights and inputs change by that much of themselves."""
    still = pytree.tree_leaves(_running(source)(inputs))
    moves = [0.0] * len(still)
    generator = torch.Generator().manual_seed(0)

    def shaken(t: Tensor) -> Tensor:
        noise = torch.randn(t.shape, generator=generator, dtype=torch.float64)
        return t * (1 + change * noise.to(t.dtype)) if t.is_floating_point() else t

    for _ in range(draws):
        moved = copy.deepcopy(source)
        with torch.no_grad():
            for tensor in moved.state_dict().values():
                tensor.copy_(shaken(tensor))
        leaves = pytree.tree_leaves(_running(moved)(pytree.tree_map_only(Tensor, shaken, copy.deepcopy(inputs))))
        moves = [max(m, _error("", y, z)) for m, y, z in zip(moves, still, leaves, strict=True)]
    return moves


# Growth


def _growth(source: nn.Module, wide: dict[str, Tensor]) -> str:
    return _grown(dict(source.state_dict()), wide)


def _grown(old: dict[str, Tensor], new: dict[str, Tensor]) -> str:
    """Whether some tensor really got bigger, and none went or shrank."""
    if old.keys() != new.keys():
        raise Wrong(f"the clone's state dict differs by {sorted(old.keys() ^ new.keys())[:5]}")
    for name, tensor in old.items():
        if len(tensor.shape) != new[name].ndim or any(
            a > b for a, b in zip(tensor.shape, new[name].shape, strict=True)
        ):
            raise Wrong(f"{name} went from {tuple(tensor.shape)} to {tuple(new[name].shape)}")
    return "grown" if any(t.numel() < new[name].numel() for name, t in old.items()) else "flat"


def _asked(clone: gc.Clone, request: Request, widths: Any) -> None:
    """A dim asked for by name grew as asked."""
    if isinstance(widths, int):
        return
    for group in (group for group in clone.dims if group.pin is None):
        asked = widths.get(group.name, group.size if request.way == "sizes" else 1)
        if set(clone.factors(group)) != {asked / Fraction(group.size) if request.way == "sizes" else asked}:
            raise Wrong(f"{group.name} of {group.size} grew by {clone.factors(group)}, and {asked} was asked")


# ONNX files


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _unsupported(path: Path) -> bool:
    """Whether ONNX Runtime cannot load a source's file: the exporter or a missing kernel is to blame, and no clone."""
    try:
        _session(path)
    except Exception:
        return True
    return False


def _files(built: Built, source: nn.Module, old: Path, new: Path) -> None:
    """Compare two files in ONNX Runtime; what the export itself changed of the source they share."""
    first, second = _session(old), _session(new)
    for label, inputs in list(_probes(built))[:4]:
        try:
            plain, expected = _running(source)(inputs), _ran(first, built, inputs)
        except Exception:  # sizes the source's own file does not take
            continue
        if _finite(plain) and _finite(expected):
            check(f"{label} in ONNX Runtime", source, inputs, expected, _ran(second, built, inputs), EXPORTED)


def _ran(session: onnxruntime.InferenceSession, built: Built, inputs: Inputs) -> list[Tensor]:
    args, kwargs = inputs
    names = [given.name for given in built.program.given]
    by_name = dict(zip(names, (*args, *kwargs.values()), strict=True))
    feeds = {port.name: by_name[port.name].numpy() for port in session.get_inputs()}
    return [torch.from_numpy(found) for found in session.run(None, feeds)]
