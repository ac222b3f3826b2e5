"""What a WGSL text declares: bindings, overrides, entry points, structures. Compilers check it; this reads what is valid.

Attributes may stand in any order, comments anywhere. Not read: the bodies of functions, and values of constants that take
more than integers, names and ``+ - * / % << >> & | ^``.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from wgpu_nn.wgsl.tokens import Token, closing, line, split, template_end, tokens

_SHORT = {"f": "f32", "i": "i32", "u": "u32", "h": "f16"}
_SUFFIX = re.compile(r"\b(0[xX][\da-fA-F]+|\d+)[iu]\b")
_ARITHMETIC: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda x, y: abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1),  # WGSL rounds towards zero
    ast.Mod: lambda x, y: abs(x) % abs(y) * (1 if x >= 0 else -1),
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}


class Type(NamedTuple):
    """A type without aliases and short names: ``array``, ``vec4``, ``f32``, or a structure; ``count`` is an array's length."""

    name: str
    element: Type | None = None
    count: str = ""

    @property
    def scalar(self) -> str:
        """What it is made of, all arrays and vectors taken away: f32, i32, u32, f16, or a structure's name."""
        return self.name if self.element is None else self.element.scalar


@dataclass(frozen=True, slots=True)
class Binding:
    """A resource variable. ``space`` is storage, uniform or handle (a texture or sampler); ``access`` read or read_write."""

    name: str
    group: int
    binding: int
    space: str
    access: str
    type: str
    line: int


@dataclass(frozen=True, slots=True)
class Override:
    """A constant that pipelines may set, by name or by ``id``; ``default`` is its text, empty if it must be set."""

    name: str
    id: int | None
    type: str
    default: str
    line: int


class Parameter(NamedTuple):
    """A parameter or a structure's member, and the builtin value that it gets."""

    name: str
    type: str
    builtin: str
    at: int  # where its name stands


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """A function that pipelines start. ``workgroup_size`` has three expressions."""

    name: str
    stage: str
    workgroup_size: tuple[str, str, str]
    parameters: tuple[Parameter, ...]
    line: int
    parenthesis: int  # where the parameters' list closes
    body: int  # where its block opens


class Variable(NamedTuple):
    """A variable of module scope, of any address space."""

    name: str
    space: str
    type: Type


