"""Instructions of a compiled program, read from its HLO text (https://openxla.org/xla/operation_semantics)."""

import itertools
import re
from typing import NamedTuple

_HEADER = re.compile(r"^(?:ENTRY )?%?([\w.-]+) (?:\(.*)?\{$", re.MULTILINE)
_INSTRUCTION = re.compile(r"^ *(?:ROOT )?%?([\w.-]+) = (.+?) ([a-z][a-z0-9-]*)\((.*)", re.MULTILINE)


class Instruction(NamedTuple):
    """One line of a computation; `attributes` is the text after its operands."""

    name: str
    shape: str
    opcode: str
    operands: list[str]
    attributes: str


def computations(hlo: str) -> dict[str, list[Instruction]]:
    """Lists the instructions of each computation by its name, from `jax.stages.Compiled.as_text`; the entry is last."""
    found = {}
    for text in hlo.split("\n}"):
        if header := _HEADER.search(text):
            found[header[1]] = [*map(_parse, _INSTRUCTION.finditer(text, header.end()))]
    return found


def op_name(instruction: Instruction) -> str:
    """Returns the names of functions and scopes that JAX traced an instruction in; nothing if there are none."""
    named = re.search(r'op_name="([^"]*)"', instruction.attributes)
    return named[1] if named else ""


def _parse(match):
    """Splits the text of an instruction where the parenthesis of its operands is closed."""
    name, shape, opcode, rest = match.groups()
    depths = itertools.accumulate({"(": 1, ")": -1}.get(character, 0) for character in rest)
    end = next(i for i, depth in enumerate(depths) if depth < 0)
    return Instruction(name, shape, opcode, re.findall(r"%([\w.-]+)", rest[:end]), rest[end:])
