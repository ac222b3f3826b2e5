"""What reductions fold with, as WGSL: each op's accumulator, for one element at a time and for four; plans nothing."""

from __future__ import annotations

from wgpu_nn.dtype import Kind

ByKind = dict[Kind, str]
ARGS = ("argmax", "argmin")

# a and b are accumulators. Those of one number are combined by an expression, and start as an identity.
COMBINE: dict[str, str | ByKind] = {
    "sum": "a + b",
    "mean": "a + b",
    "prod": "a * b",
    "max": {Kind.FLOAT: "max_nan(a, b)", Kind.INT: "max(a, b)"},
    "min": {Kind.FLOAT: "min_nan(a, b)", Kind.INT: "min(a, b)"},
    "any": "a | b",
    "all": "a & b",
}
IDENTITY: dict[str, str | ByKind] = {
    "sum": {Kind.FLOAT: "0.0", Kind.INT: "0"},
    "mean": "0.0",
    "prod": {Kind.FLOAT: "1.0", Kind.INT: "1"},
    "max": {Kind.FLOAT: "-infinity()", Kind.INT: "-2147483647 - 1"},
    "min": {Kind.FLOAT: "infinity()", Kind.INT: "2147483647"},
    "any": "0u",
    "all": "1u",
}
# The first of equal extremes wins, and the first NaN before all numbers. NONE marks an accumulator without elements.
_ARG = """struct Acc {{ value: {value}, place: u32 }}
const NONE = 0xffffffffu;
fn identity() -> Acc {{ return Acc({value}(0), NONE); }}
fn ahead(a: Acc, b: Acc) -> bool {{ return {ahead}; }}
fn combine(a: Acc, b: Acc) -> Acc {{
    if (a.place == NONE) {{ return b; }}
    if (b.place == NONE) {{ return a; }}
    if (ahead(a, b)) {{ return a; }}
    if (ahead(b, a) || b.place < a.place) {{ return b; }}
    return a;
}}"""
AHEAD = {
    ("argmax", Kind.FLOAT): "(is_nan(a.value) && !is_nan(b.value)) || (!is_nan(b.value) && a.value > b.value)",
    ("argmin", Kind.FLOAT): "(is_nan(a.value) && !is_nan(b.value)) || (!is_nan(b.value) && a.value < b.value)",
    ("argmax", Kind.INT): "a.value > b.value",
    ("argmin", Kind.INT): "a.value < b.value",
}
# The largest element, and the sum of the exponentials less it; less 0 where it is infinite, as inf - inf is NaN.
_LOGSUMEXP = """struct Acc { top: f32, total: f32 }
fn identity() -> Acc { return Acc(-infinity(), 0.0); }
fn combine(a: Acc, b: Acc) -> Acc {
    let top = max_nan(a.top, b.top);
    let shift = select(top, 0.0, is_inf(top));
    return Acc(top, a.total * exp(a.top - shift) + b.total * exp(b.top - shift));
}"""
# Mean and sum of squared deviations (Welford 1962; parts combined as by Chan, Golub and LeVeque 1979) of the elements less
# one of them, the pivot: without it the mean of numbers far from 0 stops moving in f32 long before the last of them.
_MOMENTS = """struct Acc { mean: f32, squares: f32, n: f32, pivot: f32 }
fn identity() -> Acc { return Acc(0.0, 0.0, 0.0, 0.0); }
fn combine(a: Acc, b: Acc) -> Acc {
    let n = a.n + b.n;
    let share = b.n / max(n, 1.0);
    let d = b.mean - a.mean;
    let pivot = select(b.pivot, a.pivot, a.n > 0.0);
    return Acc(a.mean + d * share, a.squares + b.squares + d * d * (a.n * share), n, pivot);
}
"""
# Four at once share the count, and so the division.
_MOMENTS_PART = """struct Part { mean: vec4f, squares: vec4f, n: f32 }
fn nothing() -> Part { return Part(vec4f(), vec4f(), 0.0); }
fn merge(a: Part, b: Part) -> Part {
    let n = a.n + b.n;
    let share = b.n / max(n, 1.0);
    let d = b.mean - a.mean;
    return Part(a.mean + d * share, a.squares + b.squares + d * d * (a.n * share), n);
}
fn pick(p: Part, k: u32) -> Acc { return Acc(p.mean[k], p.squares[k], p.n, pivot[k]); }
fn join(p: Part) -> Acc { return combine(combine(pick(p, 0u), pick(p, 1u)), combine(pick(p, 2u), pick(p, 3u))); }
fn load_part(at: u32, r: u32) -> Part { return Part(values(at) - pivot, vec4f(), 1.0); }"""

