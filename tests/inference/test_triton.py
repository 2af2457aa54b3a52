"""What is written for Triton is a `ModelConfig` of its published schema, for the file beside it."""

import onnx
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from onnx import helper

from fume_jax.inference.triton import write_repository
from fume_jax.runtime.errors import UserError
from fume_jax.schema import CLASSES
from tests.inference.test_predictor import CARD

FIELD = descriptor_pb2.FieldDescriptorProto
INT32, INT64, STRING = FIELD.TYPE_INT32, FIELD.TYPE_INT64, FIELD.TYPE_STRING
# Names, numbers and kinds of those parts of triton-inference-server/common, protobuf/model_config.proto, that are used.
DATA_TYPES = {"TYPE_INVALID": 0, "TYPE_UINT8": 2, "TYPE_FP32": 11}
MESSAGES = {
    "ModelInput": {"name": (1, STRING), "data_type": (2, "DataType"), "dims": (4, [INT64])},
    "ModelOutput": {
        "name": (1, STRING),
        "data_type": (2, "DataType"),
        "dims": (3, [INT64]),
        "label_filename": (4, STRING),
    },
    "ModelDynamicBatching": {},
    "ModelConfig": {
        "name": (1, STRING),
        "max_batch_size": (4, INT32),
        "input": (5, ["ModelInput"]),
        "output": (6, ["ModelOutput"]),
        "dynamic_batching": (11, "ModelDynamicBatching"),
        "backend": (17, STRING),
    },
}


@pytest.fixture(scope="module")
def config_class():
    file = descriptor_pb2.FileDescriptorProto(name="model_config.proto", package="inference", syntax="proto3")
    kinds = file.enum_type.add(name="DataType")
    for name, number in DATA_TYPES.items():
        kinds.value.add(name=name, number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            repeated = isinstance(kind, list)
            kind = kind[0] if repeated else kind
            added = message.field.add(name=field, number=number)
            added.label = FIELD.LABEL_REPEATED if repeated else FIELD.LABEL_OPTIONAL
            if isinstance(kind, str):
                added.type = FIELD.TYPE_ENUM if kind == "DataType" else FIELD.TYPE_MESSAGE
                added.type_name = f".inference.{kind}"
            else:
                added.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))


def write_end_to_end(path):
    """A file with the inputs and outputs of one for a model of both tasks."""
    values = {"co2": (2, ["n", "h", "w"]), "modality_mask": (1, ["n", 2])}
    outputs = {"probabilities": (1, ["n", 3]), "co2_mask": (2, ["n", "h", "w"])}
    nodes = [helper.make_node("Identity", ["co2"], ["co2_mask"])]
    nodes.append(helper.make_node("Pad", ["modality_mask", "pads"], ["probabilities"]))
    pads = helper.make_tensor("pads", onnx.TensorProto.INT64, [4], [0, 0, 0, 1])
    tensors = [[helper.make_tensor_value_info(name, *x) for name, x in each.items()] for each in (values, outputs)]
    model = helper.make_model(helper.make_graph(nodes, "small", *tensors, [pads]))
    model.metadata_props.add(key="card", value=CARD.to_json())
    onnx.save(model, path)
    return path


def test_the_configuration_is_of_the_schema_and_of_the_file(config_class, tmp_path):
    file = write_end_to_end(tmp_path / "file.onnx")
    folder = write_repository(tmp_path / "models", file)
    assert sorted(str(path.relative_to(tmp_path / "models")) for path in folder.rglob("*") if path.is_file()) == [
        "fume/1/model.onnx",
        "fume/classes.txt",
        "fume/config.pbtxt",
    ]
    assert (folder / "1" / "model.onnx").read_bytes() == file.read_bytes()
    assert (folder / "classes.txt").read_text().split() == list(CLASSES)
    config = text_format.Parse((folder / "config.pbtxt").read_text(), config_class())
    assert (config.name, config.backend, config.max_batch_size) == ("fume", "onnxruntime", 16)
    assert config.HasField("dynamic_batching")
    found = {x.name: (x.data_type, list(x.dims)) for x in (*config.input, *config.output)}
    uint8, fp32 = DATA_TYPES["TYPE_UINT8"], DATA_TYPES["TYPE_FP32"]
    assert found == {
        "co2": (uint8, [-1, -1]),
        "modality_mask": (fp32, [2]),
        "probabilities": (fp32, [3]),
        "co2_mask": (uint8, [-1, -1]),
    }
    assert [x.label_filename for x in config.output] == ["classes.txt", ""]
    write_repository(tmp_path / "models", file)  # once more, over what is there


def test_a_repository_is_not_written_where_a_file_is(tmp_path):
    file = write_end_to_end(tmp_path / "file.onnx")
    with pytest.raises(UserError, match="holds a file where the folder"):
        write_repository(file, file)
