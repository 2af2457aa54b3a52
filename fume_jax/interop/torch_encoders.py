"""The encoders as PyTorch modules, with the layers that they share with the heads. Extra `torch`.

Parameters of Fast-SCNN are named as in the PyTorch implementation of FUME, those of the others as in torchvision.
"""

import collections

import torch
import torch.nn.functional as F
from torch import nn

from fume_jax.models.deeplab import RATES, ResNet50DeepLabV3Plus
from fume_jax.models.fast_scnn import FastSCNN, PyramidPooling
from fume_jax.models.mobilenet import EPSILON, MobileNetV3Small
from fume_jax.models.resnet import ResNet


def named(**modules):
    return nn.Sequential(collections.OrderedDict(modules))


def conv_norm(in_channels, out_channels, kernel_size=1, *, eps=1e-5, **options):
    """Creates a convolution that keeps the size at stride 1, without bias, and its batch norm."""
    padding = options.get("dilation", 1) * (kernel_size // 2)
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=False, **options)
    return conv, nn.BatchNorm2d(out_channels, eps=eps)


def conv_norm_relu(*args, **options):
    conv, norm = conv_norm(*args, **options)
    return named(conv=conv, bn=norm, relu=nn.ReLU())


def depthwise_separable(in_channels, out_channels, stride=1):
    depthwise = nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False)
    pointwise, norm = conv_norm(in_channels, out_channels)
    return named(depthwise=depthwise, pointwise=pointwise, bn=norm, relu=nn.ReLU())


def resize(x, size):
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


class InvertedResidual(nn.Module):
    def __init__(self, in_channels, out_channels, stride):
        super().__init__()
        hidden = 6 * in_channels
        expand = (*conv_norm(in_channels, hidden), nn.ReLU6())
        depthwise = (*conv_norm(hidden, hidden, 3, stride=stride, groups=hidden), nn.ReLU6())
        self.conv = nn.Sequential(*expand, *depthwise, *conv_norm(hidden, out_channels))
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x):
        return x + self.conv(x) if self.shortcut else self.conv(x)


class PyramidBranch(nn.Module):
    def __init__(self, channels, bins):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(bins)
        self.conv = nn.Conv2d(channels, channels // len(PyramidPooling.BINS), 1)

    def forward(self, x):
        return resize(F.relu(self.conv(self.pool(x))), x.shape[2:])


class Pyramid(nn.Module):
    def __init__(self, channels):
        super().__init__()
        for i, bins in enumerate(PyramidPooling.BINS, 1):
            self.add_module(f"conv{i}", PyramidBranch(channels, bins))
        self.out_conv = conv_norm_relu(2 * channels, channels)

    def forward(self, x):
        branches = [getattr(self, f"conv{i}")(x) for i in range(1, len(PyramidPooling.BINS) + 1)]
        return self.out_conv(torch.cat([x, *branches], 1))


class TorchFastSCNN(nn.Module):
    """Encodes frames [N, C, H, W] to `low` [N, 64, H/8, W/8] and `high` [N, 128, H/32, W/32]."""

    def __init__(self, in_channels=1):
        super().__init__()
        self.learning_to_downsample = named(
            conv=conv_norm_relu(in_channels, 32, 3, stride=2),
            dsconv1=depthwise_separable(32, 48, stride=2),
            dsconv2=depthwise_separable(48, FastSCNN.channels[0], stride=2),
        )
        stages = {}
        for i, (in_features, features, stride) in enumerate(FastSCNN.STAGES, 1):
            blocks = [InvertedResidual(in_features, features, stride)]
            blocks += [InvertedResidual(features, features, 1) for _ in range(2)]
            stages[f"bottleneck{i}"] = nn.Sequential(*blocks)
        self.global_feature_extractor = named(**stages, ppm=Pyramid(FastSCNN.channels[1]))

    def forward(self, x):
        low = self.learning_to_downsample(x)
        return low, self.global_feature_extractor(low)


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, in_channels, width, stride, dilation):
        super().__init__()
        self.conv1, self.bn1 = conv_norm(in_channels, width, 3, stride=stride, dilation=dilation)
        self.conv2, self.bn2 = conv_norm(width, width, 3, dilation=dilation)
        self.downsample = _shortcut(in_channels, width, stride)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, in_channels, width, stride, dilation):
        super().__init__()
        self.conv1, self.bn1 = conv_norm(in_channels, width)
        self.conv2, self.bn2 = conv_norm(width, width, 3, stride=stride, dilation=dilation)
        self.conv3, self.bn3 = conv_norm(width, self.expansion * width)
        self.downsample = _shortcut(in_channels, self.expansion * width, stride)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


def _shortcut(in_channels, out_channels, stride):
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(*conv_norm(in_channels, out_channels, stride=stride))


