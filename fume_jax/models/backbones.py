"""Encoders by name.

A backbone is an `nnx.Module` made from `in_channels`, `dtype` and `rngs`, which maps frames [N, H, W, in_channels] and
`present` [N] to fine and coarse features. It declares the `channels` of the two and their `strides`, the pixels of a
frame from one feature to the next, as class attributes; heads and counts read those.
"""

from fume_jax.models.fast_scnn import FastSCNN

BACKBONES = {"fast_scnn": FastSCNN}
