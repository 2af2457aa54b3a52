"""What is said of frames in memory, from logits that are known, and by the pretrained model."""

import concurrent.futures
import dataclasses
import json
import multiprocessing
import pickle

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import fume_jax
from configs.pretrained import get_config as pretrained_config
from fume_jax.data.images import UnreadableFrame, read_frame
from fume_jax.inference.card import ModelCard
from fume_jax.inference.formats import PRETRAINED
from fume_jax.inference.jax_backends import JaxBackend
from fume_jax.inference.predictor import Predictor, prepare_pair, pretrained_examples
from fume_jax.runtime.errors import UserError
from fume_jax.schema import CLASSES
from fume_jax.training import weights

CARD = ModelCard(
    model="fume",
    step=1,
    height=64,
    width=80,
    gases=("co2", "ch4"),
    segmented=("co2", "ch4"),
    classifies=True,
    config={},
    config_hash="",
    metrics={},
    version="1",
)


CLASS = {"cls_logits": np.zeros(3)}


class Known:
    """Of each frame: gas where it is brighter than grey, tube where it is black; the class counts the gases."""

    uses_jax = False

    def __init__(self, card=CARD):
        self.card = card
        self.batches = []

    def __call__(self, co2_frame, ch4_frame, modality_mask):
        self.batches.append(len(modality_mask))
        outputs = {"cls_logits": np.log(np.array([[1, 2, 5]] * len(modality_mask))) * modality_mask.sum(1)[:, None]}
        for gas, frame in (("co2", co2_frame), ("ch4", ch4_frame)):
            outputs[f"{gas}_seg_logits"] = np.concatenate([0 * frame, -frame - 0.9, frame - 0.1], -1)
        return outputs


