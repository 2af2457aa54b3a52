"""Writes `backbones.npz`: features that torchvision computes with the weights and a frame of this folder.

    python -m tests.golden.torchvision_features

Needs torchvision, which no test does: its wheel loads only beside the very build of PyTorch that it was made for.
"""

import numpy as np
import torch
from torch import nn
from torchvision.models import mobilenet_v3_small, resnet18, resnet50
from torchvision.models.segmentation.deeplabv3 import ASPP

from tests import golden


def first_convolution_of_one_channel(old: nn.Conv2d) -> nn.Conv2d:
    return nn.Conv2d(1, old.out_channels, old.kernel_size, old.stride, old.padding, bias=False)


def with_golden_weights(module: nn.Module, prefix: str = "") -> nn.Module:
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    module.load_state_dict({key: torch.tensor(golden.weight(prefix + key, shape)) for key, shape in shapes.items()})
    return module.eval()


def resnet_stages(network: nn.Module, prefix: str, x: torch.Tensor) -> list[torch.Tensor]:
    network.conv1, network.fc = first_convolution_of_one_channel(network.conv1), nn.Identity()
    with_golden_weights(network, prefix)
    stages = [network.maxpool(network.relu(network.bn1(network.conv1(x))))]
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        stages.append(layer(stages[-1]))
    return stages[1:]


def resnet18_features(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    stages = resnet_stages(resnet18(), "", x)
    return stages[1], stages[3]


def deeplab_features(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    network = resnet50(replace_stride_with_dilation=[False, False, True])
    stages = resnet_stages(network, "backbone.", x)
    low = nn.Sequential(nn.Conv2d(256, 48, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU())
    aspp = ASPP(2048, [6, 12, 18], out_channels=128)
    return with_golden_weights(low, "low.")(stages[0]), with_golden_weights(aspp, "aspp.")(stages[3])


def mobilenet_features(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    features = mobilenet_v3_small().features
    features[0][0] = first_convolution_of_one_channel(features[0][0])
    with_golden_weights(features, "features.")
    low = features[:4](x)
    return low, features[4:12](low)


FEATURES = {
    "resnet18": resnet18_features,
    "resnet50_deeplabv3plus": deeplab_features,
    "mobilenet_v3_small": mobilenet_features,
}


def main() -> None:
    frame = torch.tensor(golden.backbone_frame().transpose(0, 3, 1, 2))
    arrays = {}
    with torch.inference_mode():
        for name, compute in FEATURES.items():
            for part, x in zip(("low", "high"), compute(frame), strict=True):
                arrays[f"{name}/{part}"] = golden.thinned(x.numpy().transpose(0, 2, 3, 1))
    np.savez_compressed(golden.DATA / "backbones.npz", **arrays)


if __name__ == "__main__":
    main()
