"""Our PyTorch module computes what our JAX module computes, for every model and every ablation."""

import chex
import numpy as np
import pytest
import torch

from fume_jax.interop import from_state_dict, to_state_dict
from fume_jax.interop.torch_encoders import ENCODERS
from fume_jax.interop.torch_model import create_torch_model
from fume_jax.models import MODELS
from tests import golden

ABLATIONS = [
    ("fume", {"fusion": "self_attention"}),
    ("fume", {"fusion": "add"}),
    ("fume", {"fusion": "concat", "share_encoder": False}),
    ("fume", {"gas": "co2"}),
    ("fume", {"gas": "ch4", "tasks": "classification"}),
    ("fume", {"tasks": "segmentation", "gas_margin": 2.0}),
    ("multi_task", {"gas": "ch4"}),
    ("multi_task", {"gas": "both"}),
    ("gas_aware", {"gas": "both"}),
    ("early_fusion", {"gas": "co2"}),
]
BACKBONES = ("mobilenet_v3_small", "resnet18", "resnet50_deeplabv3plus")


def weights(module):
    """Random ones, the same under both names of a shared encoder."""
    shared = getattr(module, "co2_encoder", 0) is getattr(module, "ch4_encoder", 1)
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    source = {key: key.replace("ch4_encoder", "co2_encoder") if shared else key for key in shapes}
    return {key: golden.weight(source[key], shape) for key, shape in shapes.items()}


@pytest.mark.parametrize(
    "name, options, size",
    [
        *((name, {}, (64, 96)) for name in MODELS),
        *(pytest.param(name, options, (64, 96), marks=pytest.mark.slow) for name, options in ABLATIONS),
        ("segmentation_only", {"backbone": BACKBONES[0]}, (64, 96)),
        *(pytest.param("fume", {"backbone": name}, (75, 101), marks=pytest.mark.slow) for name in BACKBONES),
        pytest.param("early_fusion", {"backbone": "resnet18"}, (64, 96), marks=pytest.mark.slow),
        *(pytest.param(name, {}, (75, 101), marks=pytest.mark.slow) for name in MODELS),
        pytest.param("fume", {}, (480, 640), marks=pytest.mark.slow),
    ],
)
def test_outputs_are_equal_whatever_is_present(name, options, size):
    module = create_torch_model(name, **options).eval()
    state_dict = weights(module)
    module.load_state_dict({key: torch.tensor(value) for key, value in state_dict.items()})
    model = from_state_dict(name, state_dict, **options)
    chex.assert_trees_all_equal(to_state_dict(model), state_dict)
    modality_mask = np.array([[1, 1], [1, 0], [0, 1], [0, 0]][: 2 if size[0] > 100 else 4], np.float32)
    rng = np.random.default_rng(0)
    # An absent frame counts as zeros, whatever it holds.
    frames = rng.uniform(-1, 1, (2, len(modality_mask), *size, 1)).astype(np.float32)
    # Not compiled as one: operations are, once for all models.
    outputs = model(*frames, modality_mask)
    with torch.no_grad():
        expected = module(*(torch.tensor(frame.transpose(0, 3, 1, 2)) for frame in frames), torch.tensor(modality_mask))
    assert outputs.keys() == expected.keys()
    for key, value in expected.items():
        value = value.numpy() if value.ndim == 2 else value.numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(outputs[key], value, atol=1e-4, rtol=0, err_msg=key)


@pytest.mark.parametrize("name", MODELS)
def test_it_loads_what_we_write_and_has_the_keys_and_shapes_of_the_reference(name):
    module = create_torch_model(name)
    assert {key: list(value.shape) for key, value in module.state_dict().items()} == golden.SHAPES[name]
    written = to_state_dict(from_state_dict(name, golden.state_dict(name)))
    module.load_state_dict({key: torch.from_numpy(value) for key, value in written.items()})


@pytest.mark.parametrize("name", BACKBONES)
def test_an_encoder_computes_what_torchvision_computes(name):
    module = ENCODERS[name]().eval()
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    module.load_state_dict({key: torch.tensor(golden.weight(key, shape)) for key, shape in shapes.items()})
    with torch.no_grad():
        features = module(torch.tensor(golden.backbone_frame().transpose(0, 3, 1, 2)))
    for part, x in zip(("low", "high"), features, strict=True):
        expected = golden.BACKBONES[f"{name}/{part}"]
        np.testing.assert_allclose(
            golden.thinned(x.numpy().transpose(0, 2, 3, 1)), expected, atol=1e-4, rtol=0, err_msg=part
        )
