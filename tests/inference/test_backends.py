"""Every backend says what the model says, from a file that tells what it holds; bad files are refused."""

import dataclasses
import json
import os
import re
import shutil
import sys
import zipfile

import cv2
import jax
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from configs import demo, fume
from fume_jax.inference import backends, exporter
from fume_jax.inference.backends import backend_class, open_backend
from fume_jax.inference.card import ModelCard
from fume_jax.inference.formats import FORMAT_OF_SUFFIX, FORMATS
from fume_jax.inference.jax_backends import JaxBackend, WeightsBackend, create_card
from fume_jax.inference.onnx_backend import OnnxBackend
from fume_jax.inference.predictor import Predictor
from fume_jax.inference.torch_backend import TorchBackend
from fume_jax.interop import from_state_dict
from fume_jax.interop.stablehlo import PLATFORMS
from fume_jax.interop.torch_model import create_torch_model
from fume_jax.learning.augment import NORMALIZED
from fume_jax.runtime.errors import UserError
from fume_jax.schema import GAS, GASES
from fume_jax.training.checkpoint import load_config, save_config
from fume_jax.training.scoring import score_run
from tests import golden
from tests.commands import assert_refused, run
from tests.inference.test_openvino_backend import installed
from tests.runtime.test_preflight import on_small_disk

HEIGHT, WIDTH = 64, 96
# The model, and its two smallest baselines.
NAMES = ("fume", "segmentation_only", "classification_only")
METRICS = {"step": 7, "test/iou_gas": 0.5, "val/temperature": 1.5, "training_frames": {"size": [HEIGHT, WIDTH]}}


