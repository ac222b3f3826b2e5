"""Plans reductions: the kept axes are the outputs, the folded ones are walked the way they lie; long folds go in two passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from wgpu_nn.dtype import Kind
from wgpu_nn.kernels.fold import ARGS, WORDS
from wgpu_nn.kernels.fused import Finish
from wgpu_nn.kernels.map import run_map
from wgpu_nn.kernels.plan import MOST_TURNS, Site, Task, View, chosen, grid
from wgpu_nn.kernels.reduce_kernel import ReduceKey, reduce_kernel
from wgpu_nn.kernels.reduce_parts import reduce_in_parts
from wgpu_nn.kernels.windows import large
from wgpu_nn.shape import Shape, collapse, row_major, size

BUSY = 4096  # invocations that keep an adapter busy
FEW = 128  # invocations that keep a processor busy
GROUPS = 2048  # workgroups of 256 that keep the largest GPU busy
SLICE = (
    1024  # elements that one invocation folds at most where there are few outputs: f32 sums stay short, and parallel
)
RUN = 16  # elements side by side from which a fold of several axes starts with them
# What a fold without elements gives.
_EMPTY = {"sum": 0, "prod": 1, "any": False, "all": True, "logsumexp": float("-inf")}


class _Walk(NamedTuple):
    """How one launch walks memory: axes merged where they lie so."""

    kept: Shape
    kept_strides: Shape
    pivots: Shape  # strides over the kept axes of the element that moments are taken relative to
    folded: Shape
    strides: Shape


class _Recipe(NamedTuple):
    """How a reduction departs from the rules: powers of two more lanes and slices, and parts of columns that are one."""

    lanes: int = 0
    slices: int = 0
    single: bool = False


_AS_RULES_SAY = _Recipe()
_ON_SOFTWARE = {
    "more slices": _Recipe(slices=2),
    "many more slices": _Recipe(slices=4),
    "one part": _Recipe(single=True),
}
_ON_GPU = {
    "more lanes": _Recipe(lanes=2), "fewer lanes": _Recipe(lanes=-2),
    "more slices": _Recipe(slices=2), "fewer slices": _Recipe(slices=-2),
}  # fmt: skip


class _Way(NamedTuple):
    """A variant: ``lanes`` invocations share a slice, and load ``span`` elements at once, from ``parts`` places."""

    body: str
    lanes: int
    span: int
    parts: int = 1

    @property
    def outputs(self) -> int:
        """How many neighbouring outputs an invocation has."""
        return self.span * self.parts if self.columns else 1

    @property
    def columns(self) -> bool:
        """Whether what it loads at once belongs to neighbouring outputs."""
        return self.body.startswith("reduce_columns")


def run_reduce(
    site: Site,
    op: str,
    x: View,
    axes: tuple[int, ...],
    out: View,
    start: Finish | None = None,
    finish: Finish | None = None,
    correction: int = 0,
) -> None:
    """Plan one reduction of ``x`` over ``axes`` into ``out``, which is contiguous.

    ``start`` makes the elements of ``x``, which is then the shape and type of what is folded, without memory; ``finish``
    is applied to each result. Moments divide their squares by the number of elements less ``correction``.
    """
    if out.size == 0:
        return
    length = size(tuple(x.shape[a] for a in axes))
    if start is None and finish is None and length and large(site, x, out):
        reduce_in_parts(run_reduce, site, op, x, axes, out, correction)
        return
    if length == 0:
        empty = _EMPTY.get(op, float("nan"))
        if finish is None:
            run_map(site, "full", [empty], out)
            return
        x = site.empty(out.shape, x.dtype)
        run_map(site, "full", [empty], x)
        op, axes, start, length = ("any" if x.dtype.kind is Kind.BOOL else "max"), (), None, 1
    if length == 1 and site.tuned and start is None and finish is None and op not in WORDS:
        run_map(site, "cast", [x.seen(out.shape, _without(x, axes, len(out.shape)))], out)
        return
    divisor = max(length - correction, 0)
    found, forms = {"usual": _AS_RULES_SAY}, [_Fold(site, op, None, None, length, divisor).form(x, axes)]
    for name, recipe in (_ON_SOFTWARE if site.target.software else _ON_GPU).items():
        form = _Fold(site, op, None, None, length, divisor, recipe).form(x, axes)
        if form not in forms:
            found[name] = recipe
            forms.append(form)

    def alone(recipe: _Recipe, site: Site, views: Sequence[View]) -> None:
        _Fold(site, op, None, None, length, divisor, recipe).run(views[0], axes, views[1])

    way, outputs = forms[0][0], x.size // length
    traits = f"{op} {x.dtype}, {way.body} of {way.span}{', computed' if start else ''}"
    recipe = chosen(site, Task("reduce", traits, (outputs, length), (x,), (out,), length), found, alone)
    _Fold(site, op, start, finish, length, divisor, recipe).run(x, axes, out)


def run_empty(site: Site, out: View, finish: Finish | None, row: View | None = None) -> None:
    """Plan sums of nothing: zeros, or what ``row`` [1, *out] adds to them, which still go through what follows."""
    if row is None:
        row = site.empty((1, *out.shape), out.dtype)
        run_map(site, "full", [0.0], row)
    run_reduce(site, "sum", row, (0,), out, finish=finish)


def run_totals(site: Site, op: str, x: View, axis: int, totals: View) -> None:
    """Plan totals[slice, output]: one axis folded in as many slices of even length as ``totals`` has rows."""
    fold = _Fold(site, op, None, None, x.shape[axis], x.shape[axis])
    fold.slices(x, axis, totals)


def _without(x: View, axes: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """Return the strides of ``x`` as the result of ``rank`` axes sees them, the folded axes having one element."""
    if rank == len(x.shape):
        return x.strides
    return tuple(s for i, s in enumerate(x.strides) if i not in axes)


class _Fold:
    """One reduction on its way through its passes."""

    def __init__(
        self,
        site: Site,
        op: str,
        start: Finish | None,
        finish: Finish | None,
        total: int,
        divisor: int,
        recipe: _Recipe = _AS_RULES_SAY,
    ) -> None:
        self.recipe = recipe
        self.site, self.op, self.start, self.finish = site, op, start, finish
        self.total, self.divisor = total, divisor

    def run(self, x: View, axes: tuple[int, ...], out: View) -> None:
        """Fold what lies side by side first, where more is folded than that."""
        inner = self._side_by_side(x, axes)
        outer = tuple(a for a in axes if a not in inner)
        if not outer or size(tuple(x.shape[a] for a in inner)) < RUN or self.op in ARGS:
            self._passes(x, axes, (), out, True, True)
            return
        partial = self._partial(x, tuple(1 if i in inner else n for i, n in enumerate(x.shape)))
        self._passes(x, inner, outer, partial, True, False)
        self._passes(partial, outer, inner, out, False, True)

    def form(self, x: View, axes: tuple[int, ...]) -> tuple[_Way, int]:
        """Return the variant of the longest walk, and its slices."""
        walk = self._walk(x, axes, ())
        way = self._way(x, walk, True)
        return way, self._slices(walk, way, True)

    def slices(self, x: View, axis: int, out: View) -> None:
        """Fold ``axis`` in slices, one a row of ``out``."""
        walk = self._walk(x, (axis,), ())
        self._launch(x, walk, self._way(x, walk, True), out, out.shape[0], True, False)

    def _side_by_side(self, x: View, axes: tuple[int, ...]) -> tuple[int, ...]:
        """Return the folded axes whose elements follow each other in memory without gaps."""
        found: list[int] = []
        step = 1
        for a in sorted(axes, key=lambda a: (abs(x.strides[a]), x.shape[a])):
            if x.strides[a] == step or (x.shape[a] == 1 and self.site.tuned):
                found.append(a)
                step *= x.shape[a]
        return tuple(sorted(found))

    def _partial(self, x: View, shape: Shape) -> View:
        """Return memory for accumulators; its strides count these."""
        memory = self.site.empty((size(shape) * WORDS.get(self.op, 1),), x.dtype.wide)
        return memory.seen(shape, row_major(shape))

    def _walk(self, x: View, axes: tuple[int, ...], others: tuple[int, ...]) -> _Walk:
        """Return how to fold ``axes``; ``others`` are folded in another pass."""
        keep = [i for i in range(len(x.shape)) if i not in axes]
        strides = tuple(x.strides[i] for i in keep)
        pivots = tuple(0 if i in others else x.strides[i] for i in keep) if self.op == "moments" else strides
        kept, (kept_strides, pivot_strides) = collapse(tuple(x.shape[i] for i in keep), [strides, pivots])
        # Any order serves but for places; the larger the stride, the further out.
        order = axes if self.op in ARGS else tuple(sorted(axes, key=lambda a: -abs(x.strides[a])))
        # A batch of one keeps its axis in eager mode, so that it compiles nothing new.
        folded, (fold_strides,) = collapse(
            tuple(x.shape[a] for a in order), [tuple(x.strides[a] for a in order)], keep_ones=not self.site.tuned
        )
        return _Walk(kept, kept_strides, pivot_strides, folded or (1,), fold_strides or (0,))

    def _passes(
        self, x: View, axes: tuple[int, ...], others: tuple[int, ...], out: View, first: bool, last: bool
    ) -> None:
        """Fold ``axes`` in one launch, or in two if that gives too few invocations too much to do."""
        walk = self._walk(x, axes, others)
        way = self._way(x, walk, first)
        slices = self._slices(walk, way, first)
        if slices == 1:
            self._launch(x, walk, way, out, 1, first, last)
            return
        partial = self._partial(x, (slices, size(walk.kept)))
        self._launch(x, walk, way, partial, slices, first, False)
        self._passes(partial, (0,), (), out, False, last)

    def _way(self, x: View, walk: _Walk, first: bool) -> _Way:
        """Return the variant: the rules', or what the recipe makes of it."""
        way = self._rule(x, walk, first)
        if self.recipe.single:
            way = way._replace(parts=1)
        if way.body in ("reduce_rows", "reduce_columns"):
            way = way._replace(lanes=min(max(_shifted(way.lanes, self.recipe.lanes), 1), 256))
        return way

    def _rule(self, x: View, walk: _Walk, first: bool) -> _Way:
        """Choose the variant. Software adapters take no workgroup memory, and so no sharing."""
        alone = self.site.target.software or self.site.target.invocations < 256
        four = first and self.op not in ARGS
        if walk.strides == (1,):
            if alone:
                return _Way("reduce_rows_alone", 1, 4 if four else 1)
            return _Way("reduce_rows", _row_lanes(walk), 4 if four else 1)
        if len(walk.folded) == 1 and walk.kept_strides[-1:] == (1,):
            steps = (x.offset, walk.kept[-1], *walk.kept_strides[:-1], *walk.pivots[:-1], *walk.strides)
            span = 4 if four and all(n % 4 == 0 for n in steps) else 1
            if alone:
                line = walk.kept[-1] % (4 * span) == 0 and self.op != "moments"  # which has pivots of one part alone
                return _Way("reduce_columns_alone", 1, span, 4 if line else 1)
            return _Way("reduce_columns", _column_lanes(walk, span, self.site.tuned), span)
        return _Way("reduce", 1, 1)

    def _slices(self, walk: _Walk, way: _Way, first: bool) -> int:
        """Return how many parts the folded elements are cut into: by the shape alone, so that sums are the same each time."""
        outputs, length = size(walk.kept), size(walk.folded)
        parts = -(-outputs // way.outputs)
        if way.body == "reduce":
            found = min(-(-length // SLICE), BUSY // outputs)
        elif way.body == "reduce_rows":
            found = min(-(-length // 8192), -(-GROUPS * 256 // (way.lanes * parts)))
        elif way.body == "reduce_columns":
            found = min(-(-length // (64 * way.lanes)), -(-GROUPS * 128 // (way.lanes * parts)))
        elif way.body == "reduce_columns_alone":
            found = -(-length // 512)  # rows apart by a page or more: few enough that their addresses stay cached
        else:
            found = min(-(-length // SLICE), -(-FEW // parts))
        if first:
            found = min(_shifted(found, self.recipe.slices), length)
        if self.site.target.software:
            turns = MOST_TURNS * {"reduce": 1, "reduce_rows_alone": 4 * way.span}.get(way.body, 4)
            found = max(found, -(-length // turns))
        return max(found, 1)

    def _launch(self, x: View, walk: _Walk, way: _Way, out: View, slices: int, first: bool, last: bool) -> None:
        start, finish = self.start if first else None, self.finish if last else None
        workgroup = 256 if way.lanes > 1 or way.body == "reduce_rows" else self.site.target.workgroup
        chains = [part.chain if part else None for part in (start, finish)]
        kinds = (x.dtype.name, len(walk.kept), len(walk.folded))
        inplace = finish.inplace if finish else -1
        key = ReduceKey(self.op, *kinds, *way, first, last, chains[0], chains[1], inplace, workgroup)
        outputs = size(walk.kept)
        pivots = walk.pivots if self.op == "moments" else ()
        values = (outputs, slices, size(walk.folded), self.total, self.divisor, x.offset)
        values += (*walk.kept, *walk.kept_strides, *pivots, *walk.folded, *walk.strides)
        views = [*(start.views if start else [x]), *(finish.read if finish else ()), out]
        if way.body == "reduce_columns":  # a workgroup keeps to one slice
            groups = -(-outputs * way.lanes // (workgroup * way.outputs)) * slices
        else:
            groups = -(-outputs * slices * way.lanes // (workgroup * way.outputs))
        self.site.launch(reduce_kernel, key, values, views, grid(groups))


def _shifted(n: int, by: int) -> int:
    return max(n, 1) << by if by >= 0 else n >> -by


def _row_lanes(walk: _Walk) -> int:
    """Return how many invocations share a slice of a row; the fold of all elements may have any length from call to call."""
    length = size(walk.folded)
    return 256 if not walk.kept or length >= 1024 else 32 if length >= 128 else 8 if length >= 16 else 1


def _column_lanes(walk: _Walk, span: int, tuned: bool) -> int:
    """Return how many invocations share a slice of a column: the more, the fewer neighbours there are."""
    parts = walk.kept[-1] // span
    if parts < 32 or not tuned:
        return 16 if parts >= 16 else 64 if parts >= 4 else 256
    # Long columns that are many, but too few to fill a GPU: shared by so many they need no second pass.
    return 128 if 256 <= size(walk.kept) // span <= 1024 and 2048 <= size(walk.folded) <= 8192 else 8
