"""Kernels of a compiled program by kind and by part of the training step, read from its HLO text."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.hlo import Instruction, array_bytes, array_dims, computations, op_name

# Scopes that the code names with `jax.named_scope`, besides what none of them holds.
PARTS = ("encoder", "heads", "loss", "views", "optimizer", "guard")
OTHER = "other"
# What starts no kernel: names for arrays, and ends of what was started before.
_NAMES = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier", "partition-id")
# Instructions that run computations one instruction after the other, and the attributes that name them.
_CALLS = ("call", "while", "conditional", "async-start")
_CALLED = re.compile(r"(?:to_apply|body|condition|calls|true_computation|false_computation)=%?([\w.-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_PART = re.compile(rf"\b({'|'.join(PARTS)})\b")
# Kinds of calls of a library, and of fusions in which one multiplies, by words in their names.
_TARGETS = {"gemm": "matmul", "matmul": "matmul", "dot": "matmul", "conv": "convolution"}


class Kernel(NamedTuple):
    """One launch, such as a `fusion`, `matmul`, `convolution` or `copy`.

    `nbytes` are those of its operands, slices of them where it reads no more, and of its results; `flops` those of
    products of matrices that a fusion holds. The compiler for TPUs estimates `cycles`.
    """

    kind: str
    part: str
    backward: bool
    nbytes: int
    cycles: int
    flops: int
    name: str
    operation: str  # what most of it was traced from
    shape: str  # of its result


def kernels(hlo: str) -> list[Kernel]:
    """Lists the kernels of a program in its order, from `jax.stages.Compiled.as_text`; those of a loop count once."""
    by_name = computations(hlo)
    return [*_kernels(next(reversed(by_name)), by_name)] if by_name else []


def count(found: Sequence[Kernel], key: str) -> dict[str, int]:
    """Counts kernels by one of their fields, the most frequent value first."""
    return dict(Counter(getattr(kernel, key) for kernel in found).most_common())


def _kernels(name: str, by_name: Mapping[str, list[Instruction]]):
    nbytes = {x.name: sum(n for n, _ in array_bytes(x.shape)) for x in by_name[name]}
    dims = {x.name: array_dims(x.shape) for x in by_name[name]}
    for x in by_name[name]:
        if x.opcode in _CALLS:
            branches = re.findall(r"[\w.-]+", "".join(_BRANCHES.findall(x.attributes)))
            for called in _CALLED.findall(x.attributes) + branches:
                yield from _kernels(called, by_name)
        elif x.opcode not in _NAMES and not x.opcode.endswith(("-done", "-update")):
            named = _origin(x, by_name)
            part, cycles = _PART.search(named), re.search(r'"estimated_cycles":"(\d+)"', x.attributes)
            read, flops = [nbytes.get(operand, 0) for operand in x.operands], _product_flops(x, dims)
            if x.opcode == "fusion":
                fused = by_name[_CALLED.search(x.attributes)[1]]
                inside = {y.name: array_dims(y.shape) for y in fused}
                read, flops = map(min, read, _read(fused, len(read))), sum(_product_flops(y, inside) for y in fused)
            yield Kernel(
                kind=_kind(x),
                part=part[1] if part else OTHER,
                backward="transpose(" in named,
                nbytes=nbytes[x.name] + sum(read),
                cycles=int(cycles[1]) if cycles else 0,
                flops=flops,
                name=x.name,
                operation=named.rpartition("/")[2] or x.opcode,
                shape=x.shape.partition("{")[0].strip("("),
            )


def _read(fused, operands):
    """Returns the bytes that a fusion reads of each operand: those of slices if it takes nothing else of it."""
    read = [math.inf] * operands
    users = {}
    for x in fused:
        for operand in x.operands:
            users.setdefault(operand, []).append(x)
    for x in fused:
        if x.opcode == "parameter" and all(user.opcode == "slice" for user in users.get(x.name, ())):
            number = int(re.match(r"\d+", x.literal)[0])
            read[number] = sum(array_bytes(user.shape)[0][0] for user in users.get(x.name, ()))
    return read


def _product_flops(x, dims):
    """Returns the operations of a matrix product, from the dimensions of all arrays of its computation; else 0."""
    axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", x.attributes)
    if x.opcode != "dot" or not axes:
        return 0
    summed = [dims[x.operands[0]][int(axis)] for axis in axes[1].split(",") if axis]
    return 2 * math.prod(dims[x.name] + summed)


def _kind(x):
    target = re.search(r'custom_call_target="([^"]*)"', x.attributes)
    library = re.search(r'"kind":"__(\w+)"', x.attributes) if x.opcode == "fusion" else None
    name = (target or library or ["", ""])[1].lower()
    opcode = "matmul" if x.opcode == "dot" else x.opcode.removesuffix("-start")
    return next((kind for word, kind in _TARGETS.items() if word in name), opcode)


def _origin(x, by_name):
    """Returns where an instruction was traced; of a fusion without a name, where most of what it holds was."""
    if _PART.search(named := op_name(x)):
        return named
    called = _CALLED.search(x.attributes)
    inside = Counter(op_name(y) for y in by_name.get(called[1], ()) if _PART.search(op_name(y))) if called else None
    return inside.most_common(1)[0][0] if inside else named