def card_and_model(name, backbone=None):
    config = fume.get_config(name)
    config.data.height, config.data.width = HEIGHT, WIDTH
    config.data.path = "data/that/nobody/has"  # whoever tests may have rendered that of the config
    weights = golden.state_dict(name)
    if backbone:
        config.model.backbone = backbone
        network = create_torch_model(name, backbone=backbone)
        weights = {key: golden.weight(key, tuple(value.shape)) for key, value in network.state_dict().items()}
    return create_card(config, 7, METRICS), from_state_dict(name, weights, backbone=config.model.backbone)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder for each model, which serves as a run folder."""
    root = tmp_path_factory.mktemp("models")
    for name in NAMES:
        card, model = card_and_model(name)
        WeightsBackend.write(root / name, model, card)
    return root


def batch(count, height=HEIGHT, width=WIDTH):
    rng = np.random.default_rng(count)
    frames = {
        f"{gas}_frame": rng.uniform(-1, 1, (count, height, width, 1)).astype(np.float32) for gas in ("co2", "ch4")
    }
    masks = np.array([[1, 1], [1, 0], [0, 1]], np.float32)
    return frames | {"modality_mask": masks[np.arange(count) % 3]}


@pytest.mark.parametrize(
    "format, name",
    [
        *(("torch", name) for name in NAMES),
        # Slow to trace; `fume` as ONNX is written below.
        pytest.param("stablehlo", "fume", marks=pytest.mark.slow),
        pytest.param("onnx", "segmentation_only", marks=pytest.mark.slow),
        pytest.param("onnx", "classification_only", marks=pytest.mark.slow),
    ],
)
def test_an_export_says_what_the_model_says(folders, tmp_path, format, name):
    check_export(JaxBackend(folders / name), tmp_path, format, counts=(1, 3))


def test_the_digest_of_a_run_tells_its_parameters_apart(folders, tmp_path):
    digest = JaxBackend(folders / "fume").card.digest
    exporter.export_run(folders / "fume", "torch", tmp_path / "model.pth")
    assert re.fullmatch("[0-9a-f]{64}", digest) and open_backend(tmp_path / "model.pth").card.digest == digest
    assert JaxBackend(folders / "fume", gas_bias=-0.75).card.digest != digest


@pytest.mark.parametrize("name", ["fume", "segmentation_only"])
def test_a_bias_of_gas_changes_the_logits_of_gas_alone(folders, tmp_path, name):
    exporter.export_run(folders / name, "weights", tmp_path / "biased", gas_bias=-0.75)
    before, after = (JaxBackend(path) for path in (folders / name, tmp_path / "biased"))
    outputs, changed = before(**batch(2)), after(**batch(2))
    for key, x in outputs.items():
        added = [0, 0, -0.75] if key.endswith("seg_logits") else 0.0
        np.testing.assert_allclose(changed[key], x + np.float32(added), atol=2e-3)
    # The scores are of the model without it. What is known of classes and frames stays.
    assert "test/iou_gas" in before.card.metrics and "test/iou_gas" not in after.card.metrics
    assert after.card.temperature == before.card.temperature == 1.5
    assert after.card.training_frames == before.card.training_frames == METRICS["training_frames"]


@pytest.mark.parametrize(
    "format", ["weights", "onnx", "torch", "stablehlo", pytest.param("openvino", marks=installed("openvino"))]
)
def test_a_margin_of_gas_takes_it_out_of_frames_that_are_not_certain(folders, tmp_path, format):
    inputs = batch(3)
    logits = [JaxBackend(folders / "fume")(**inputs)[f"{gas}_seg_logits"] for gas in GASES]
    leads = np.asarray([(x[..., GAS] - x[..., :GAS].max(-1)).max((1, 2)) for x in logits])
    bias, (least, second) = 1 - leads.min(), np.sort(leads.ravel())[:2]
    path = tmp_path / f"margin{FORMATS[format].suffix}"
    margin = float(bias + (least + second) / 2)  # which all frames but one reach
    exporter.export_run(folders / "fume", format, path, gas_bias=float(bias), gas_margin=margin)
    outputs = open_backend(path)(**inputs)
    for gas, before, lead in zip(GASES, logits, leads, strict=True):
        for x, expected, certain in zip(outputs[f"{gas}_seg_logits"], before, lead > least, strict=True):
            assert certain or (x.argmax(-1) != GAS).all()
            added = (x - expected)[..., GAS]
            np.testing.assert_allclose(added, bias if certain else added[0, 0], atol=2e-3)
            assert certain or added[0, 0] <= -least
            np.testing.assert_allclose(x[..., :GAS], expected[..., :GAS], atol=2e-3)


def test_an_export_says_in_how_many_frames_a_changed_model_finds_gas(folders, tmp_path):
    # With a bias every frame of the four examples has gas, which no margin below its size takes away.
    for number, (margin, found) in enumerate([(0.0, 4), (1e6, 0)]):
        path = tmp_path / f"{number}"
        _, source = exporter.export_run(folders / "fume", "weights", path, gas_bias=1e3, gas_margin=margin)
        words = (
            rf"examples of the pretrained model; gas is found in {found} of their frames, in [0-4] without the change"
        )
        assert re.search(words, source), source


def check_export(model, folder, format, counts):
    path = folder / f"model{FORMATS[format].suffix}"
    backend_class(format).write(path, model.model, model.card)
    exported = open_backend(path)
    assert exported.card == model.card
    for inputs in map(batch, counts):
        expected, outputs = model(**inputs), exported(**inputs)
        assert outputs.keys() == expected.keys()
        for key in expected:
            np.testing.assert_allclose(outputs[key], expected[key], atol=1e-4, rtol=0)
            assert (outputs[key].argmax(-1) == expected[key].argmax(-1)).mean() > 0.9999


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "format"),
    [
        ("mobilenet_v3_small", "onnx"),
        ("resnet18", "onnx"),
        ("resnet18", "stablehlo"),  # JAX exports what it runs, whatever the encoder
        ("resnet50_deeplabv3plus", "onnx"),
    ],
)
def test_an_export_of_another_backbone_says_what_the_model_says(tmp_path, backbone, format):
    card, model = card_and_model("segmentation_only", backbone)
    WeightsBackend.write(tmp_path / "run", model, card)
    check_export(JaxBackend(tmp_path / "run"), tmp_path, format, counts=(3,))


@pytest.fixture(scope="module")
def dynamic(folders, tiny_dataset, tmp_path_factory):
    """A run with its export as ONNX for any size, and what the command printed."""
    workdir = tmp_path_factory.mktemp("dynamic") / "run"
    shutil.copytree(folders / "fume", workdir)
    result = run("fume_jax.export", f"--workdir={workdir}", "--format=onnx", "--dynamic_size", f"--data={tiny_dataset}")
    assert result.returncode == 0, result.stderr
    return workdir, result.stdout


@pytest.mark.slow
def test_onnx_of_dynamic_size_takes_frames_of_any_size_and_has_no_normalisation_left(folders, dynamic):
    model, path = JaxBackend(folders / "fume"), dynamic[0] / "model.onnx"
    graph = onnx.load(path).graph
    assert [value.name for value in graph.input] == ["co2_frame", "ch4_frame", "modality_mask"]
    assert {value.name for value in graph.output} == {"cls_logits", "co2_seg_logits", "ch4_seg_logits"}
    shape = [dim.dim_param or dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim]
    assert shape == ["batch", 1, "height", "width"]
    assert "BatchNormalization" not in {node.op_type for node in graph.node}
    exported = open_backend(path)
    for height, width in ((65, 131), (128, 64)):
        inputs = batch(2, height, width)
        expected, outputs = model(**inputs), exported(**inputs)
        for key in expected:
            np.testing.assert_allclose(outputs[key], expected[key], atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def end_to_end(folders, tmp_path_factory):
    """An ONNX file with all that is done before and after the model."""
    path = tmp_path_factory.mktemp("end_to_end") / "model.onnx"
    model = JaxBackend(folders / "fume")
    OnnxBackend.write(path, model.model, dataclasses.replace(model.card, temperature=1.7), end_to_end=True)
    return path


def pair(co2=None, ch4=None):
    rng = np.random.default_rng(3)
    sizes = {"co2": co2, "ch4": ch4}
    return {
        gas: cv2.resize(rng.integers(0, 256, (9, 11), np.uint8), size[::-1])[..., None]
        for gas, size in sizes.items()
        if size is not None
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "frames",
    [
        pair(co2=(120, 161), ch4=(97, 130)),
        pair(co2=(HEIGHT, WIDTH), ch4=(30, 40)),
        pair(co2=(480, 640)),
        pair(ch4=(50, 200)),
    ],
    ids=lambda frames: " ".join(f"{gas} {x.shape[:2]}" for gas, x in frames.items()),
)
def test_a_file_for_both_ends_says_alone_what_a_predictor_says(end_to_end, frames):
    session = onnxruntime.InferenceSession(end_to_end)
    outputs = [output.name for output in session.get_outputs()]
    found = dict(zip(outputs, session.run(outputs, exporter.end_to_end_inputs(frames)), strict=True))
    predictor = Predictor.load(end_to_end)
    prediction = predictor.predict([frames])[0]
    for gas in GASES:
        mask = found[f"{gas}_mask"][0]
        assert mask.dtype == np.uint8
        if gas in frames:
            assert mask.shape == frames[gas].shape[:2] and (mask != prediction.masks[gas]).mean() < 1e-5
        else:
            assert not mask.any()
    np.testing.assert_allclose(found["probabilities"][0], list(prediction.probabilities.values()), atol=1e-5)
    assert predictor.card.temperature == 1.7


@pytest.mark.slow
def test_a_file_for_both_ends_has_the_logits_of_the_model_and_takes_batches(folders, end_to_end):
    model, exported = JaxBackend(folders / "fume"), open_backend(end_to_end)
    levels = np.random.default_rng(0).integers(0, 256, (2, 3, HEIGHT, WIDTH, 1))
    inputs = {f"{gas}_frame": NORMALIZED[x] for gas, x in zip(GASES, levels, strict=True)}
    inputs["modality_mask"] = np.array([[1, 1], [1, 0], [0, 1]], np.float32)
    expected, outputs = model(**inputs), exported(**inputs)
    assert outputs.keys() == expected.keys()
    for key in expected:
        np.testing.assert_allclose(outputs[key], expected[key], atol=1e-4, rtol=0)


def test_stablehlo_is_for_every_platform(folders, tmp_path):
    model = JaxBackend(folders / "classification_only")
    backend_class("stablehlo").write(tmp_path / "model.stablehlo", model.model, model.card)
    with zipfile.ZipFile(tmp_path / "model.stablehlo") as file:
        exported = jax.export.deserialize(bytearray(file.read("model.bin")))
    assert exported.platforms == PLATFORMS == ("cpu", "cuda", "tpu")


def test_a_card_tells_what_it_was_told_and_one_of_another_version_is_refused():
    card, _ = card_and_model("segmentation_only")
    assert ModelCard.from_json(card.to_json()) == card
    assert (card.gases, card.segmented, card.classifies) == (("co2",), ("co2",), False)
    other, _ = card_and_model("fume")
    assert card.config_hash != other.config_hash
    values = json.loads(card.to_json())
    with pytest.raises(UserError, match=r"another version.*colour"):
        ModelCard.from_json(json.dumps(values | {"colour": "red"}))
    del values["step"]
    with pytest.raises(UserError, match=r"another version.*step"):
        ModelCard.from_json(json.dumps(values))


# --- files that were changed, are too large, or come from earlier versions ---


def write_exports(folder):
    """Writes the smallest model in each format of one file."""
    folder.mkdir()
    card, model = card_and_model("classification_only")
    for format in set(FORMAT_OF_SUFFIX.values()) - {"openvino"}:  # which need not be installed
        backend_class(format).write(folder / f"model{FORMATS[format].suffix}", model, card)


@pytest.fixture(scope="module")
def exports(once):
    return once("exports", write_exports)


def change_onnx(path):
    model = onnx.load(path)
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weights.raw_data = bytes([weights.raw_data[0] ^ 1]) + weights.raw_data[1:]
    onnx.save(model, path)


def flip_onnx(path):
    """Flips the lowest bit of a parameter in the file."""
    weights = max(onnx.load(path).graph.initializer, key=lambda tensor: len(tensor.raw_data)).raw_data
    path.write_bytes(path.read_bytes().replace(weights, bytes([weights[0] ^ 1]) + weights[1:]))


def change_torch(path):
    loaded = torch.load(path, weights_only=True)
    loaded["model_state_dict"]["cls_head.2.bias"][0] += 1e-6
    torch.save(loaded, path)


def change_stablehlo(path):
    rewrite_zip(path, lambda name, data: data + b"x" if name == "model.bin" else data)


def rewrite_zip(path, change):
    with zipfile.ZipFile(path) as file:
        members = {name: change(name, file.read(name)) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "change"),
    [(".onnx", change_onnx), (".onnx", flip_onnx), (".pth", change_torch), (".stablehlo", change_stablehlo)],
)
def test_parameters_that_were_changed_are_refused(exports, tmp_path, suffix, change):
    path = tmp_path / f"model{suffix}"
    shutil.copy(exports / path.name, path)
    assert re.fullmatch("[0-9a-f]{64}", open_backend(path).card.digest)
    change(path)
    with pytest.raises(UserError, match=r"model\..*: the parameters are not those that were exported"):
        open_backend(path)


def undigested(card):
    values = json.loads(card)
    del values["digest"]
    return json.dumps(values)


@pytest.mark.slow
def test_exports_of_earlier_versions_without_a_digest_still_run(exports, tmp_path):
    for path in exports.iterdir():
        shutil.copy(path, tmp_path)
    model = onnx.load(tmp_path / "model.onnx")
    (entry,) = (entry for entry in model.metadata_props if entry.key == "card")
    entry.value = undigested(entry.value)
    onnx.save(model, tmp_path / "model.onnx")
    loaded = torch.load(tmp_path / "model.pth", weights_only=True)
    torch.save(loaded | {"card": undigested(loaded["card"])}, tmp_path / "model.pth")
    rewrite_zip(tmp_path / "model.stablehlo", lambda name, data: undigested(data) if name == "card.json" else data)
    for path in tmp_path.iterdir():
        backend = open_backend(path)
        assert backend.card.digest == "" and backend(**batch(1))["cls_logits"].shape == (1, 3)


def bomb(path, names):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name in names:
            file.writestr(name, bytes(2**20 + 1))


@pytest.mark.parametrize("suffix", [".stablehlo", ".pth"])
def test_an_archive_that_would_fill_the_memory_is_refused_unread(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"bomb{suffix}"
    bomb(path, ["card.json", "model.bin", "archive/data.pkl"])
    monkeypatch.setattr(backends, "MAX_BYTES", 3 * 2**20)
    with pytest.raises(UserError, match=r"bomb.* would take 0\.0 GB unpacked; expected at most"):
        open_backend(path)


@pytest.mark.parametrize("suffix", FORMAT_OF_SUFFIX)
def test_a_file_larger_than_any_model_is_refused_unread(tmp_path, suffix):
    path = tmp_path / f"large{suffix}"
    with path.open("wb") as file:
        file.truncate(backends.MAX_BYTES + 1)
    with pytest.raises(UserError, match=r"large.* has 1\.1 GB; expected a model of at most 1\.1 GB"):
        open_backend(path)


def greedy_onnx(path, card):
    """A model that wants 40 TB, for its constants as it is opened or for its result."""
    node = onnx.helper.make_node("ConstantOfShape", ["modality_mask"], ["cls_logits"])
    mask = onnx.helper.make_tensor_value_info("modality_mask", onnx.TensorProto.INT64, [1])
    logits = onnx.helper.make_tensor_value_info("cls_logits", onnx.TensorProto.FLOAT, [None])
    graph = onnx.helper.make_graph([node], "greedy", [mask], [logits])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    model.metadata_props.add(key="card", value=card.to_json())
    path.write_bytes(model.SerializeToString())


def test_memory_that_a_model_cannot_have_is_a_memory_error(tmp_path):
    greedy_onnx(tmp_path / "greedy.onnx", card_and_model("classification_only")[0])
    backend = open_backend(tmp_path / "greedy.onnx")
    with pytest.raises(MemoryError, match="Failed to allocate memory"):
        backend(modality_mask=np.array([10**13]))
    with pytest.raises(MemoryError, match="can't allocate memory"), backends.allocating():
        torch.zeros(10**15)
    with pytest.raises(ValueError, match="other"), backends.allocating():
        raise ValueError("other")


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_an_export_does_not_replace_what_is_no_file(folders, tmp_path, kind):
    path = tmp_path / "model.pth"
    os.mkfifo(path) if kind == "fifo" else path.mkdir()
    with pytest.raises(UserError, match=r"model.pth is a (file|folder) already; choose another name"):
        exporter.export_run(folders / "fume", "torch", path)
    assert path.exists() and not path.is_file()


@pytest.mark.slow
@pytest.mark.parametrize("format", ["torch", "weights"])
def test_an_export_to_a_full_disk_is_said_in_a_line_and_leaves_nothing(folders, tmp_path, format):
    path = tmp_path / f"model{FORMATS[format].suffix}"
    workdir = folders / "classification_only"
    export = f"{sys.executable} -m fume_jax.export --workdir={workdir} --format={format} --output={path}"
    result = on_small_disk(tmp_path, "100k", f"{export} ; echo code $? ; find {tmp_path}")
    assert f"code 1\n{tmp_path}\n" == result.stdout[-len(f"code 1\n{tmp_path}\n") :], result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: The disk is full (No space left on device): an export could not be written to")


def test_weights_are_the_parameters_in_half_precision(folders):
    _, model = card_and_model("fume")
    backend = JaxBackend(folders / "fume")
    exact = np.asarray(model.encoder.downsample.conv.kernel[...])
    loaded = np.asarray(backend.model.encoder.downsample.conv.kernel[...])
    np.testing.assert_array_equal(loaded, exact.astype(np.float16).astype(np.float32))
    assert not np.array_equal(loaded, exact)
    # Statistics stay as they are.
    np.testing.assert_array_equal(backend.model.fusion.norm.var[...], model.fusion.norm.var[...])
    assert backend.card.step == 7 and backend.card.metrics == METRICS


def test_weights_that_are_damaged_or_of_another_model_are_refused(folders, tmp_path):
    whole = (folders / "fume" / "weights.npz").read_bytes()
    flipped = whole[:500_000] + bytes(255 - byte for byte in whole[500_000:500_010]) + whole[500_010:]
    for name, content in (("cut", whole[:20_000]), ("none", b""), ("flipped", flipped)):
        shutil.copytree(folders / "fume", tmp_path / name)
        (tmp_path / name / "weights.npz").write_bytes(content)
        with pytest.raises(UserError, match=r"weights.npz is damaged"):
            JaxBackend(tmp_path / name)
    shutil.copytree(folders / "fume", tmp_path / "other")
    shutil.copy(folders / "classification_only" / "weights.npz", tmp_path / "other" / "weights.npz")
    with pytest.raises(UserError, match="of this model"):
        JaxBackend(tmp_path / "other")


@pytest.mark.parametrize(
    "path, name, words",
    [
        ("nothing", None, "There is no file or run folder"),
        ("RUN", "onnx", r"There is no .*model.onnx. Write it: .*fume export --workdir=.* --format=onnx"),
        (None, "stablehlo", r"export --format=stablehlo --output=model.stablehlo"),
        ("RUN", "tensorrt", "no backend 'tensorrt'; choose one of: jax, onnx"),
        ("bad.onnx", None, "bad.onnx is damaged, or not an export"),
        ("bad.stablehlo", None, "bad.stablehlo is damaged, or not an export"),
        ("bad.pth", None, "bad.pth is damaged, or not an export"),
        ("original.pth", None, "fume convert --from"),
        ("bad.txt", None, "expected a run folder, or a file that ends in .onnx, .pth, .stablehlo"),
        ("bad.onnx", "stablehlo", "Backend stablehlo does not read .*bad.onnx, which is a file for onnx"),
        ("bad.onnx", "jax", "Backend jax does not read"),
    ],
)
def test_what_is_no_model_is_refused(folders, tmp_path, path, name, words):
    for ending in ("onnx", "stablehlo", "pth", "txt"):
        (tmp_path / f"bad.{ending}").write_bytes(b"bad")
    torch.save({"model_state_dict": {}}, tmp_path / "original.pth")
    with pytest.raises(UserError, match=words):
        open_backend(path and (folders / "fume" if path == "RUN" else tmp_path / path), name)


@pytest.mark.slow
def test_an_export_that_differs_from_the_model_is_not_written(folders, tmp_path, monkeypatch):
    class Altered(TorchBackend):
        def __call__(self, **inputs):
            return {name: x + 1e-3 * (name == "cls_logits") for name, x in super().__call__(**inputs).items()}

    monkeypatch.setattr(exporter, "backend_class", lambda _: Altered)
    (tmp_path / "model.pth").write_text("earlier")
    with pytest.raises(
        UserError, match=r"differs from the model on the examples of the pretrained model: cls_logits by .*1.0e-03"
    ):
        exporter.export_run(folders / "fume", "torch", tmp_path / "model.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth"]
    assert (tmp_path / "model.pth").read_text() == "earlier"


def test_comparison_counts_what_differs():
    def backend(logits):
        return lambda **_: {"cls_logits": np.array(logits, np.float32)}

    one, other = backend([[1, 2, 3], [3, 2, 1]]), backend([[1, 2, 3.5], [1, 2, 1]])
    (parity,) = exporter.compare(one, other, [{}, {}])
    assert (parity.max_error, parity.agreement, parity.decisions) == (2.0, 0.5, 4)
    (parity,) = exporter.compare(one, backend([[np.nan] * 3] * 2), [{}])
    assert parity.max_error == np.inf


@pytest.mark.slow
def test_the_command_exports_a_run_checks_it_on_its_data_and_prediction_takes_the_file(dynamic, tiny_dataset, tmp_path):
    workdir, printed = dynamic
    assert f"Wrote {workdir / 'model.onnx'}." in printed
    assert f"the test split of {tiny_dataset}" in printed
    assert printed.count("100.0000%") == 3
    frames = [f"--{gas}={exporter.pretrained_examples()['healthy_jet'][gas]}" for gas in ("co2", "ch4")]
    rows = []
    for options in (["--backend=onnx", f"--workdir={workdir}"], [f"--model={workdir / 'model.onnx'}"]):
        output = tmp_path / f"output{len(rows)}"
        result = run("fume_jax.predict", *frames, *options, f"--output={output}")
        assert result.returncode == 0, result.stderr
        rows.append(json.loads((output / "predictions.jsonl").read_text()))
        del rows[-1]["milliseconds"]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--format=onnx"], "--output=PATH"),
        (
            ["--format=onnx", "--workdir=run", "--gas_margin=3"],
            "add --output=PATH. The file in run is the run as it is",
        ),
        (["--format=onnx", "--workdir=run", "--gas_bias=-1"], "--gas_bias would make another model"),
        (["--format=openvino", "--workdir=run", "--int8"], "--int8 would make another model"),
        (["--format=onnx", "--output=model.pth"], "does not end in .onnx"),
        (["--format=stablehlo", "--output=m.stablehlo", "--dynamic_size"], "is for --format=onnx"),
        (["--format=torch", "--output=m.pth", "--end_to_end"], "--end_to_end is for --format=onnx"),
        (["--format=onnx", "--output=m.onnx", "--end_to_end", "--dynamic_size"], "do not go together"),
        (["--format=stablehlo", "--output=m.stablehlo", "--int8"], "--int8 is for --format=onnx and openvino"),
        (["--format=onnx", "--output=m.onnx", "--triton=models"], "--triton needs --end_to_end"),
        (["--format=tflite", "--output=m"], "tflite"),
        (["--format=torch", "--output=m.pth", "--gas_bias=less"], "gas_bias"),
        (["--format=torch", "--output=m.pth", "--gas_margin=-1"], "--gas_margin=-1.0: expected a number of at least 0"),
        (["--format=torch", "--output=m.pth", "--gas_bias=nan"], "--gas_bias=nan: expected a number"),
        (["--format=torch", "--workdir=configs"], "is not a run folder"),
    ],
)
def test_mistakes_in_an_export_are_said_in_plain_words(arguments, words):
    assert_refused(run("fume_jax.export", *arguments), words)


def test_a_bias_of_gas_is_refused_for_a_model_that_only_classifies(folders, tmp_path):
    with pytest.raises(UserError, match="for models that segment gas"):
        exporter.export_run(folders / "classification_only", "weights", tmp_path / "biased", gas_bias=1.0)
    assert not list(tmp_path.iterdir())


def test_weights_are_not_written_over_anything_else(folders, tmp_path):
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    shutil.copy(folders / "fume" / "weights.npz", tmp_path)
    for folder in (tmp_path, tmp_path / "checkpoints"):
        with pytest.raises(UserError, match="holds something else already"):
            exporter.export_run(folders / "fume", "weights", folder)


def test_weights_beside_checkpoints_are_not_the_model(folders, tmp_path):
    shutil.copytree(folders / "fume", tmp_path / "run")
    JaxBackend(tmp_path / "run")
    (tmp_path / "run" / "checkpoints").mkdir()
    JaxBackend(tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "3").mkdir()
    with pytest.raises(UserError, match="checkpoints/3 is damaged"):
        JaxBackend(tmp_path / "run")


def test_weights_are_not_evaluated_as_a_run(folders):
    before = sorted(folders.rglob("*"))
    with pytest.raises(UserError, match="Add --output=DIR"):
        score_run(load_config(folders / "fume"), folders / "fume")
    assert sorted(folders.rglob("*")) == before


def test_weights_are_scored_into_another_folder(folders, tmp_path):
    config = load_config(folders / "fume")
    config.data.path = str(tmp_path / "nothing")
    with pytest.raises(UserError, match="no prepared dataset"):  # the only thing that is missing
        score_run(config, str(folders / "fume"), output=str(tmp_path / "scores"))
    (tmp_path / "link").symlink_to(folders / "fume")
    with pytest.raises(UserError, match="Add --output=DIR"):
        score_run(config, str(folders / "fume"), output=str(tmp_path / "link"))


def test_training_does_not_start_in_a_folder_of_weights(folders):
    before = (folders / "fume" / "config.json").read_bytes()
    with pytest.raises(UserError, match=r"config\.init_from="):
        save_config(demo.get_config(), folders / "fume")
    assert (folders / "fume" / "config.json").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("format", ["torch", "weights", "stablehlo", "onnx"])
def test_a_run_in_bfloat16_is_exported(folders, tmp_path, format):
    shutil.copytree(folders / "classification_only", tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["model"]["dtype"] = "bfloat16"
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    path = tmp_path / f"v1.0{FORMATS[format].suffix}"
    (parity,), source = exporter.export_run(tmp_path / "run", format, path)
    assert source == "the examples of the pretrained model" and parity.output == "cls_logits"
    assert (path / "weights.npz" if format == "weights" else path).is_file()
    assert open_backend(path).card.config == config