def half_bright(height, width):
    frame = np.full((height, width, 1), 100, np.uint8)
    frame[:, width // 2 :] = 250
    return frame


def test_masks_have_the_size_of_the_frame_and_what_is_measured_is_in_its_pixels():
    prediction = Predictor(Known())(co2=half_bright(128, 320))
    assert prediction.masks.keys() == {"co2"}
    mask = prediction.masks["co2"]
    assert mask.shape == (128, 320) and mask.dtype == np.uint8
    assert (mask[:, :155] == 0).all() and (mask[:, 165:] == 2).all()
    plume = prediction.plumes["co2"]
    assert plume.area_pixels == (mask == 2).sum()
    assert plume.centroid == pytest.approx((240, 63.5), abs=3)


def test_probabilities_are_the_softmax_of_the_logits_and_the_label_is_the_likeliest():
    one, two = half_bright(64, 80), half_bright(64, 80)
    prediction = Predictor(Known())(co2=one)
    assert prediction.label == "Acidotic"
    assert prediction.probabilities == pytest.approx(dict(zip(CLASSES, (1 / 8, 2 / 8, 5 / 8), strict=True)))
    both = Predictor(Known())(co2=one, ch4=two)
    assert both.probabilities == pytest.approx(dict(zip(CLASSES, (1 / 30, 4 / 30, 25 / 30), strict=True)))


def test_nothing_is_said_of_what_the_model_does_not_read():
    reads_co2 = dataclasses.replace(CARD, gases=("co2",), segmented=("co2",))
    prediction = Predictor(Known(reads_co2))(ch4=half_bright(64, 80))
    assert (prediction.label, prediction.probabilities, prediction.masks, prediction.plumes) == (None, {}, {}, {})
    segments = dataclasses.replace(CARD, classifies=False)
    prediction = Predictor(Known(segments))(ch4=half_bright(64, 80))
    assert prediction.label is None and prediction.masks.keys() == {"ch4"}


def test_frames_may_be_files_or_arrays_of_any_kind(tmp_path):
    frame = half_bright(96, 128)
    cv2.imwrite(str(tmp_path / "frame.png"), frame)
    predictor = Predictor(Known())
    expected = predictor(co2=frame).masks["co2"]
    for other in (
        tmp_path / "frame.png",
        str(tmp_path / "frame.png"),
        frame[..., 0],
        np.repeat(frame, 3, -1),
        jnp.asarray(frame),
        Image.fromarray(frame[..., 0]),
        Image.fromarray(frame[..., 0]).quantize(2),
        Image.fromarray(frame[..., 0]).convert("RGB").convert("CMYK"),
    ):
        np.testing.assert_array_equal(predictor(co2=other).masks["co2"], expected)
    deep = predictor(co2=frame.astype(np.uint16) * 100).masks["co2"]  # scaled by its own range: black and white
    assert (deep[:, 70:] == 2).all() and (deep[:, :58] == 1).all()


def test_masked_values_are_no_part_of_the_scene():
    deep = np.tile(np.linspace(20_000, 20_500, 128).astype(np.uint16), (96, 1))
    expected = Predictor(Known())(co2=deep).masks["co2"]
    masked = np.ma.masked_array(deep, mask=np.zeros_like(deep, bool))
    masked[10:20, 10:20] = 65535
    masked[10:20, 10:20] = np.ma.masked
    found = Predictor(Known())(co2=masked).masks["co2"]
    np.testing.assert_array_equal(found[30:], expected[30:])
    assert Predictor(Known())(co2=np.ma.masked_array(deep.astype(np.uint8))).masks["co2"].shape == deep.shape


def test_files_are_predicted_upright(tmp_path):
    frame = half_bright(96, 128)
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(frame[::-1, ::-1, 0]).save(tmp_path / "turned.png", exif=exif)
    expected = Predictor(Known())(co2=frame).masks["co2"]
    np.testing.assert_array_equal(Predictor(Known())(co2=tmp_path / "turned.png").masks["co2"], expected)
    np.testing.assert_array_equal(Predictor(Known())(co2=Image.open(tmp_path / "turned.png")).masks["co2"], expected)


@pytest.mark.parametrize("size", [(128, 160), (32, 40), (64, 80), (101, 77)])
def test_masks_are_the_argmax_of_the_enlarged_logits(size):
    logits = np.random.default_rng(0).normal(size=(64, 80, 3)).astype(np.float32)
    expected = cv2.resize(logits, size[::-1], interpolation=cv2.INTER_LINEAR).argmax(-1)
    interpreted = Predictor(Known()).interpret({"co2": np.zeros((*size, 1))}, {"co2_seg_logits": logits} | CLASS, 1.0)
    np.testing.assert_array_equal(interpreted.masks["co2"], expected)


def test_what_is_no_frame_is_refused(tmp_path):
    predictor = Predictor(Known())
    with pytest.raises(ValueError, match="at least one gas"):
        predictor()
    with pytest.raises(ValueError, match=r"got uint8 \(5,\)"):
        predictor(co2=np.zeros(5, np.uint8))
    (tmp_path / "bad.png").write_text("bad")
    with pytest.raises(UnreadableFrame, match=r"bad.png: not an image"):
        predictor(co2=tmp_path / "bad.png")
    with pytest.raises(ValueError, match="mode LAB"):
        predictor(co2=Image.new("LAB", (80, 64)))


@pytest.mark.parametrize(
    "pair, words",
    [
        ({"CO2": np.zeros((64, 80), np.uint8)}, "co2 or ch4, got CO2"),
        ({}, "got none"),
        ({"ch4": None}, "got none"),
        ({"co2": np.zeros((3, 64, 80, 1), np.uint8)}, r"got uint8 \(3, 64, 80, 1\)"),
    ],
)
def test_a_pair_of_a_batch_is_checked_like_one_alone(pair, words):
    with pytest.raises(ValueError, match=words):
        Predictor(Known()).predict([{"co2": half_bright(64, 80)}, pair])
    assert Predictor(Known()).predict([]) == []


def test_a_pair_is_prepared_as_training_prepares_it():
    inputs = prepare_pair({"ch4": np.full((128, 160, 1), 255, np.uint8)}, 64, 80)
    assert inputs["co2_frame"].shape == inputs["ch4_frame"].shape == (64, 80, 1)
    assert (inputs["co2_frame"] == 0).all() and (inputs["ch4_frame"] == 1).all()
    assert inputs["modality_mask"].tolist() == [0, 1]


@pytest.fixture(scope="module")
def pretrained():
    return fume_jax.Predictor.load()


def test_the_pretrained_model_is_small_and_says_what_made_it(pretrained):
    assert (PRETRAINED / weights.FILE).stat().st_size <= 4e6
    assert pretrained.card.config == json.loads(pretrained_config().to_json())
    assert pretrained.card.abstain_below is not None and pretrained.card.training_frames is not None
    assert {"test/iou_gas", "test/balanced_accuracy"} <= pretrained.card.metrics.keys()
    files = [file for files in pretrained_examples().values() for file in files.values()]
    assert len(files) == 4 and all(read_frame(file).shape == (240, 320, 1) for file in files)


@pytest.mark.slow
def test_the_pretrained_model_finds_gas_in_its_examples(pretrained):
    assert isinstance(pretrained.backend, JaxBackend)
    for files in pretrained_examples().values():
        prediction = pretrained(**files)
        for gas in ("co2", "ch4"):
            assert prediction.plumes[gas].fraction > 0.01
            assert (prediction.masks[gas] == 1).any()


@pytest.mark.slow
def test_threads_may_share_a_predictor(pretrained):
    pairs = [files | {} for files in pretrained_examples().values()]
    pairs += [{"co2": files["co2"]} for files in pretrained_examples().values()]
    expected = [pretrained(**files) for files in pairs]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: pretrained(**pairs[i % 4]), range(16)))
    for i, prediction in enumerate(found):
        assert prediction.probabilities == expected[i % 4].probabilities
        for gas, mask in prediction.masks.items():
            np.testing.assert_array_equal(mask, expected[i % 4].masks[gas])


