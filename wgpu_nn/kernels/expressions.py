"""Map ops as WGSL expressions: a table from op to text in x, y, z; by kind where kinds differ."""

from __future__ import annotations

from wgpu_nn.dtype import DType, Float, Int, Kind

Text = str | dict[Kind, str]

# Functions that are not WGSL's own stand in shaders/lib, with their accuracy.
EXPRESSIONS: dict[str, Text] = {
    "full": "x",
    "arange": "x + y * i32(i)",
    "uniform": "uniform_at(u32(x), u32(y), i)",
    "normal": "normal_at(u32(x), u32(y), i)",
    "neg": "-x",
    "abs": "abs(x)",
    "sign": {Float: "sign_nan(x)", Int: "sign(x)"},
    "relu": {Float: "relu_nan(x)", Int: "max(x, 0)"},
    "exp": "exp_nan(x)",
    "expm1": "expm1_near(x)",
    "log": "log_full(x)",
    "log1p": "log1p_near(x)",
    "sqrt": "sqrt(x)",
    "rsqrt": "1.0 / sqrt(x)",
    "recip": "1.0 / x",
    "sin": "sin_of(x)",
    "cos": "cos_of(x)",
    "tan": "tan_of(x)",
    "tanh": "tanh_near(x)",
    "sigmoid": "sigmoid_of(x)",
    "erf": "erf_of(x)",
    "asin": "asin_of(x)",
    "acos": "acos_of(x)",
    "atan": "atan_of(x)",
    "sinh": "sinh_near(x)",
    "cosh": "cosh_full(x)",
    "floor": "floor(x)",
    "ceil": "ceil(x)",
    "round": "round(x)",
    "is_nan": "is_nan(x)",
    "is_inf": "is_inf(x)",
    "logical_not": "!x",
    "add": "x + y",
    "sub": "x - y",
    "mul": "x * y",
    "div": "x / y",
    "pow": "pow_full(x, y)",
    "atan2": "atan2_of(x, y)",
    "maximum": {Float: "max_nan(x, y)", Int: "max(x, y)"},
    "minimum": {Float: "min_nan(x, y)", Int: "min(x, y)"},
    "remainder": {Float: "remainder_f(x, y)", Int: "remainder_i(x, y)"},
    "floor_div": {Float: "floor_div_f(x, y)", Int: "floor_div_i(x, y)"},
    "eq": {Float: "equal_f(x, y)", Int: "x == y", Kind.BOOL: "x == y"},
    "ne": {Float: "!equal_f(x, y)", Int: "x != y", Kind.BOOL: "x != y"},
    "lt": {Float: "less_f(x, y)", Int: "x < y"},
    "le": {Float: "less_equal_f(x, y)", Int: "x <= y"},
    "gt": {Float: "less_f(y, x)", Int: "x > y"},
    "ge": {Float: "less_equal_f(y, x)", Int: "x >= y"},
    "logical_and": "x && y",
    "logical_or": "x || y",
    "logical_xor": "x != y",
    "where": "select(z, y, x)",
}

_CASTS: dict[tuple[Kind, Kind], str] = {
    (Float, Float): "x",
    (Int, Int): "x",
    (Float, Int): "to_int(x)",
    (Float, Kind.BOOL): "(bitcast<u32>(x) & 0x7fffffffu) != 0u",
    (Int, Float): "f32(x)",
    (Int, Kind.BOOL): "x != 0",
    (Kind.BOOL, Float): "select(0.0, 1.0, x)",
    (Kind.BOOL, Int): "select(0, 1, x)",
    (Kind.BOOL, Kind.BOOL): "x",
}


def expression(op: str, first: DType, out: DType) -> str:
    """Return the WGSL of a map op whose operands have the element type ``first``."""
    if op == "cast":
        text = _CASTS[first.kind, out.kind]
        # Rounded here too, not only where it is stored: a fused chain may store another value, or none.
        return f"rounded_half({text})" if out.nbytes == 2 != first.nbytes else text
    text = EXPRESSIONS[op]
    return text if isinstance(text, str) else text[first.kind]
