"""Collectives of a compiled training step, read from its HLO text (https://openxla.org/xla/operation_semantics)."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.hlo import array_bytes, computations, op_name

OPCODES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
# Purposes of an array that is exchanged. A collective of several arrays is counted for the first of these.
KINDS = ("batch statistics, forward", "batch statistics, backward", "gradients", "losses and counts")
FORWARD, BACKWARD, GRADIENTS, COUNTS = KINDS


class Collective(NamedTuple):
    """One exchange between devices: bytes and kind of each array of its result, length of the chain that ends here."""

    opcode: str
    arrays: tuple[tuple[int, str], ...]
    depth: int

    @property
    def kind(self) -> str:
        """The first of the kinds of its arrays."""
        return min((kind for _, kind in self.arrays), key=KINDS.index)


def count_bytes(exchanges: Sequence[Collective], kinds: Sequence[str] = KINDS) -> int:
    """Sums the bytes of the arrays of some kinds on a device, whatever they travel with."""
    return sum(nbytes for exchange in exchanges for nbytes, kind in exchange.arrays if kind in kinds)


def collectives(hlo: str) -> list[Collective]:
    """Lists the collectives of a step compiled for several devices, from `jax.stages.Compiled.as_text`.

    An asynchronous one, a pair of `-start` and `-done`, counts once. In a chain each waits for the one before.
    Compilers merge all-reduces of several origins and keep the name of one, so the purpose of an array follows from
    where its values go: no other collective waits for gradients; others wait for statistics, of the backward pass where
    JAX named them a transposition; a scalar is a sum of losses or a count of frames.
    """
    return [found for computation in computations(hlo).values() for found in _collectives(computation)]


def _collectives(computation):
    # Every instruction comes after its operands.
    counted = [x for x in computation if x.opcode.removesuffix("-done") in OPCODES]
    names, depths, op_names = {x.name for x in counted}, {}, {}
    for x in computation:
        depths[x.name] = max((depths.get(name, 0) for name in x.operands), default=0) + (x.name in names)
        op_names[x.name] = op_name(x) or (op_names[x.operands[0]] if x.opcode.endswith("-done") else "")
    # Backwards: what other collectives wait for, and of a result of several arrays which of them.
    awaited = set()
    for x in reversed(computation):
        if x.name in awaited | names:
            awaited.update(x.operands)
        if x.name in awaited and x.opcode == "get-tuple-element":
            awaited.add((x.operands[0], int(re.search(r"index=(\d+)", x.attributes)[1])))
    for x in counted:
        statistics, arrays = BACKWARD if "transpose(" in op_names[x.name] else FORWARD, []
        for i, (nbytes, scalar) in enumerate(array_bytes(x.shape)):
            kind = statistics if ((x.name, i) if x.shape.startswith("(") else x.name) in awaited else GRADIENTS
            arrays.append((nbytes, COUNTS if scalar else kind))
        yield Collective(x.opcode.removesuffix("-done"), tuple(arrays), depths[x.name])
