"""The models as PyTorch modules, named as in the state dicts of the PyTorch implementation.

They load what `to_state_dict` writes. Exports and the PyTorch baseline of the benchmarks build on them. The structure
is that of `fume_jax.models`, layer by layer; tensors are NCHW. Extra `torch`.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import nn

from fume_jax.interop.torch_encoders import ENCODERS, conv_norm, depthwise_separable, resize
from fume_jax.models import Architecture, architecture
from fume_jax.models.backbones import BACKBONES
from fume_jax.models.heads import ROUNDING
from fume_jax.schema import CLASSES, GAS, GASES, MASK_CLASSES


def create_torch_model(name: str, **options) -> nn.Module:
    """Creates the PyTorch module of a model with fresh parameters; arguments are those of `architecture`."""
    return TorchFUME(architecture(name, **options))


class SpatialAttention(nn.Module):
    def __init__(self, channels, key_channels):
        super().__init__()
        self.query_conv = nn.Conv2d(channels, key_channels, 1)
        self.key_conv = nn.Conv2d(channels, key_channels, 1)
        self.value_conv = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x, context):
        query, key, value = self.query_conv(x), self.key_conv(context), self.value_conv(context)
        weights = torch.softmax(query.flatten(2).transpose(1, 2) @ key.flatten(2), dim=-1)
        return self.gamma * (value.flatten(2) @ weights.transpose(1, 2)).reshape(x.shape)


class ChannelAttention(nn.Module):
    def __init__(self, channels, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, x):
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3))))))[:, :, None, None]


class AttentionFusion(nn.Module):
    def __init__(self, channels, cross):
        super().__init__()
        self.self_att_co2 = SpatialAttention(channels, channels // 8)
        self.self_att_ch4 = SpatialAttention(channels, channels // 8)
        self.cross_att = SpatialAttention(channels, channels // 2) if cross else None
        self.channel_att = ChannelAttention(2 * channels, channels // 8)
        merge = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.fusion_conv = nn.Sequential(merge, nn.BatchNorm2d(channels), nn.ReLU())

    def forward(self, co2, ch4, modality_mask):
        present = modality_mask[:, :, None, None, None]
        co2, ch4 = co2 * present[:, 0], ch4 * present[:, 1]
        co2, ch4 = co2 + self.self_att_co2(co2, co2), ch4 + self.self_att_ch4(ch4, ch4)
        if self.cross_att is not None:
            both = present[:, 0] * present[:, 1]
            co2, ch4 = co2 + both * self.cross_att(co2, ch4), ch4 + both * self.cross_att(ch4, co2)
        return self.fusion_conv(self.channel_att(torch.cat([co2, ch4], 1)))


class ConvFusion(nn.Sequential):
    def __init__(self, channels, mean):
        super().__init__(*conv_norm(channels if mean else 2 * channels, channels), nn.ReLU())
        self.mean = mean

    def forward(self, co2, ch4, modality_mask):
        if not self.mean:
            return super().forward(torch.cat([co2, ch4], 1))
        present = modality_mask[:, :, None, None, None]
        total = co2 * present[:, 0] + ch4 * present[:, 1]
        return super().forward(total / present.sum(1).clamp(min=1))


class FeatureFusion(nn.Module):
    def __init__(self, low_channels, channels):
        super().__init__()
        self.dwconv = depthwise_separable(low_channels, channels)
        self.conv_high = nn.Sequential(*conv_norm(channels, channels))
        gate = (nn.Conv2d(channels, channels // 4, 1), nn.ReLU(), nn.Conv2d(channels // 4, channels, 1), nn.Sigmoid())
        self.attention = nn.Sequential(nn.AdaptiveAvgPool2d(1), *gate)

    def forward(self, low, high):
        x = F.relu(self.dwconv(low) + self.conv_high(resize(high, low.shape[2:])))
        return x * self.attention(x)


class SegmentationHead(nn.Module):
    def __init__(self, low_channels, channels):
        super().__init__()
        self.feature_fusion = FeatureFusion(low_channels, channels)
        separable = (depthwise_separable(channels, channels), depthwise_separable(channels, channels))
        self.classifier = nn.Sequential(*separable, nn.Dropout2d(0.1), nn.Conv2d(channels, len(MASK_CLASSES), 1))

    def forward(self, low, high, size):
        return resize(self.classifier(self.feature_fusion(low, high)), size)


class TorchFUME(nn.Module):
    """One model of any architecture; outputs and their names are those of `fume_jax.models.FUME`."""

    def __init__(self, options: Architecture):
        super().__init__()
        self.options = options
        if options.backbone not in ENCODERS:
            known = ", ".join(ENCODERS)
            raise ValueError(f"The backbone {options.backbone!r} has no PyTorch module; those that have one: {known}.")
        encoder, channels = ENCODERS[options.backbone], BACKBONES[options.backbone].channels
        if not options.has_streams:
            self.encoder = encoder(2 if options.fusion == "early" else 1)
        else:
            self.co2_encoder = encoder()
            # A shared encoder is one module under two names, as its state dict lists it.
            self.ch4_encoder = self.co2_encoder if options.share_encoder else encoder()
        if options.segments:
            for head in ("co2_seg_head", "ch4_seg_head") if options.has_streams else ("seg_head",):
                self.add_module(head, SegmentationHead(*channels))
        if not options.classifies:
            return
        if options.fusion in ("cross_attention", "self_attention"):
            self.fusion = AttentionFusion(channels[1], cross=options.fusion == "cross_attention")
        elif options.has_streams:
            self.fusion = ConvFusion(channels[1], mean=options.fusion == "add")
        if options.gas_embedding:
            self.gas_embedding = nn.Embedding(len(GASES), options.gas_embedding)
        sizes = [channels[1] + options.gas_embedding, *options.hidden]
        hidden = ((nn.Linear(a, b), nn.ReLU(), nn.Dropout(0.5)) for a, b in itertools.pairwise(sizes))
        layers = [*itertools.chain(*hidden), nn.Linear(sizes[-1], len(CLASSES))]
        if options.gas_embedding:
            self.classifier = nn.Sequential(*layers)
        else:
            self.cls_head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *layers)

    def forward(self, co2_frame, ch4_frame, modality_mask):
        """Maps frames float32 [B, 1, H, W] and modality_mask [B, 2] to logits [B, 3] and [B, 3, H, W]."""
        options = self.options
        present = modality_mask * modality_mask.new_tensor([float(gas in options.gases) for gas in GASES])
        frames = [frame * present[:, i, None, None, None] for i, frame in enumerate((co2_frame, ch4_frame))]
        if options.fusion == "early":
            streams = {"co2": self.encoder(torch.cat(frames, 1))}
        elif options.has_streams:
            streams = {"co2": self.co2_encoder(frames[0]), "ch4": self.ch4_encoder(frames[1])}
        else:
            streams = {gas: self.encoder(frames[GASES.index(gas)]) for gas in options.gases}
        outputs = {}
        if options.classifies:
            outputs["cls_logits"] = self._classify({gas: high for gas, (_, high) in streams.items()}, present)
        for gas in options.segmented:
            head = getattr(self, f"{gas}_seg_head" if options.has_streams else "seg_head")
            outputs[f"{gas}_seg_logits"] = self._keep_certain_gas(head(*streams[gas], co2_frame.shape[2:]))
        return outputs

    def _keep_certain_gas(self, logits):
        margin = self.options.gas_margin
        if self.training or not margin:
            return logits
        gas, others = logits[:, GAS:], logits[:, :GAS]
        lead = (gas - others.amax(1, keepdim=True)).amax((1, 2, 3), keepdim=True)
        between = _over_neighbors(torch.maximum, gas) - _over_neighbors(torch.minimum, others).amax(1, keepdim=True)
        lowered = between.amax((1, 2, 3), keepdim=True).clamp(min=0) + ROUNDING
        return torch.cat([others, gas - torch.where(lead < margin, lowered, 0.0)], 1)

    def _classify(self, features, present):
        if self.options.has_streams:
            return self.cls_head(self.fusion(features["co2"], features["ch4"], present))
        logits, weights = [], []
        for gas, x in features.items():
            index = GASES.index(gas)
            if self.options.gas_embedding:
                embedding = self.gas_embedding.weight[index].expand(len(x), -1)
                logits.append(self.classifier(torch.cat([x.mean((2, 3)), embedding], 1)))
            else:
                logits.append(self.cls_head(x))
            weights.append(present[:, index])
        logits, weights = torch.stack(logits, 1), torch.stack(weights, 1)
        # An example without any gas has the logits of frames of zeros.
        weights = torch.where(weights.sum(1, keepdim=True) > 0, weights, torch.ones_like(weights))
        return (logits * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)


def _over_neighbors(reduce, x):
    """Reduces neighbours of `x` [N, C, H, W], two by two: [N, C, H - 1, W - 1]."""
    x = reduce(x[:, :, 1:], x[:, :, :-1])
    return reduce(x[..., 1:], x[..., :-1])
