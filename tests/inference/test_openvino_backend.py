"""OpenVINO files say what their ONNX files say and have their card; without OpenVINO its extra is named."""

import importlib
import importlib.util
import re
import sys

import numpy as np
import pytest

from fume_jax.inference.backends import open_backend
from fume_jax.inference.openvino_backend import OpenvinoBackend
from fume_jax.inference.quantization import quantize_openvino
from fume_jax.runtime import telemetry
from fume_jax.runtime.errors import UserError
from tests.inference.small_onnx import write_onnx
from tests.inference.test_quantization import EXACT, example


def installed(name):
    reason = f"NOT CHECKED: {name} is not installed, see the extra openvino"
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=reason)


def test_the_extra_is_named_where_openvino_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    (tmp_path / "model.xml").write_bytes(b"<net/>")
    with pytest.raises(UserError, match=r"Running OpenVINO files needs openvino.*\[openvino\]"):
        open_backend(tmp_path / "model.xml")
    with pytest.raises(UserError, match=r"Writing OpenVINO files needs openvino"):
        OpenvinoBackend.write_onnx(tmp_path / "other.xml", tmp_path / "model.onnx", EXACT)


def test_what_sends_for_openvino_cannot_be_imported():
    telemetry.switch_off()
    with pytest.raises(ImportError):
        importlib.import_module("openvino_telemetry")


@installed("openvino")
def test_a_file_says_what_its_onnx_file_says_and_is_refused_once_changed(tmp_path):
    source, path = write_onnx(tmp_path / "model.onnx", EXACT, convolved=True), tmp_path / "model.xml"
    OpenvinoBackend.write_onnx(path, source, EXACT)
    found = open_backend(path)
    assert found.card == EXACT and re.fullmatch("[0-9a-f]{64}", found.card.digest)
    inputs = {name: np.stack([x, x]) for name, x in example(0)[0].items()}
    expected, outputs = open_backend(source)(**inputs), found(**inputs)
    assert outputs.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(outputs[name], expected[name], atol=1e-5)
    parameters = path.with_suffix(".bin").read_bytes()
    path.with_suffix(".bin").write_bytes(parameters[:-1] + bytes([parameters[-1] ^ 1]))
    with pytest.raises(UserError, match="the parameters are not those that were exported"):
        open_backend(path)
    path.write_bytes(b"bad")
    with pytest.raises(UserError, match=r"model\.xml is damaged, or not an export"):
        open_backend(path)


@installed("nncf")
def test_a_file_in_8_bits_keeps_the_card(tmp_path):
    source, path = write_onnx(tmp_path / "model.onnx", EXACT, convolved=True), tmp_path / "int8.xml"
    quantize_openvino(path, source, EXACT, [example(seed) for seed in range(6)])
    assert open_backend(path).card == EXACT
    assert "FakeQuantize" in path.read_text()