# Accumulators of several numbers besides those of arg-reductions.
STRUCTS = {"logsumexp": _LOGSUMEXP, "moments": _MOMENTS}
# How many words of memory an accumulator takes; one number takes one.
WORDS = {"argmax": 2, "argmin": 2, "logsumexp": 2, "moments": 4}
# What an element becomes: v is its value, r its place among those folded.
_LIFT = {"argmax": "Acc(v, r)", "argmin": "Acc(v, r)", "logsumexp": "Acc(v, 1.0)"}
_LIFT["moments"] = "Acc(v - pivot.x, 0.0, 1.0, pivot.x)"
# What an accumulator stands for in the end.
_RESULT = {"mean": "a / f32(total())", "argmax": "i32(a.place)", "argmin": "i32(a.place)"}
_RESULT["logsumexp"] = "a.top + log(a.total)"


def _pick(table: dict[str, str | ByKind], op: str, kind: Kind) -> str:
    text = table[op]
    return text if isinstance(text, str) else text[kind]


def fold_of(op: str, kind: Kind) -> tuple[str, str]:
    """Return the WGSL that combines a and b, and the identity, of a fold of one number."""
    return _pick(COMBINE, op, kind), _pick(IDENTITY, op, kind)


def accumulator(op: str, kind: Kind, value: str) -> str:
    """Return ``Acc``, ``identity`` and ``combine``; ``value`` is the type of an element, a truth being a word."""
    if op in ARGS:
        return _ARG.format(value=value, ahead=AHEAD[op, kind])
    if op in STRUCTS:
        return STRUCTS[op]
    lines = [f"alias Acc = {value};", f"fn identity() -> Acc {{ return {_pick(IDENTITY, op, kind)}; }}"]
    return "\n".join([*lines, f"fn combine(a: Acc, b: Acc) -> Acc {{ return {_pick(COMBINE, op, kind)}; }}"])


def loads(op: str, value: str, span: int) -> str:
    """Return ``load`` and what folds ``span`` elements at once, from ``value(at)`` and ``values(at)``."""
    lift = f"fn lift(v: {value}, r: u32) -> Acc {{ return {_LIFT.get(op, 'v')}; }}"
    load = "fn load(at: u32, r: u32) -> Acc { return lift(value(at), r); }"
    if span == 1:
        return "\n".join([lift, load, ONE])
    if op == "moments":
        return "\n".join([lift, load, _MOMENTS_PART])
    part = "struct Part { x: Acc, y: Acc, z: Acc, w: Acc }" if op in WORDS else "alias Part = vec4<Acc>;"
    return "\n".join([lift, load, part, _FOUR])


# One element at a time.
ONE = """alias Part = Acc;
fn nothing() -> Part { return identity(); }
fn merge(a: Part, b: Part) -> Part { return combine(a, b); }
fn pick(p: Part, k: u32) -> Acc { return p; }
fn join(p: Part) -> Acc { return p; }
fn load_part(at: u32, r: u32) -> Part { return load(at, r); }"""
# Places matter to arg-reductions alone, which take one element at a time.
_FOUR = """fn nothing() -> Part { return Part(identity(), identity(), identity(), identity()); }
fn merge(a: Part, b: Part) -> Part {
    return Part(combine(a.x, b.x), combine(a.y, b.y), combine(a.z, b.z), combine(a.w, b.w));
}
fn pick(p: Part, k: u32) -> Acc {
    switch k { case 1u: { return p.y; } case 2u: { return p.z; } case 3u: { return p.w; } default: { return p.x; } }
}
fn join(p: Part) -> Acc { return combine(combine(p.x, p.y), combine(p.z, p.w)); }
fn load_part(at: u32, r: u32) -> Part {
    let v = values(at);
    return Part(lift(v.x, r), lift(v.y, r), lift(v.z, r), lift(v.w, r));
}"""


def store(op: str, kind: Kind) -> str:
    """Return ``store`` of a finished accumulator, by way of ``finish``; moments have two results."""
    if op == "moments":
        return """fn store(i: u32, a: Acc) {
    out[i] = a.pivot + a.mean;
    // WGSL leaves a division by a constant 0 undefined.
    out[outputs() + i] = select(a.squares / f32(max(divisor(), 1u)), nan(), divisor() == 0u);
}"""
    if op in ARGS:
        return "fn store(i: u32, a: Acc) { out[i] = i32(a.place); }"
    value = "a != 0u" if kind is Kind.BOOL else _RESULT.get(op, "a")
    return f"fn store(i: u32, a: Acc) {{ out[i] = finish(i, {value}); }}"