class TorchResNet(nn.Module):
    """Returns the features of its four stages; parameters are named as in torchvision's ResNet."""

    def __init__(self, block, depths, in_channels=1, dilated=False):
        super().__init__()
        self.conv1, self.bn1 = conv_norm(in_channels, 64, 7, stride=2)
        channels = 64
        for stage, (depth, (width, stride)) in enumerate(zip(depths, ResNet.STAGES, strict=True), 1):
            dilation = 2 if dilated and stage == len(depths) else 1
            blocks = [block(channels, width, stride // dilation, 1)]
            channels = block.expansion * width
            blocks += [block(channels, width, 1, dilation) for _ in range(depth - 1)]
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))

    def forward(self, x):
        features = [F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)]
        for stage in range(1, len(ResNet.STAGES) + 1):
            features.append(getattr(self, f"layer{stage}")(features[-1]))
        return features[1:]


class TorchResNet18(TorchResNet):
    """Encodes frames [N, C, H, W] to `low` [N, 128, H/8, W/8] and `high` [N, 512, H/32, W/32]."""

    def __init__(self, in_channels=1):
        super().__init__(BasicBlock, (2, 2, 2, 2), in_channels)

    def forward(self, x):
        _, low, _, high = super().forward(x)
        return low, high


class AtrousPyramidPooling(nn.Module):
    """Named as torchvision's `ASPP`."""

    def __init__(self, in_channels, channels):
        super().__init__()
        branches = [conv_norm(in_channels, channels)]
        branches += [conv_norm(in_channels, channels, 3, dilation=rate) for rate in RATES]
        branches.append((nn.AdaptiveAvgPool2d(1), *conv_norm(in_channels, channels)))
        self.convs = nn.ModuleList(nn.Sequential(*layers, nn.ReLU()) for layers in branches)
        self.project = nn.Sequential(*conv_norm(len(branches) * channels, channels), nn.ReLU())

    def forward(self, x):
        *local, average = self.convs
        pooled = average(x).expand(-1, -1, *x.shape[2:])
        return self.project(torch.cat([*(branch(x) for branch in local), pooled], 1))


class TorchResNet50DeepLabV3Plus(nn.Module):
    """Encodes frames [N, C, H, W] to `low` [N, 48, H/4, W/4] and `high` [N, 128, H/16, W/16]."""

    def __init__(self, in_channels=1):
        super().__init__()
        low_channels, channels = ResNet50DeepLabV3Plus.channels
        self.backbone = TorchResNet(Bottleneck, (3, 4, 6, 3), in_channels, dilated=True)
        self.low = nn.Sequential(*conv_norm(256, low_channels), nn.ReLU())
        self.aspp = AtrousPyramidPooling(2048, channels)

    def forward(self, x):
        fine, _, _, coarse = self.backbone(x)
        return self.low(fine), self.aspp(coarse)


class SqueezeExcitation(nn.Module):
    def __init__(self, channels, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)

    def forward(self, x):
        return x * F.hardsigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class MobileBlock(nn.Module):
    def __init__(self, options):
        super().__init__()
        hidden, activation = options.hidden, {"relu": nn.ReLU, "hard_swish": nn.Hardswish}[options.activation]
        shape = {"kernel_size": options.size, "stride": options.stride, "groups": hidden}
        layers = {
            "expand": lambda: nn.Sequential(*conv_norm(options.in_channels, hidden, eps=EPSILON), activation()),
            "depthwise": lambda: nn.Sequential(*conv_norm(hidden, hidden, **shape, eps=EPSILON), activation()),
            "gate": lambda: SqueezeExcitation(hidden, options.squeezed),
            "project": lambda: nn.Sequential(*conv_norm(hidden, options.out_channels, eps=EPSILON)),
        }
        self.block = nn.Sequential(*(layers[name]() for name in options.layers))
        self.shortcut = options.stride == 1 and options.in_channels == options.out_channels

    def forward(self, x):
        return x + self.block(x) if self.shortcut else self.block(x)


class TorchMobileNetV3Small(nn.Module):
    """Encodes frames [N, C, H, W] to `low` [N, 24, H/8, W/8] and `high` [N, 96, H/32, W/32].

    Parameters are named as in torchvision's `mobilenet_v3_small`.
    """

    def __init__(self, in_channels=1):
        super().__init__()
        stem = nn.Sequential(*conv_norm(in_channels, 16, 3, stride=2, eps=EPSILON), nn.Hardswish())
        self.features = nn.Sequential(stem, *map(MobileBlock, MobileNetV3Small.BLOCKS))

    def forward(self, x):
        low = self.features[: MobileNetV3Small.FINE + 1](x)
        return low, self.features[MobileNetV3Small.FINE + 1 :](low)


# PyTorch twins of `fume_jax.models.backbones.BACKBONES`.
ENCODERS = {
    "fast_scnn": TorchFastSCNN,
    "mobilenet_v3_small": TorchMobileNetV3Small,
    "resnet18": TorchResNet18,
    "resnet50_deeplabv3plus": TorchResNet50DeepLabV3Plus,
}
