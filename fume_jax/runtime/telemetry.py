"""Keeps libraries from sending anything on their own account."""

import os
import sys

# What each of them reads, as a rule while it is imported.
OFF = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime, which else keeps a device ID in the home and reports every session
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",  # the hub of Hugging Face, which Gradio imports
    "WANDB_ERROR_REPORTING": "false",  # to its makers; what a run logs goes where the user's account says
    "SKYPILOT_DISABLE_USAGE_COLLECTION": "1",
}


def switch_off() -> None:
    """Switches it off by environment variables that are not set yet; call it before the libraries are imported.

    OpenVINO, which sends an event whenever it is imported, and nncf read none: they do without the package that sends.
    """
    for name, value in OFF.items():
        os.environ.setdefault(name, value)
    sys.modules.setdefault("openvino_telemetry", None)
