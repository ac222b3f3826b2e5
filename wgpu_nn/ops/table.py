"""The vocabulary: every primitive op, a row each."""

from __future__ import annotations

from wgpu_nn.dtype import Bool, Float, Int
from wgpu_nn.ops import rules, rules_attention, rules_conv, rules_norm, rules_order
from wgpu_nn.ops.spec import Category, register

SOURCE, MAP, REDUCE, VIEW, ROUTINE = Category
ANY = rules.ANY

register("full", SOURCE, 1, rules.full)
register("arange", SOURCE, 2, rules.source(Int))  # start, step
register("uniform", SOURCE, 2, rules.source(Float))  # seed, stream
register("normal", SOURCE, 2, rules.source(Float))

for name in ("exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "recip", "sin", "cos", "tan", "tanh", "sigmoid", "erf"):
    register(name, MAP, 1, rules.elementwise(Float))
for name in ("asin", "acos", "atan", "sinh", "cosh", "floor", "ceil", "round"):
    register(name, MAP, 1, rules.elementwise(Float))
for name in ("neg", "abs", "sign", "relu"):
    register(name, MAP, 1, rules.elementwise(Float, Int))
for name in ("is_nan", "is_inf"):
    register(name, MAP, 1, rules.elementwise(Float, result=Bool))
register("logical_not", MAP, 1, rules.elementwise(Bool))
register("cast", MAP, 1, rules.cast_to)

for name in ("add", "sub", "mul", "maximum", "minimum", "remainder", "floor_div"):
    register(name, MAP, 2, rules.elementwise(Float, Int))
for name in ("div", "pow", "atan2"):
    register(name, MAP, 2, rules.elementwise(Float))
for name in ("eq", "ne"):
    register(name, MAP, 2, rules.elementwise(*ANY, result=Bool))
for name in ("lt", "le", "gt", "ge"):
    register(name, MAP, 2, rules.elementwise(Float, Int, result=Bool))
for name in ("logical_and", "logical_or", "logical_xor"):
    register(name, MAP, 2, rules.elementwise(Bool))
register("where", MAP, 3, rules.where)

register("sum", REDUCE, 1, rules.reduction(Float, Int))
register("prod", REDUCE, 1, rules.reduction(Float, Int))
register("mean", REDUCE, 1, rules.reduction(Float))
register("logsumexp", REDUCE, 1, rules.reduction(Float))
register("moments", REDUCE, 1, rules_norm.moments)  # means, and squared deviations over n - correction
register("max", REDUCE, 1, rules.reduction(Float, Int, identity=False))
register("min", REDUCE, 1, rules.reduction(Float, Int, identity=False))
register("any", REDUCE, 1, rules.reduction(Bool))
register("all", REDUCE, 1, rules.reduction(Bool))
register("argmax", REDUCE, 1, rules.reduction(Float, Int, result=Int, identity=False))  # first of equals, one axis
register("argmin", REDUCE, 1, rules.reduction(Float, Int, result=Int, identity=False))

register("reshape", VIEW, 1, rules.reshape)
register("permute", VIEW, 1, rules.permute)
register("expand", VIEW, 1, rules.expand)
register("slice", VIEW, 1, rules.strided_slice)

register("slice_assign", ROUTINE, 2, rules.slice_assign)  # x with a region replaced by value
register("cat", ROUTINE, (1, 1 << 16), rules.cat)
register("matmul", ROUTINE, 2, rules.matmul)
for axes in (2, 3):
    register(f"conv{axes}d", ROUTINE, (2, 3), rules_conv.convolution(axes))  # x, weight, bias
    register(f"conv{axes}d_input_grad", ROUTINE, 2, rules_conv.input_grad(axes))  # g, weight: a transposed convolution
    register(f"conv{axes}d_weight_grad", ROUTINE, 2, rules_conv.weight_grad(axes))  # x, g
register("max_pool2d", ROUTINE, 1, rules.pool2d(Float))
register("argmax_pool2d", ROUTINE, 1, rules.pool2d(Int))  # position of the maximum in its plane: row * width + column
register("max_pool2d_grad", ROUTINE, 2, rules.pool2d_grad)  # g, positions
register("avg_pool2d", ROUTINE, 1, rules.pool2d(Float))
register("avg_pool2d_grad", ROUTINE, 1, rules.pool2d_grad)
register("adaptive_avg_pool2d", ROUTINE, 1, rules.adaptive_pool2d)
register("adaptive_avg_pool2d_grad", ROUTINE, 1, rules.like(0, "shape"))
register("gather", ROUTINE, 2, rules.gather)  # x, index
register("scatter_add", ROUTINE, 3, rules.scatter_add)  # x, index, source
register("cross_entropy", ROUTINE, 2, rules.cross_entropy)  # logits, targets: the loss of each row
register("cross_entropy_grad", ROUTINE, 3, rules.cross_entropy_grad)  # cotangent of each row or of all, logits, targets
register("softmax", ROUTINE, 1, rules.same)
register("log_softmax", ROUTINE, 1, rules.same)
for name in ("cumsum", "cumprod", "cummax", "cummin"):
    register(name, ROUTINE, 1, rules_order.scan)
register("argsort", ROUTINE, 1, rules_order.argsort)
register("argtopk", ROUTINE, 1, rules_order.argtopk)  # the first k of argsort
register("tallies", ROUTINE, 1, rules_order.tallies)  # how many are other than 0, up to the end of each slice
register("places", ROUTINE, 2, rules_order.places)  # x, tallies: the indices of those other than 0, a row each

# q, k, v, mask: scaled dot-product attention, and the log-sum-exp of each row's scores behind it, flat in one tensor.
register("attention", ROUTINE, (3, 4), rules_attention.attention)
register("attention_grad_q", ROUTINE, (6, 7), rules_attention.attention_grad)  # g, q, k, v, lse, delta, mask
register("attention_grad_k", ROUTINE, (6, 7), rules_attention.attention_grad)
register("attention_grad_v", ROUTINE, (4, 5), rules_attention.attention_grad_v)  # g, q, k, lse, mask
register("layer_norm", ROUTINE, (1, 3), rules_norm.normalised(0))  # x, weight, bias
register("layer_norm_grad", ROUTINE, (2, 3), rules_norm.normalised(1))  # g, x, weight
register("rms_norm", ROUTINE, (1, 2), rules_norm.normalised(0))  # x, weight
register("rms_norm_grad", ROUTINE, (2, 3), rules_norm.normalised(1))  # g, x, weight
