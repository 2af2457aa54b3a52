"""Instructions of a compiled program, read from its HLO text (https://openxla.org/xla/operation_semantics)."""

import itertools
import math
import re
from typing import NamedTuple

_HEADER = re.compile(r"^(?:ENTRY )?%?([\w.-]+) (?:\(.*)?\{$", re.MULTILINE)
_INSTRUCTION = re.compile(r"^ *(?:ROOT )?%?([\w.-]+) = (.+?) ([a-z][a-z0-9-]*)\((.*)", re.MULTILINE)
_ARRAY = re.compile(r"\b(?:pred|[a-z]+(?P<bits>\d+)\w*)\[(?P<dims>[\d,]*)\]")


class Instruction(NamedTuple):
    """One line of a computation: `literal` is the text in its parentheses, `attributes` that after them."""

    name: str
    shape: str
    opcode: str
    operands: list[str]
    attributes: str
    literal: str


def computations(hlo: str) -> dict[str, list[Instruction]]:
    """Lists the instructions of each computation by its name, from `jax.stages.Compiled.as_text`; the entry is last."""
    found = {}
    for text in hlo.split("\n}"):
        if header := _HEADER.search(text):
            found[header[1]] = [*map(_parse, _INSTRUCTION.finditer(text, header.end()))]
    return found


def array_bytes(shape: str) -> list[tuple[int, bool]]:
    """Lists the bytes of each array in the text of a shape, and whether it is a scalar."""
    arrays = []
    for array in _ARRAY.finditer(shape):
        dims = _sizes(array)
        arrays.append((math.prod(dims) * int(array["bits"] or 8) // 8, not dims))
    return arrays


def array_dims(shape: str) -> list[int]:
    """Lists the dimensions of the first array in the text of a shape; none of a scalar, or if there is no array."""
    array = _ARRAY.search(shape)
    return _sizes(array) if array else []


def op_name(instruction: Instruction) -> str:
    """Returns the names of functions and scopes that JAX traced an instruction in; nothing if there are none."""
    named = re.search(r'op_name="([^"]*)"', instruction.attributes)
    return named[1] if named else ""


def _sizes(array):
    return [int(size) for size in array["dims"].split(",") if size]


def _parse(match):
    """Splits the text of an instruction where the parenthesis of its operands is closed."""
    name, shape, opcode, rest = match.groups()
    depths = itertools.accumulate({"(": 1, ")": -1}.get(character, 0) for character in rest)
    end = next(i for i, depth in enumerate(depths) if depth < 0)
    return Instruction(name, shape, opcode, re.findall(r"%([\w.-]+)", rest[:end]), rest[end:], rest[:end])
