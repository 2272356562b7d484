"""What ONNX Runtime cannot run of onnx's own tests, or runs as onnx does not: by operator and by what it raises."""

from __future__ import annotations

from dataclasses import dataclass

from onnxruntime.capi import onnxruntime_pybind11_state as codes

from tests.support.rule_property import Disproved

NEWEST = 23
"""The opset whose operators ONNX Runtime has kernels for; later ones differ in types, mostly."""

ERRORS = (
    codes.Fail,
    codes.InvalidArgument,
    codes.InvalidGraph,
    codes.NotImplemented,
    codes.RuntimeException,
    RuntimeError,
    ValueError,
    IndexError,
)
"""What ONNX Runtime and onnx's reference implementation raise where operands do not fit an operator."""


@dataclass(frozen=True)
class Gap:
    """Operators of which some tests fail alike.

    Attributes:
        error: exactly what is raised.
        ops: by name.
        why: what ONNX Runtime lacks, or does otherwise.
        opsets: those in which they fail.
    """

    error: type[Exception]
    ops: frozenset[str]
    why: str
    opsets: range


def _gap(error: type[Exception], why: str, ops: str, opsets: range = range(1, 100)) -> Gap:
    return Gap(error, frozenset(ops.split()), why, opsets)


GAPS = (
    _gap(
        codes.NotImplemented,
        "has no kernel of opset 6",
        "Add BatchNormalization Div Dropout Equal Mul PRelu Sub",
        range(1, 7),
    ),
    _gap(codes.NotImplemented, "has no kernel of opset 22", "GlobalLpPool", range(22, 100)),
    _gap(
        codes.NotImplemented,
        "has no kernel for the type",
        "BitShift Cast CastLike DequantizeLinear Max Min Pow QuantizeLinear RoiAlign TopK",
    ),
    _gap(codes.NotImplemented, "has no kernel for what the operator is made of", "Attention Bernoulli"),
    _gap(
        codes.InvalidGraph,
        "does not know the operator yet",
        "BitCast CausalConvWithState CumProd LinearAttention SwiGLU Swish TensorScatter",
    ),
    _gap(codes.InvalidGraph, "does not know the attribute yet", "Attention SpaceToDepth"),
    _gap(
        codes.InvalidGraph,
        "does not know the type yet",
        "BitShift Cast CastLike Celu Compress DequantizeLinear Einsum OneHot QuantizeLinear Range ReverseSequence "
        "Unique",
    ),
    _gap(RuntimeError, "takes no arrays of the type", "Cast CastLike DequantizeLinear QuantizeLinear"),
    _gap(codes.Fail, "has no layout in which the batch comes first", "GRU LSTM RNN"),
    _gap(codes.Fail, "takes floats only if fmod is set", "Mod"),
    _gap(codes.Fail, "takes one zero point only", "ConvInteger"),
    _gap(codes.Fail, "needs the locale on the machine", "StringNormalizer"),
    _gap(codes.Fail, "mixes the types of what the operator is made of", "Attention"),
    _gap(codes.RuntimeException, "does not reduce nothing at all", "ReduceMax"),
    _gap(Disproved, "returns the scores before it masks them", "Attention"),
    _gap(Disproved, "returns floats of eight bits as the bytes they are", "Cast"),
    _gap(Disproved, "draws, or returns a mask of the kind of later opsets", "Dropout"),
    _gap(Disproved, "puts elements where the pooled image has them", "MaxUnpool"),
    _gap(Disproved, "takes the rounded size for the scale", "Resize"),
)


def gap(op: str, opset: int, error: Exception) -> Gap | None:
    """The gap in the list that an error of an operator comes from; None if it is a defect of whoever asked."""
    return next((g for g in GAPS if op in g.ops and opset in g.opsets and type(error) is g.error), None)
