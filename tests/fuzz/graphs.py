"""Random programs: what goes in, what is done to it, what comes out."""

from __future__ import annotations

import warnings

import torch

from tests.fuzz.builder import Builder, Skip, Var, grows
from tests.fuzz.layers import LAYERS
from tests.fuzz.maths import MATHS, contracted
from tests.fuzz.program import Built, Program, reads
from tests.fuzz.shapes import SHAPES

MAKERS = {**LAYERS, **SHAPES, **MATHS}

STATEMENTS = (4, 14)
"""Fewest and most statements of a program."""

_ATTEMPTS, _FIRST = 400, 20


def program(seed: int) -> Program:
    """The program of a seed: it runs, and its outputs are finite."""
    for attempt in range(50):
        g = Builder(seed * 1000 + attempt)
        found = _grown(g)
        if found is not None and runs(found):
            return found
    raise AssertionError(f"seed {seed} makes no program")


def _grown(g: Builder) -> Program | None:
    give_inputs(g)
    makers, weights = list(MAKERS), list(MAKERS.values())
    wanted = g.rng.randint(*STATEMENTS)
    for _ in range(_FIRST):  # something that may grow comes early
        if g.step(g.rng.choices(list(LAYERS), list(LAYERS.values()))[0]):
            break
    for _ in range(_ATTEMPTS):
        if len(g.statements) >= wanted:
            break
        g.step(g.rng.choices(makers, weights)[0])
    return _returned(g)


def give_inputs(g: Builder) -> None:
    f = g.rng.choice([2, 3, 4, 6, *(w[0] for w in g.widths)])
    kinds = {
        f"torch.randn(B, {f})": 3,
        f"torch.randn(B, T, {f})": 4,
        f"torch.randn(B, {f}, T)": 1,
        f"torch.randn(B, {g.rng.choice([1, 2, 3, 4])}, 4, 4)": 3,
        f"torch.randn(B, {g.rng.choice([2, 3, 4])}, {g.rng.choice([4, 5, 6])}, T + 2)": 1,
        "torch.randint(0, 9, (B, T))": 4,
    }
    for code in g.rng.choices(list(kinds), list(kinds.values()), k=g.rng.choice([1, 1, 2])):
        g.give(code)
    if g.chance(0.25):
        g.give("torch.rand(B, T) > 0.3", keyword=g.chance(0.5))
    if g.chance(0.15):
        g.give(g.rng.choice(["True", "False", "2", "0.5"]), keyword=g.chance(0.5))
    g.given.sort(key=lambda given: given.keyword)


def _returned(g: Builder) -> Program | None:
    """What nothing reads is returned, most of it without its wide axes."""
    made = [v for v in g.vars if not v.given and v.kind == "f"]
    read = {name for s in g.statements for name in reads(s.text) - {s.target}}
    loose = [v for v in made if v.name not in read] or made[-1:]
    if not loose:
        return None
    outputs = [_output(g, v) for v in loose[-3:]]
    shape = (
        g.rng.choice(["tuple", "list", "dict", "nested"])
        if len(outputs) > 1
        else g.rng.choice(["one", "one", "tuple", "dict"])
    )
    return g.finish(outputs, shape)


def _output(g: Builder, var: Var) -> str:
    if g.chance(0.06) or not any(grows(size) for size in var.shape):
        return var.name
    try:
        return contracted(g, var)
    except Skip:
        return var.name


def runs(program: Program) -> bool:
    """Whether its outputs are finite and its inputs stay as they are."""
    try:
        built = Built(program)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            args, kwargs = built.inputs()
            out = torch.utils._pytree.tree_leaves(built.make()(*args, **kwargs))
            again, again_kwargs = built.inputs()
    except Exception:  # whatever torch says about code that does not fit
        return False
    given, fresh = (torch.utils._pytree.tree_leaves(x) for x in ((args, kwargs), (again, again_kwargs)))
    kept = all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(given, fresh, strict=True))
    return kept and all(torch.as_tensor(o).double().isfinite().all() for o in out)
