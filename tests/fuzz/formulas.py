"""Code of one line: what is done to a variable {0}, and to another one {1} or along an axis {1}."""

from __future__ import annotations

UNARY = (
    "torch.relu({0})", "{0}.tanh()", "F.gelu({0})", "F.gelu({0}, approximate='tanh')", "F.silu({0})", "{0}.sigmoid()",
    "{0}.sin()", "{0}.cos()", "F.softplus({0})", "F.elu({0})", "F.hardswish({0})", "F.mish({0})", "{0}.abs()", "-{0}",
    "{0}.neg()", "{0}.square()", "{0} ** 2", "{0}.pow(3) * 0.1", "torch.exp(-{0}.abs())", "({0}.abs() + 0.1).log()",
    "({0}.abs() + 0.1).sqrt()", "torch.rsqrt({0}.square() + 0.5)", "1 / ({0}.abs() + 1)",
    "({0}.square() + 1).reciprocal()", "torch.erf({0})", "{0}.clamp(-1, 1)", "{0}.clamp(min=0)",
    "torch.clamp({0}, max=0.5)", "F.hardtanh({0})", "F.relu6({0})", "F.leaky_relu({0}, 0.2)",
    "F.threshold({0}, 0.1, 0)", "F.softsign({0})", "F.logsigmoid({0})", "torch.sign({0})", "{0}.floor()", "{0} * 2",
    "{0} / 3", "{0} + 1", "1 - {0}", "{0} - 0.5", "0.5 * {0}", "torch.atan({0})", "F.tanhshrink({0})",
    "F.softshrink({0}, 0.2)", "F.hardshrink({0}, 0.2)", "{0}.expm1()", "{0}.abs().log1p()", "torch.nan_to_num({0})",
    "F.dropout({0}, 0.5, training=False)", "{0}.to(torch.float64)", "{0}.clone()", "{0}.detach()", "{0}.contiguous()",
    "torch.positive({0})", "{0}.type_as({0})", "torch.heaviside({0}, torch.zeros(1))", "{0}.round()", "{0}.double()",
    "torch.celu({0})", "F.selu({0})", "{0}.abs().pow(1.5)", "torch.logit({0}.sigmoid())", "{0}.sinh()",
    "{0}.remainder(0.7)", "({0} + 0.3).frac()", "torch.sinc({0})", "{0}.fmod(0.9)", "{0}.trunc()",
    "torch.copysign({0}, {0}.sin())",
)  # fmt: skip
"""Code of one operand."""

BINARY = (
    "{0} + {1}", "{0} + {1}", "{0} - {1}", "{0} * {1}", "{0} * {1}", "{0} * {1}.sigmoid()", "{0} / ({1}.abs() + 0.5)",
    "torch.maximum({0}, {1})", "torch.minimum({0}, {1})", "torch.where({0} > 0, {0}, {1})",
    "torch.where({0} > {1}, {0}, {1} * 0.5)", "torch.add({0}, {1}, alpha=0.3)", "torch.sub({0}, {1}, alpha=2)",
    "torch.rsub({0}, {1})", "torch.lerp({0}, {1}, 0.3)", "torch.addcmul({0}, {0}, {1}, value=0.5)",
    "torch.addcdiv({0}, {0}, {1}.abs() + 1, value=0.5)", "torch.atan2({0}, {1}.abs() + 0.5)", "torch.hypot({0}, {1})",
    "({0}, {1})[0] + ({1}, {0})[0]", "torch.logaddexp({0}, {1})", "sum([{0}, {1}])", "F.silu({0}) * {1}",
    "({0} > {1}).to({0}.dtype)", "{0}.masked_fill({1} > 0, 0)", "{0}.masked_fill({1} > 0.5, -1.5)",
    "torch.where({1} > 0, {0}, 0.0)", "torch.mul({0}, {1})", "torch.ldexp({0}, ({1} > 0).long())", "{0} + {1}.mean()",
    "{0} * {1}.sum()  * 0.1", "{0} - {1}.amax()", "F.cosine_similarity({0}, {1}, dim=-1)", "torch.dist({0}, {1})",
    "torch.cdist({0}, {1})", "{0} @ {1}.mT @ {0} * 0.1",
)  # fmt: skip
"""Code of two operands of one shape."""

ALONG = (
    "{0}.softmax({1})", "{0}.softmax({1})", "{0}.log_softmax({1})", "F.softmin({0}, {1})", "{0}.logsumexp({1})",
    "torch.logsumexp({0}, {1}, keepdim=True)", "{0}.mean({1})", "{0}.mean({1}, keepdim=True)", "{0}.sum({1})",
    "{0}.sum({1}, keepdim=True)", "{0} - {0}.mean({1}, keepdim=True)",
    "{0} / ({0}.abs().sum({1}, keepdim=True) + 0.1)", "{0}.var({1})", "{0}.std({1}, keepdim=True)",
    "{0}.var({1}, unbiased=False)", "torch.var_mean({0}, {1}, correction=0)[0]", "torch.std_mean({0}, dim={1})[0]",
    "{0}.norm(dim={1})", "{0}.norm(p=1, dim={1}, keepdim=True)", "torch.linalg.vector_norm({0}, ord=3, dim={1})",
    "torch.linalg.norm({0}, dim={1})", "{0}.amax({1})", "{0}.amin({1}, keepdim=True)", "{0}.max({1})[0]",
    "{0}.max({1}, keepdim=True).values", "{0}.min({1}).values", "{0}.cumsum({1})", "{0}.sort({1})[0]",
    "{0}.sort({1}, descending=True).values", "{0}.argsort({1}).double()", "{0}.argmax({1}).double()",
    "{0}.topk(1, {1})[0]", "{0}.prod({1})", "{0}.median({1})[0]", "({0} > 0).any({1}).double()",
    "({0} > 0).sum({1}).double()", "({0} > -9).all({1}).double()", "{0}.cummax({1})[0]",
    "{0}.flip({1}).cumsum({1}).flip({1})", "F.normalize({0}, dim={1})", "{0} - {0}.max({1}, keepdim=True).values",
    "{0} - {0}.logsumexp({1}, keepdim=True)", "torch.renorm({0}, 2, {1}, 1.0)", "{0}.nansum({1})",
    "F.normalize({0}, p=1, dim={1})", "{0}.aminmax(dim={1})[1]", "{0}.logcumsumexp({1})", "{0}.kthvalue(1, {1})[0]",
    "torch.count_nonzero({0}, {1}).double()", "F.glu({0}, {1})", "F.glu({0}, {1})", "{0}.cumprod({1})",
    "{0}.exp().mean({1}).log()",
)  # fmt: skip
"""Code along an axis."""

OVER_ALL = (
    "{0} / ({0}.abs().mean() + 0.1)", "{0} - {0}.mean()", "{0} * {0}.sum().tanh()", "{0} / ({0}.norm() + 0.1)",
    "{0} * {0}.std()", "{0} - {0}.amax()", "{0} * {0}.mean((0, 1), keepdim=True)",
    "{0}.var((-2, -1), keepdim=True) + {0}", "{0} + {0}.mean((-1, -2), keepdim=True).tanh()",
    "{0}.sum((0, -1), keepdim=True).tanh() * {0}", "{0} + {0}.flatten(1).mean(1).mean()",
    "F.layer_norm({0}, {0}.shape[1:])", "{0} * {0}.max()", "{0} * {0}.numel() / 100",
    "torch.amax({0}, (0, -1), keepdim=True) + {0}", "{0} - {0}.logsumexp((-2, -1), keepdim=True)",
)  # fmt: skip
"""Code over several axes."""
