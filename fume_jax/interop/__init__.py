"""Exchange of parameters with the PyTorch implementation of FUME as mappings of arrays; needs no torch."""

from fume_jax.interop.state_dict import from_state_dict, to_state_dict

__all__ = ["from_state_dict", "to_state_dict"]