@dataclass(frozen=True, slots=True)
class Declarations:
    """What ``read`` found, in the order of the text."""

    text: str
    bindings: tuple[Binding, ...]
    overrides: tuple[Override, ...]
    entry_points: tuple[EntryPoint, ...]
    structs: Mapping[str, tuple[Parameter, ...]]
    variables: Mapping[str, Variable]
    functions: Mapping[str, frozenset[str]]  # what names stand in each
    enabled: tuple[str, ...]
    _aliases: Mapping[str, str] = field(default_factory=dict[str, str])
    _constants: Mapping[str, str] = field(default_factory=dict[str, str])

    def used(self, entry: str) -> tuple[Binding, ...]:
        """Return the bindings that an entry point names, or that functions do which it names."""
        seen: set[str] = set()
        todo = [entry]
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo.extend(self.functions.get(name, ()))
        return tuple(b for b in self.bindings if b.name in seen)

    def type_of(self, text: str) -> Type:
        """Return a type by its text, aliases resolved."""
        return self._type(tokens(text))

    def _type(self, found: Sequence[Token]) -> Type:
        name = found[0].text
        if name in self._aliases:
            return self.type_of(self._aliases[name])
        short = re.fullmatch(r"(vec[234]|mat[234]x[234])([fiuh])", name)
        if short:
            return self._made(short[1], Type(_SHORT[short[2]]), "")
        if len(found) < 3 or found[1].text != "<":
            return Type(name)
        parts = split(found, 2, template_end(found, 1))
        if name == "ptr":
            return Type(name)
        count = ""
        if len(parts) > 1:
            first, last = parts[1]
            start = found[first].start
            count = "".join(_spaced(found[first:last], start))
        return self._made(name, self._type(found[slice(*parts[0])]), count)

    def _made(self, name: str, element: Type, count: str) -> Type:
        if name.startswith("mat"):  # an array of columns
            return Type(name, Type(f"vec{name[5]}", element, name[5]), name[3])
        return Type(name, element, name[3] if name.startswith("vec") else count)

    def nbytes(self, kind: Type, constants: Mapping[str, float] | None = None) -> int | None:
        """Return the size of a type of known length without structures (WGSL, section 14.4.1), else None."""
        if kind.element is None:
            return {"f16": 2}.get(kind.name, 4) if kind.name not in self.structs else None
        one = self.nbytes(kind.element, constants)
        if kind.name == "atomic":
            return one
        count = self.value(kind.count, constants) if kind.count else None
        if one is None or count is None:
            return None
        inner = kind.element
        if inner.name == "vec3":  # takes the room of four where several follow one another
            one += (self.nbytes(inner.element, constants) or 0) if inner.element else 0
        return one * count

    def value(self, expression: str, constants: Mapping[str, float] | None = None) -> int | None:
        """Return an integer expression's value, with overrides as in ``constants``; None if it is beyond this reader."""
        try:
            tree = ast.parse(_SUFFIX.sub(r"\1", expression).strip(), mode="eval")
            return self._value(tree.body, constants or {})
        except (SyntaxError, ValueError, ZeroDivisionError):
            return None

    def _value(self, node: ast.expr, constants: Mapping[str, float]) -> int:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            return _ARITHMETIC[type(node.op)](self._value(node.left, constants), self._value(node.right, constants))
        if isinstance(node, ast.Call) and len(node.args) == 1 and ast.unparse(node.func) in ("u32", "i32"):
            return self._value(node.args[0], constants)
        if isinstance(node, ast.Name):
            if node.id in constants:
                return int(constants[node.id])
            default = next((o.default for o in self.overrides if o.name == node.id), "")
            found = self.value(self._constants.get(node.id, default), constants)
            if found is not None:
                return found
        raise ValueError(ast.unparse(node))


def _spaced(found: Sequence[Token], start: int) -> list[str]:
    """Return the tokens' texts with a blank where the text had anything between two."""
    out: list[str] = []
    for token in found:
        out += ["" if token.start == start else " ", token.text]
        start = token.end
    return out


