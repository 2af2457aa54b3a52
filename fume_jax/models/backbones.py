"""Encoders by name.

A backbone is an `nnx.Module` made from `in_channels`, `dtype` and `rngs`. It maps frames [N, H, W, in_channels] and
`present` [N] to fine and coarse features. Its class attributes `channels` and `strides`, in pixels of the frame, are
those of the two; heads and counts of operations read them.
"""

from fume_jax.models.deeplab import ResNet50DeepLabV3Plus
from fume_jax.models.fast_scnn import FastSCNN
from fume_jax.models.mobilenet import MobileNetV3Small
from fume_jax.models.resnet import ResNet18

BACKBONES = {
    "fast_scnn": FastSCNN,
    "mobilenet_v3_small": MobileNetV3Small,
    "resnet18": ResNet18,
    "resnet50_deeplabv3plus": ResNet50DeepLabV3Plus,
}
