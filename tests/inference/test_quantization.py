"""Files in 8 bits say nearly what the model says, keep its card, and are refused if they do worse."""

import dataclasses
import re
from unittest import mock

import numpy as np
import onnx
import pytest

from fume_jax.inference import exporter, quantization
from fume_jax.inference.backends import open_backend
from fume_jax.inference.predictor import prepare_pair
from fume_jax.inference.quality import Quality, measure_quality, read_examples
from fume_jax.runtime.errors import UserError
from fume_jax.schema import GAS, GASES, IGNORE
from tests.inference.small_onnx import write_onnx
from tests.inference.test_predictor import CARD, Known

EXACT = dataclasses.replace(CARD, height=16, width=24)


def example(seed, gases=GASES):
    rng = np.random.default_rng(seed)
    frames = {gas: rng.integers(0, 256, (16, 24, 1), np.uint8) for gas in gases}
    return prepare_pair(frames, 16, 24), {gas: GAS * (x[..., 0] > 140) for gas, x in frames.items()}


def test_the_gas_iou_is_that_of_all_known_pixels():
    inputs, masks = example(0, ("co2",))
    backend = Known(dataclasses.replace(EXACT, gases=("co2",), segmented=("co2", "ch4")))
    found = measure_quality(backend, [(inputs, masks)])
    assert found.gas_iou == 1.0 and found.classes.tolist() == [2]
    wrong = masks["co2"].copy()
    rows, columns = np.nonzero(wrong == GAS)
    wrong[rows[0], columns[0]], wrong[rows[1], columns[1]] = 0, IGNORE
    gas = (masks["co2"] == GAS).sum()
    assert measure_quality(backend, [(inputs, {"co2": wrong})]).gas_iou == pytest.approx((gas - 2) / (gas - 1))
    assert np.isnan(measure_quality(backend, [(inputs, {})]).gas_iou)


def test_examples_have_the_size_of_the_model_and_masks_for_their_gases(tiny_dataset):
    examples = read_examples(CARD, str(tiny_dataset), "val", 4)
    assert 2 <= len(examples) <= 4
    for inputs, masks in examples:
        assert inputs["co2_frame"].shape == (64, 80, 1)
        assert inputs["modality_mask"].tolist() == [gas in masks for gas in GASES]
        assert all(mask.shape == (64, 80) for mask in masks.values())


def test_a_file_in_8_bits_is_close_keeps_the_card_and_tells_a_changed_parameter(tmp_path):
    source = write_onnx(tmp_path / "model.onnx", EXACT, convolved=True)
    examples = [example(seed) for seed in range(6)]
    quantization.quantize_onnx(tmp_path / "int8.onnx", source, EXACT, examples)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["int8.onnx", "model.onnx"]
    model = onnx.load(tmp_path / "int8.onnx")
    assert onnx.TensorProto.INT8 in {tensor.data_type for tensor in model.graph.initializer}
    exact, found = open_backend(source), open_backend(tmp_path / "int8.onnx")
    assert found.card == EXACT and re.fullmatch("[0-9a-f]{64}", found.card.digest)
    inputs = {name: x[None] for name, x in examples[0][0].items()}
    expected, outputs = exact(**inputs), found(**inputs)
    error = np.abs(outputs["co2_seg_logits"] - expected["co2_seg_logits"]).max()
    assert 0 < error < 0.02
    assert "gas IoU" in quantization.check_quality(exact, exact, examples)


def test_depthwise_convolutions_and_sensitive_parts_stay_exact():
    make = onnx.helper.make_node
    nodes = [
        make("Conv", ["x", "encoder.block.weight"], ["a"], name="usual"),
        make("Conv", ["x", "encoder.block.depthwise.weight"], ["b"], name="depthwise", group=8),
        make("Conv", ["x", "fusion.merge.weight"], ["c"], name="fusion"),
        make("Relu", ["x"], ["d"], name="relu"),
    ]
    assert quantization._exact_nodes(onnx.helper.make_graph(nodes, "g", [], [])) == ["depthwise", "fusion"]


@pytest.mark.parametrize(
    ("iou", "changed", "refused"), [(0.796, 4, False), (0.794, 0, True), (0.8, 5, True), (0.9, 0, False)]
)
def test_what_does_worse_is_refused(monkeypatch, iou, changed, refused):
    classes = np.zeros(200, int)
    after = classes.copy()
    after[:changed] = 1
    answers = iter([Quality(0.8, classes), Quality(iou, after)])
    monkeypatch.setattr(quantization, "measure_quality", lambda *_: next(answers))
    if not refused:
        assert f"in 8 bits {iou:.4f}" in quantization.check_quality(None, None, [])
        return
    with pytest.raises(UserError, match=r"does worse than the model.*Nothing was written.*without --int8"):
        quantization.check_quality(None, None, [])


@pytest.mark.parametrize("pairs", [3, 200])
def test_how_many_pairs_there_were_is_said_and_few_are_warned_of(tmp_path, monkeypatch, capsys, pairs):
    monkeypatch.setattr(exporter, "read_examples", lambda card, data, split, count: [None] * min(pairs, count))
    monkeypatch.setattr(exporter, "backend_class", lambda format: mock.Mock())
    monkeypatch.setattr(quantization, "quantize_onnx", lambda *_: None)
    monkeypatch.setattr(quantization, "check_quality", lambda *_: "all is well")
    words = exporter.write_quantized("onnx", tmp_path / "m.onnx", mock.Mock(), str(tmp_path))
    warned = capsys.readouterr().out
    if pairs == 3:
        assert words == "calibrated on 3 pairs, and on 3 of the validation split all is well"
        assert warned.startswith("WARNING: 8 bits are calibrated on 3 pairs of training and checked on 3")
    else:
        assert words == "calibrated on 128 pairs, and on 200 of the validation split all is well"
        assert not warned


def test_no_file_in_8_bits_without_frames_of_training(tmp_path):
    with pytest.raises(UserError, match=r"calibrated on frames of training, and there is no .*--data=DATASET"):
        exporter.write_quantized("onnx", tmp_path / "m.onnx", Known(EXACT), str(tmp_path / "nothing"))