def read(text: str) -> Declarations:
    """Read the declarations of a text."""
    return _Reader(text).run()


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.tokens = text, tokens(text)
        self.attributes: dict[str, list[str]] = {}
        self.bindings: list[tuple[str, dict[str, list[str]], str, str, str, int]] = []
        self.overrides: list[Override] = []
        self.entries: list[EntryPoint] = []
        self.structs: dict[str, tuple[Parameter, ...]] = {}
        self.types: dict[str, tuple[str, str]] = {}  # of variables: address space, type
        self.aliases: dict[str, str] = {}
        self.constants: dict[str, str] = {}
        self.functions: dict[str, frozenset[str]] = {}
        self.enabled: list[str] = []

    def run(self) -> Declarations:
        k = 0
        while k < len(self.tokens):
            token = self.tokens[k]
            if token.text == "@":
                k = self._attribute(k)
                continue
            read_one = {"fn": self._function, "struct": self._struct}.get(token.text, self._statement)
            k = read_one(k)
            self.attributes = {}
        found = Declarations(
            self.text,
            (),
            tuple(self.overrides),
            tuple(self.entries),
            self.structs,
            {},
            self.functions,
            tuple(self.enabled),
            self.aliases,
            self.constants,
        )
        bindings = tuple(
            Binding(name, _number(found, a, "group"), _number(found, a, "binding"), space, access, kind, at)
            for name, a, space, access, kind, at in self.bindings
        )
        variables = {n: Variable(n, space, found.type_of(kind)) for n, (space, kind) in self.types.items() if kind}
        return Declarations(
            self.text,
            bindings,
            found.overrides,
            found.entry_points,
            found.structs,
            variables,
            self.functions,
            found.enabled,
            self.aliases,
            self.constants,
        )

    def _between(self, first: int, last: int) -> str:
        """Return the text of tokens ``first`` up to ``last``, comments left out."""
        found = self.tokens[first:last]
        return "".join(_spaced(found, found[0].start)) if found else ""

    def _attribute(self, k: int) -> int:
        name, after = self.tokens[k + 1].text, k + 2
        values: list[str] = []
        if after < len(self.tokens) and self.tokens[after].text == "(":
            end = closing(self.tokens, after)
            values = [self._between(*part) for part in split(self.tokens, after + 1, end)]
            after = end + 1
        self.attributes[name] = values
        return after

    def _statement(self, k: int) -> int:
        """Read up to the semicolon: variables, constants, overrides, aliases, enabled extensions."""
        end = k
        while end < len(self.tokens) and self.tokens[end].text != ";":
            end = closing(self.tokens, end) + 1 if self.tokens[end].text in ("(", "[", "{") else end + 1
        word = self.tokens[k].text
        if word == "enable":
            self.enabled += [self._between(*part) for part in split(self.tokens, k + 1, end)]
        elif word in ("var", "const", "override", "alias"):
            self._named(word, k + 1, end)
        return end + 1

    def _named(self, word: str, k: int, end: int) -> None:
        space, access = "", ""
        if self.tokens[k].text == "<":
            close = template_end(self.tokens, k)
            words = [self._between(*part) for part in split(self.tokens, k + 1, close)]
            space, access = words[0], words[1] if len(words) > 1 else ""
            k = close + 1
        name, at = self.tokens[k].text, line(self.text, self.tokens[k].start)
        equals = k + 1
        while equals < end and self.tokens[equals].text != "=":
            equals = template_end(self.tokens, equals) + 1 if self.tokens[equals].text == "<" else equals + 1
        kind = self._between(k + 2, equals) if self.tokens[k + 1].text == ":" else ""
        value = self._between(equals + 1, end)
        if word == "alias":
            self.aliases[name] = value
        elif word == "const":
            self.constants[name] = value
        elif word == "override":
            own = self.attributes.get("id")
            self.overrides.append(Override(name, int(own[0].rstrip("iu"), 0) if own else None, kind, value, at))
        else:
            self.types[name] = (space or "handle", kind)
            if "binding" in self.attributes:
                access = access or ("read" if space in ("storage", "uniform") else "")
                self.bindings.append((name, self.attributes, space or "handle", access, kind, at))

    def _struct(self, k: int) -> int:
        end = closing(self.tokens, k + 2)
        self.structs[self.tokens[k + 1].text] = self._parameters(k + 3, end)
        return end + 1

    def _parameters(self, first: int, last: int) -> tuple[Parameter, ...]:
        out: list[Parameter] = []
        for start, end in split(self.tokens, first, last):
            outer, self.attributes = self.attributes, {}
            k = start
            while self.tokens[k].text == "@":
                k = self._attribute(k)
            builtin = self.attributes.get("builtin", [""])[0]
            out.append(Parameter(self.tokens[k].text, self._between(k + 2, end), builtin, self.tokens[k].start))
            self.attributes = outer
        return tuple(out)

    def _function(self, k: int) -> int:
        name, opening = self.tokens[k + 1], k + 2
        end = closing(self.tokens, opening)
        parameters = self._parameters(opening + 1, end)
        body = end
        while body < len(self.tokens) - 1 and self.tokens[body].text != "{":
            body += 1
        last = closing(self.tokens, body)
        self.functions[name.text] = frozenset(t.text for t in self.tokens[body:last] if t.kind == "name")
        stage = next((s for s in ("compute", "vertex", "fragment") if s in self.attributes), "")
        if stage:
            sizes = [*self.attributes.get("workgroup_size", []), "1", "1", "1"][:3]
            at = line(self.text, name.start)
            places = (self.tokens[end].start, self.tokens[body].start)
            entry = EntryPoint(name.text, stage, (sizes[0], sizes[1], sizes[2]), parameters, at, *places)
            self.entries.append(entry)
        return last + 1


def _number(found: Declarations, attributes: Mapping[str, Sequence[str]], name: str) -> int:
    value = found.value(attributes.get(name, ["0"])[0])
    return -1 if value is None else value