def test_a_path_that_is_no_model_is_refused():
    with pytest.raises(UserError, match="There is no file or run folder nowhere"):
        Predictor.load("nowhere")


def in_fork(function):
    """What a forked process says."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply_async(function).get(10)


def refusal(function):
    try:
        function()
    except UserError as error:
        return str(error)


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning", "ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("load", [False, True])
def test_a_forked_process_is_told_at_once_that_it_cannot_predict(load, pretrained, monkeypatch):
    monkeypatch.setattr("tests.inference.test_predictor.inherited", pretrained, raising=False)
    told = in_fork(_load_in_fork if load else _predict_in_fork)
    assert "loaded before a fork cannot be used after it" in told and 'get_context("spawn")' in told


def _predict_in_fork():
    return refusal(lambda: inherited(co2=half_bright(64, 80)))  # noqa: F821


def _load_in_fork():
    return refusal(fume_jax.Predictor.load)


def test_a_predictor_goes_to_other_processes_by_its_path(pretrained, monkeypatch, tmp_path):
    opened = []
    monkeypatch.setattr("fume_jax.inference.predictor.open_backend", lambda *given: opened.append(given) or Known())
    monkeypatch.chdir(tmp_path)
    for given, loaded in (((), (None, None, None)), (("run", "onnx"), (str(tmp_path / "run"), "onnx", None))):
        sent = pickle.dumps(Predictor.load(*given))
        assert len(sent) < 300
        assert isinstance(pickle.loads(sent), Predictor)
        assert opened == [(*given, None) if given else (None, None, None), loaded]
        opened.clear()
    with pytest.raises(UserError, match=r"Only a predictor made by Predictor\.load can be sent"):
        pickle.dumps(Predictor(Known()))


TRAINING = {
    "size": [64, 80],
    "co2": {
        "histogram": [0, 0, 0, 0, 0, 0, 0.5, 0, 0, 0, 0, 0, 0, 0, 0, 0.5],
        "grey_distance": 5.0,
        "contrast": [1.8, 2.0],
        "sharpness": [-2.0, 0.0],
    },
}


@pytest.mark.parametrize(("limit", "expected"), [(0.6, False), (0.625, False), (0.63, True), (None, None)])
def test_a_label_below_the_limit_of_the_card_abstains(limit, expected):
    prediction = Predictor(Known(dataclasses.replace(CARD, abstain_below=limit)))(co2=half_bright(64, 80))
    assert prediction.label == "Acidotic" and prediction.abstains is expected


def test_the_limit_is_one_of_calibrated_probabilities():
    card = dataclasses.replace(CARD, abstain_below=0.5)
    assert Predictor(Known(card))(co2=half_bright(64, 80)).abstains is False
    softer = dataclasses.replace(card, temperature=3.0)
    assert Predictor(Known(softer))(co2=half_bright(64, 80)).abstains is True
    segments = dataclasses.replace(card, classifies=False)
    assert Predictor(Known(segments))(co2=half_bright(64, 80)).abstains is None


def test_frames_unlike_those_of_training_are_named():
    known, unknown = Predictor(Known(dataclasses.replace(CARD, training_frames=TRAINING))), Predictor(Known())
    frame = half_bright(64, 80)
    assert known(co2=frame).unlike_training == ()
    assert known(co2=frame // 2).unlike_training == ("grey",)
    assert known(co2=half_bright(64, 160)).unlike_training == ("size",)
    noise = np.random.default_rng(0).integers(0, 2, (64, 80), np.uint8) * 150 + 100
    assert known(co2=noise).unlike_training == ("sharpness",)
    assert known(co2=frame, ch4=half_bright(64, 160)).unlike_training == ("size",)
    assert unknown(co2=half_bright(64, 160)).unlike_training == ()


def test_a_card_with_all_that_says_how_sure_it_is_goes_through_a_file():
    card = dataclasses.replace(CARD, abstain_below=0.7, recording_abstain_below=0.6, training_frames=TRAINING)
    assert ModelCard.from_json(card.to_json()) == card
    earlier = json.loads(CARD.to_json())
    for name in ("abstain_below", "recording_abstain_below", "training_frames"):
        del earlier[name]
    assert ModelCard.from_json(json.dumps(earlier)) == CARD
