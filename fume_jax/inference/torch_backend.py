"""Runs a trained model in eager PyTorch."""

import io
from pathlib import Path

import ml_collections

from fume_jax.config import get_architecture, upgrade_values
from fume_jax.inference.backends import allocating, arrays_digest, nchw, nhwc, reading
from fume_jax.inference.card import ModelCard
from fume_jax.interop import to_state_dict
from fume_jax.models import FUME
from fume_jax.runtime.errors import UserError, needs_extra


class TorchBackend:
    """Runs a checkpoint file of the PyTorch implementation with a card, in eager PyTorch; extra `torch`."""

    uses_jax = False

    def __init__(self, path: Path):
        with needs_extra("torch", "A PyTorch file"):
            import torch

            from fume_jax.interop.torch_model import TorchFUME
        with reading(path):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
            if "card" not in loaded:
                convert = f"fume convert --from-torch={path} --model=NAME --workdir=DIR"
                raise UserError(f"{path} does not name its model. Convert it to a run folder: {convert}")
            self.card = ModelCard.from_json(loaded["card"])
            config = ml_collections.ConfigDict(upgrade_values(self.card.config))
            self.network = TorchFUME(get_architecture(config)).eval()
            self.network.load_state_dict(loaded["model_state_dict"])
            arrays = {key: tensor.numpy() for key, tensor in self.network.state_dict().items()}
            self.card.check(path, arrays_digest(arrays))

    @staticmethod
    def write(path: Path, model: FUME, card: ModelCard) -> None:
        """Writes a dict with `model_state_dict`, which the PyTorch implementation reads."""
        with needs_extra("torch", "A PyTorch file"):
            import torch
        arrays = to_state_dict(model)
        tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
        buffer = io.BytesIO()  # PyTorch, writing to a full disk, prints pages
        torch.save({"model_state_dict": tensors, "card": card.to_json(arrays_digest(arrays))}, buffer)
        path.write_bytes(buffer.getbuffer())

    def __call__(self, **inputs):
        import torch

        with torch.inference_mode(), allocating():
            outputs = self.network(**{name: torch.from_numpy(nchw(x)) for name, x in inputs.items()})
        return {name: nhwc(x.numpy()) for name, x in outputs.items()}
