"""What devices exchange in a compiled training step, read from its text (https://openxla.org/xla/operation_semantics)."""

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence

OPCODES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
# What an array is exchanged for. An exchange of several arrays is counted for the first of these.
KINDS = ("batch statistics, forward", "batch statistics, backward", "gradients", "losses and counts")
FORWARD, BACKWARD, GRADIENTS, COUNTS = KINDS

_INSTRUCTION = re.compile(
    r"\s*(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<shape>.+?) (?P<opcode>[a-z][a-z0-9-]*)\((?P<rest>.*)"
)
_ARRAY = re.compile(r"\b(?:pred|[a-z]+(?P<bits>\d+)\w*)\[(?P<dims>[\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One exchange between devices, which may carry several arrays.

    Attributes:
      opcode: one of `OPCODES`.
      arrays: bytes of each array of its result, and which of `KINDS` it is.
      depth: how many collectives, itself included, come one after the other up to it, each waiting for the one before.
    """

    opcode: str
    arrays: tuple[tuple[int, str], ...]
    depth: int

    @property
    def kind(self) -> str:
        """The first of the kinds of its arrays."""
        return min((kind for _, kind in self.arrays), key=KINDS.index)

    @property
    def nbytes(self) -> int:
        """Bytes of the result on a device."""
        return sum(nbytes for nbytes, _ in self.arrays)


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str


def bytes_for(kind: str, exchanges: Sequence[Collective]) -> int:
    """Bytes of all arrays of one of `KINDS`, whatever they travel with."""
    return sum(nbytes for exchange in exchanges for nbytes, of in exchange.arrays if of == kind)


def collectives(hlo: str) -> list[Collective]:
    """The collectives of a step compiled for several devices, in the order of `jax.stages.Compiled.as_text`.

    An asynchronous one, a pair of `-start` and `-done`, counts once. Compilers merge all-reduces of several origins and
    keep the name of one, so what an array is for follows from where its values go: gradients are what no other
    collective waits for, statistics what others wait for, of the backward pass where JAX named it a transposition; a
    scalar is a sum of losses or a count of frames.
    """
    return [found for computation in _computations(hlo) for found in _collectives(computation)]


def _computations(hlo: str) -> Iterator[list[_Instruction]]:
    """Instructions of each computation; every one comes after its operands."""
    computation = []
    for line in hlo.splitlines():
        if match := _INSTRUCTION.match(line):
            operands, attributes = _split(match["rest"])
            operands = tuple(re.findall(r"%([\w.-]+)", operands))
            computation.append(_Instruction(match["name"], match["shape"], match["opcode"], operands, attributes))
        elif line.startswith("}"):
            yield computation
            computation = []


def _split(rest):
    """What an instruction has inside its parentheses, and after them."""
    depth = 1
    for i, character in enumerate(rest):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if not depth:
            return rest[:i], rest[i + 1 :]
    raise ValueError(f"Expected a closing parenthesis in ({rest}")


def _collectives(computation):
    counted = {x.name for x in computation if x.opcode.removesuffix("-done") in OPCODES}
    depths, op_names = {}, {}
    for x in computation:
        depths[x.name] = max((depths.get(name, 0) for name in x.operands), default=0) + (x.name in counted)
        named = re.search(r'op_name="([^"]*)"', x.attributes)
        op_names[x.name] = named[1] if named else op_names[x.operands[0]] if x.opcode.endswith("-done") else ""
    # Backwards, what other collectives wait for; of a result of several arrays also which of them.
    awaited = set()
    for x in reversed(computation):
        if x.name in awaited or x.name in counted:
            awaited.update(x.operands)
        if x.name in awaited and x.opcode == "get-tuple-element":
            awaited.add((x.operands[0], int(re.search(r"index=(\d+)", x.attributes)[1])))
    found = []
    for x in computation:
        if x.name in counted:
            several = x.shape.startswith("(")
            arrays = tuple(
                (nbytes, _kind(scalar, ((x.name, i) if several else x.name) in awaited, op_names[x.name]))
                for i, (nbytes, scalar) in enumerate(_arrays(x.shape))
            )
            found.append(Collective(x.opcode.removesuffix("-done"), arrays, depths[x.name]))
    return found


def _arrays(shape):
    """Bytes of each array of a shape, and whether it is a scalar."""
    for array in _ARRAY.finditer(shape):
        dims = [int(size) for size in array["dims"].split(",") if size]
        yield math.prod(dims) * int(array["bits"] or 8) // 8, not dims


def _kind(scalar, awaited, op_name):
    if scalar:
        return COUNTS
    if not awaited:
        return GRADIENTS
    return BACKWARD if "transpose(" in op_name else FORWARD
