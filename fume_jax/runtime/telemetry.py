"""Keeps libraries from sending anything on their own account."""

import os

# What each of them reads, as a rule while it is imported.
OFF = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime, which else keeps a device ID in the home and reports every session
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",  # the hub of Hugging Face, which Gradio imports
    "WANDB_ERROR_REPORTING": "false",  # to its makers; what a run logs goes where the user's account says
    "NNCF_CI": "1",  # to Intel, by openvino_telemetry
    "SKYPILOT_DISABLE_USAGE_COLLECTION": "1",
}


def switch_off() -> None:
    """Switches it off by environment variables that are not set yet; call it before the libraries are imported."""
    for name, value in OFF.items():
        os.environ.setdefault(name, value)
