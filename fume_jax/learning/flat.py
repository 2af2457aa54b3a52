"""A tree of arrays as one vector: what is done to every number alike is one kernel instead of one for each array."""

import math
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Flat:
    """The arrays of a tree one after the other in a `vector`; `layout` is the tree's structure and their shapes."""

    vector: jax.Array
    layout: tuple = flax.struct.field(pytree_node=False)

    @classmethod
    def of(cls, tree, concatenate: Callable = jnp.concatenate) -> "Flat":
        """Joins the arrays of a tree, all of one dtype; on the host with `np.concatenate`."""
        leaves, structure = jax.tree.flatten(tree)
        return cls(concatenate([x.reshape(-1) for x in leaves]), (structure, tuple(x.shape for x in leaves)))

    def tree(self):
        """Returns the tree, whose arrays are slices of the vector."""
        structure, shapes = self.layout
        leaves, start = [], 0
        for shape in shapes:
            stop = start + math.prod(shape)
            leaves.append(self.vector[start:stop].reshape(shape))
            start = stop
        return structure.unflatten(leaves)


def is_flat(x) -> bool:
    """Returns whether `x` stands for a tree."""
    return isinstance(x, Flat)


def named(x):
    """Returns the tree that `x` is or stands for."""
    return x.tree() if is_flat(x) else x


def like(x, tree):
    """Returns a tree in the form of `x`: as one vector if that is one."""
    return Flat.of(tree) if is_flat(x) else tree
