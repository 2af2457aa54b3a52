"""Writes a model repository for NVIDIA's Triton Inference Server, which runs an ONNX file with `end_to_end`.

The layout is `NAME/config.pbtxt`, `NAME/classes.txt` and `NAME/1/model.onnx`. The configuration is a `ModelConfig` of
`protobuf/model_config.proto` in triton-inference-server/common, in the text format of protocol buffers.
"""

import shutil
from pathlib import Path

from fume_jax.inference.card import ModelCard
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.files import replace_text, replacing
from fume_jax.schema import CLASSES

# Pairs of one size that the server may run together.
MAX_BATCH = 16
LABELS = "classes.txt"
# Names of element types in ONNX files, and in the configuration.
_TYPES = {2: "TYPE_UINT8", 1: "TYPE_FP32"}


def write_repository(repository: Path, file: Path) -> Path:
    """Writes an ONNX file, its configuration and the names of the classes; returns the folder of the model.

    Raises UserError if `repository` is a file.
    """
    import onnx

    model = onnx.load(file)
    (card,) = (ModelCard.from_json(entry.value) for entry in model.metadata_props if entry.key == "card")
    folder = repository / card.model
    if any(path.exists() and not path.is_dir() for path in (repository, folder, folder / "1")):
        raise UserError(f"--triton={repository} holds a file where the folder {folder / '1'} is to be; choose another.")
    (folder / "1").mkdir(parents=True, exist_ok=True)
    with replacing(folder / "1" / "model.onnx") as part:
        shutil.copyfile(file, part)
    replace_text(folder / LABELS, "".join(f"{name}\n" for name in CLASSES))
    replace_text(folder / "config.pbtxt", _config(card.model, model.graph))
    return folder


def _config(name, graph):
    parts = [f'name: "{name}"', 'backend: "onnxruntime"', f"max_batch_size: {MAX_BATCH}", "dynamic_batching { }"]
    parts += [f"input {_tensor(value)}" for value in graph.input]
    parts += [f"output {_tensor(value)}" for value in graph.output]
    return "\n".join(parts) + "\n"


def _tensor(value):
    # The server adds the axis of the batch. A size that is not fixed is -1.
    tensor = value.type.tensor_type
    dims = ", ".join(str(dim.dim_value or -1) for dim in tensor.shape.dim[1:])
    labels = f' label_filename: "{LABELS}"' if value.name == "probabilities" else ""
    return f'{{ name: "{value.name}" data_type: {_TYPES[tensor.elem_type]} dims: [ {dims} ]{labels} }}'
