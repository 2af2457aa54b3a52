"""Parts of a model and how data flows between them, read from its computation."""

import dataclasses
from collections.abc import Iterator

import jax
import jax.extend
import jax.numpy as jnp
from flax import nnx

from fume_jax.models.fume import FUME

FRAMES = ("co2_frame", "ch4_frame")


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a model: a module, or a list of modules that run one after the other.

    `block` is the name of the model's attribute that has the part, `name` that in the block. `kind` is the class of the
    module or modules, of which there are `count`. `shape` is that of what the last one returns.
    """

    block: str
    name: str
    kind: str
    count: int
    shape: tuple[int, ...]
    parameters: int

    @property
    def path(self) -> str:
        """Block and name, by which `Structure.edges` refer to the part."""
        return f"{self.block}.{self.name}"


@dataclasses.dataclass(frozen=True)
class Structure:
    """Parts of a model by block, in the order of their execution, and from which to which data flows.

    `edges` are pairs of sources and targets: paths of parts, names of `inputs` and of `outputs`, which have shapes.
    """

    blocks: dict[str, list[Part]]
    kinds: dict[str, str]  # class of each block
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]
    edges: set[tuple[str, str]]


def structure(model: FUME, height: int, width: int) -> Structure:
    """Traces a model, which may be abstract, on one pair of frames of a size.

    Parts are the modules in the model's own modules that have parameters. The modality mask, which every part reads, is
    no input here.
    """
    model = nnx.view(model, deterministic=True, use_running_average=True, together=False)
    graphdef, state = nnx.split(model)

    def forward(state, co2_frame, ch4_frame, modality_mask):
        module = nnx.merge(graphdef, state)
        capturing = nnx.capture(module, nnx.Intermediate, method_outputs=nnx.Intermediate)
        return capturing(co2_frame, ch4_frame, modality_mask)

    frame, mask = jax.ShapeDtypeStruct((1, height, width, 1), jnp.float32), jax.ShapeDtypeStruct((1, 2), jnp.float32)
    traced, shapes = jax.make_jaxpr(forward, return_shape=True)(state, frame, frame, mask)
    variables = jax.tree.unflatten(jax.tree.structure(shapes), traced.jaxpr.outvars)
    outputs, captured = variables
    order = {variable: i for i, equation in enumerate(traced.jaxpr.eqns) for variable in equation.outvars}
    parts, blocks = {}, {}
    for block, module in _children(model):
        # A layer of the model itself is its own and only part.
        for name, modules in list(_parts(module)) or [((), {(): module})]:
            if part := _describe(block, name, modules, captured, order):
                parts[part[0].path] = part
    parts = dict(sorted(parts.items(), key=lambda item: max(order[variable] for variable in item[1][1])))
    for part, _ in parts.values():
        blocks.setdefault(part.block, []).append(part)
    inputs = dict(zip(FRAMES, traced.jaxpr.invars[-3:-1], strict=True))
    owners = {variable: path for path, (_, own) in parts.items() for variable in own}
    owners |= {variable: name for name, variable in inputs.items()}
    targets = {path: own for path, (_, own) in parts.items()} | {name: [own] for name, own in outputs.items()}
    return Structure(
        blocks,
        {block: type(getattr(model, block)).__name__ for block in blocks},
        {name: variable.aval.shape for name, variable in inputs.items()},
        {name: variable.aval.shape for name, variable in outputs.items()},
        _edges(traced.jaxpr, owners, targets),
    )


def _children(module) -> Iterator[tuple[str, nnx.Module]]:
    """Yields the modules that are attributes of a module, with their names."""
    return ((name, value) for name, value in vars(module).items() if isinstance(value, nnx.Module))


def _parts(block):
    """Yields the path in the block and the modules of each of its parts; lists of lists are several parts."""
    for name, value in _children(block):
        yield from _parts_of_list((name,), value) if isinstance(value, nnx.List) else [((name,), {(name,): value})]


def _parts_of_list(path, modules):
    if any(isinstance(module, nnx.List) for module in modules):
        for i, module in enumerate(modules):
            yield from _parts_of_list((*path, i), module)
    else:
        yield path, {(*path, i): module for i, module in enumerate(modules)}


def _describe(block, name, modules, captured, order):
    """Returns a part and the variables of all that is computed in it; None if it has no parameters or never ran."""
    parameters = sum(p.size for module in modules.values() for p in jax.tree.leaves(nnx.state(module, nnx.Param)))
    variables, last = [], None
    for path in modules:
        found = captured.get(block, {})
        for key in path:
            found = found.get(key, {})
        if own := jax.tree.leaves(found):
            variables += own
            # A module may be used by another method than `__call__`.
            last = jax.tree.leaves(found["__call__"])[-1] if "__call__" in found else max(own, key=order.__getitem__)
    if not (parameters and variables):
        return None
    kind = type(next(iter(modules.values()))).__name__
    return Part(block, ".".join(map(str, name)) or kind, kind, len(modules), last.aval.shape, parameters), variables


def _edges(jaxpr, owners, targets):
    """Returns pairs of names: the owners of variables that those of each target follow from without another between."""
    equations = {variable: equation for equation in jaxpr.eqns for variable in equation.outvars}
    edges = set()
    for target, variables in targets.items():
        seen, waiting = set(), list(variables)
        while waiting:
            variable = waiting.pop()
            if not isinstance(variable, jax.extend.core.Var) or variable in seen:
                continue
            seen.add(variable)
            owner = owners.get(variable, target)
            if owner != target:
                edges.add((owner, target))
            elif variable in equations:
                waiting += equations[variable].invars
    return edges
