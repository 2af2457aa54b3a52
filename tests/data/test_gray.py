"""Grey levels of arrays of any kind, and the range of frames with borders, no-data values and telemetry."""

import cv2
import numpy as np
import pytest

from fume_jax.data.faults import LIMIT
from fume_jax.data.gray import recording_limits, to_gray
from fume_jax.data.images import UnreadableFrame, read_frame
from fume_jax.inference.predictor import Predictor, pretrained_examples

GREY = np.tile(np.arange(0, 200, 4, dtype=np.uint8), (40, 1))
EXAMPLE = pretrained_examples()["healthy_jet"]["co2"]
SCENE = read_frame(EXAMPLE)[..., 0]
KELVIN = (29_000 + 4 * SCENE.astype(int)).astype(np.uint16)  # hundredths of a kelvin
CELSIUS = 17 + np.float32(0.04) * SCENE
COUNTS = (3000 + 25 * SCENE.astype(int)).astype(np.uint16)  # a scene nearer to 0 than it is wide
ROWS, COLUMNS = np.mgrid[: SCENE.shape[0], : SCENE.shape[1]]


def plain_scaling(image):
    """What a deep frame without anything but its scene has always been scaled to."""
    smooth = cv2.medianBlur(image.astype(np.float32) - np.float32(image.min()), 3)
    low, high = image.min() + float(smooth.min()), image.min() + float(smooth.max())
    return np.rint(np.clip((image.astype(np.float64) - low) / max(high - low, 1e-9), 0, 1) * 255).astype(np.uint8)


def border(frame, value, width=4, sides="tlbr"):
    frame = frame.copy()
    for side, lines in zip("tlbr", (np.s_[:width], np.s_[:, :width], np.s_[-width:], np.s_[:, -width:]), strict=True):
        if side in sides:
            frame[lines] = value
    return frame


def telemetry(frame, lines, at=0, every=1):
    """Writes words of any value into some rows; the words between them are 0."""
    frame = frame.copy()
    rows = np.zeros((lines, frame.shape[1]), np.uint16)
    rows[:, ::every] = np.random.default_rng(0).integers(0, 65536, rows[:, ::every].shape)
    frame[np.arange(at, at + lines)] = rows
    return frame


def turned(frame, method):
    """Registered to another camera: turned by 7 degrees, with wedges of 0 whose edges are interpolated."""
    matrix = cv2.getRotationMatrix2D((160, 120), 7, 1)
    return cv2.warpAffine(frame, matrix, frame.shape[::-1], flags=method)


def masked_corners(frame, value):
    return np.where(np.hypot(ROWS - 119.5, COLUMNS - 159.5) < 150, frame, value).astype(frame.dtype)


def burnt(frame, value):
    return np.where((ROWS < 20) & (COLUMNS < 20), value, frame).astype(frame.dtype)


SPOILT = {
    "zeros on two sides": border(KELVIN, 0, sides="tl"),
    "zeros on all sides": border(KELVIN, 0, 9),
    "a wide border": border(KELVIN, 0, 20),
    "65535 on two sides": border(KELVIN, 65535, sides="br"),
    "zeros and 65535": border(border(KELVIN, 0, 9), 65535, 3),
    "a row of 0": border(KELVIN, 0, 1, "t"),
    "a column of 0": border(KELVIN, 0, 1, "r"),
    "a row of telemetry": telemetry(KELVIN, 1),
    "three last rows of telemetry": telemetry(KELVIN, 3, at=-3),
    "two rows of telemetry, most of it 0": telemetry(KELVIN, 2, every=7),
    "a burnt corner": burnt(KELVIN, 65535),
    "corners without light": masked_corners(KELVIN, 0),
    "a dead cluster": np.where((abs(ROWS - 100) < 3) & (abs(COLUMNS - 100) < 3), 0, KELVIN).astype(np.uint16),
    "zeros near the scene": border(COUNTS, 0),
    "65535 near the scene": border(COUNTS, 12_000),
    "-9999 in int32": border(KELVIN.astype(np.int32), -9999),
    "-9999 in float32": border(CELSIUS, -9999),
    "NaN": border(CELSIUS, np.nan),
    "NaN corners": masked_corners(CELSIUS, np.nan),
    "inf": border(CELSIUS, np.inf),
    "-inf and a burnt corner": burnt(border(CELSIUS, -np.inf), 1e6),
    "the lowest float32": border(CELSIUS, np.finfo(np.float32).min),
    "beyond float32": border(CELSIUS.astype(np.float64), 1e300),
    "the largest float64": border(CELSIUS.astype(np.float64), np.finfo(np.float64).max),
    "one pixel beyond float32": np.where((ROWS == 50) & (COLUMNS == 50), -1e300, CELSIUS.astype(np.float64)),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_is_not_scene_does_not_widen_the_range(name):
    frame = SPOILT[name]
    whole = CELSIUS if frame.dtype.kind == "f" else COUNTS if "near" in name else KELVIN
    known = frame == whole
    assert known.mean() > 0.4
    levels, expected = to_gray(frame)[..., 0], plain_scaling(whole)
    assert np.ptp(levels[known].astype(int)) > 240
    assert np.abs(levels[known].astype(int) - expected[known]).max() <= 15  # what is under a border is not known
    assert not levels[~np.isfinite(frame)].any()


@pytest.mark.parametrize("method", [cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC])
def test_interpolated_edges_of_no_data_do_not_widen_the_range(method):
    levels = to_gray(turned(KELVIN, method))[..., 0]
    expected = turned(plain_scaling(KELVIN), method)
    inside = turned(np.ones_like(SCENE), cv2.INTER_NEAREST)
    inner = cv2.erode(inside, np.ones((9, 9)), borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    np.testing.assert_allclose(levels[inner].astype(int), expected[inner], atol=15)


@pytest.mark.parametrize("frame", [KELVIN, COUNTS, SCENE.astype(np.uint16), KELVIN[:40, :50], KELVIN[::8, ::8]])
def test_a_plain_deep_frame_is_scaled_as_ever(frame):
    np.testing.assert_array_equal(to_gray(frame)[..., 0], plain_scaling(frame))
    np.testing.assert_array_equal(to_gray(frame.astype(np.int64))[..., 0], plain_scaling(frame))
    np.testing.assert_array_equal(to_gray(frame.astype(np.float64))[..., 0], plain_scaling(frame))


@pytest.mark.parametrize("seed", range(30))
def test_any_part_of_a_plain_frame_is_scaled_as_ever(seed):
    random = np.random.default_rng(seed)
    (height, width), (top, left) = random.integers(1, (200, 260), 2), random.integers(0, 40, 2)
    part = SCENE[top : top + height, left : left + width].astype(float)
    if seed % 2:  # some contrast, black and white parts
        part = np.clip(part * random.uniform(1, 2.5) - random.uniform(0, 60), 0, 255)
    frame = (part * random.uniform(5, 60) + random.integers(0, 9000)).astype(np.uint16)
    np.testing.assert_array_equal(to_gray(frame)[..., 0], plain_scaling(frame))


@pytest.mark.parametrize("levels", [2, 3, 8, 20])
def test_all_values_of_a_drawing_count(levels):
    bands = np.repeat(np.linspace(0, 60_000, levels).astype(np.uint16), 200)[None].repeat(100, axis=0)
    np.testing.assert_array_equal(to_gray(bands)[..., 0], plain_scaling(bands))


def test_a_hot_object_of_many_values_counts():
    frame = KELVIN + np.where(np.hypot(ROWS - 100, COLUMNS - 100) < 10, 3 * ROWS * 10, 0).astype(np.uint16)
    np.testing.assert_array_equal(to_gray(frame)[..., 0], plain_scaling(frame))


@pytest.mark.parametrize("value", [0, 3000, 65535])
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_a_frame_of_one_value_is_black_with_any_border(value, dtype):
    flat = np.full((60, 80), value, dtype)
    assert not to_gray(flat).any()
    flat[0] = np.nan if dtype == np.float32 else value
    assert not to_gray(flat).any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zeros on two sides", "a burnt corner", "NaN", "a row of 0"])
def test_the_gas_of_a_spoilt_frame_is_that_of_the_frame(name, pretrained):
    expected = pretrained(co2=KELVIN).plumes["co2"].area_pixels
    assert expected == pytest.approx(14_426, rel=0.01)
    assert pretrained(co2=SPOILT[name]).plumes["co2"].area_pixels == pytest.approx(expected, rel=0.05)


@pytest.fixture(scope="module")
def pretrained():
    return Predictor.load()


def test_arrays_above_the_limit_are_refused(monkeypatch):
    monkeypatch.setenv(LIMIT, "0.001")
    assert to_gray(np.zeros((20, 50), np.uint8)).shape == (20, 50, 1)
    with pytest.raises(UnreadableFrame, match=rf"50x21 is more than 0.001 megapixels.*{LIMIT}"):
        to_gray(np.zeros((21, 50), np.uint8))


@pytest.mark.parametrize("dtype, scale", [(np.uint8, 1), (np.uint16, 200), (np.int32, -1), (np.float64, 1e-3)])
@pytest.mark.parametrize("shape", ["HW", "HW1", "RGB", "RGBA"])
def test_arrays_of_any_depth_and_channels_become_grey(dtype, scale, shape):
    grey = (GREY.astype(np.float64) * scale).astype(dtype)
    alpha = np.full_like(grey, 7)
    image = {
        "HW": grey,
        "HW1": grey[..., None],
        "RGB": np.stack([grey] * 3, -1),
        "RGBA": np.stack([grey, grey, grey, alpha], -1),
    }[shape]
    found = to_gray(image)
    assert found.dtype == np.uint8 and found.shape == (*GREY.shape, 1)
    expected = (
        GREY if dtype == np.uint8 else (GREY if scale > 0 else GREY.max() - GREY.astype(float)) / GREY.max() * 255
    )
    np.testing.assert_allclose(found[..., 0], expected, atol=0.51)


def test_luminance_is_that_of_rgb_and_what_is_not_finite_is_black():
    red, green, blue = np.eye(3, dtype=np.uint8) * 200
    np.testing.assert_array_equal(to_gray(np.stack([[red, green, blue]]))[0, :, 0], [60, 117, 23])  # 0.299 0.587 0.114
    np.testing.assert_array_equal(to_gray(np.array([[np.nan, 3.0, 5.0, np.inf]]))[0, :, 0], [0, 0, 255, 0])
    np.testing.assert_array_equal(to_gray(np.array([[False, True]]))[0, :, 0], [0, 255])
    with pytest.raises(UnreadableFrame, match="no finite pixel"):
        to_gray(np.full((2, 2), np.nan))


@pytest.mark.parametrize("shape", [(4,), (4, 4, 2), (4, 4, 5), (1, 4, 4, 1), (0, 4)])
def test_arrays_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="expected numbers"):
        to_gray(np.zeros(shape))


def ramp(start, height=100, width=100):
    """Numbers that rise by one from pixel to pixel along the rows, the same in all rows."""
    return np.tile(np.arange(start, start + width, dtype=np.uint16), (height, 1))


def test_the_scale_of_a_recording_lies_between_its_lowest_and_highest_scene():
    # A column is 1 % of a frame, and 0.5 % of both: 0.1 % of the pixels do not leave the first and the last one.
    assert recording_limits([ramp(1000), ramp(3000)]) == (1000, 3099)
    assert recording_limits([ramp(3000), ramp(1000), ramp(2000)]) == (1000, 3099)
    assert recording_limits([ramp(0).astype(np.float64) / 4 - 20]) == (-20, 99 / 4 - 20)


def test_what_few_pixels_have_does_not_widen_the_scale_of_a_recording():
    frames = [ramp(1000) for _ in range(20)]
    frames[3][::9, ::9], frames[4][4::9, 4::9] = 0, 65535  # dead and hot ones, alone
    frames[7][50:53, 50:53] = 9000  # 9 of 200,000 pixels are fewer than 0.1 %
    assert recording_limits(frames) == (1000, 1099)
    frames[5] = border(ramp(1000), 0)
    assert recording_limits(frames) == (1000, 1099)


def test_frames_without_a_number_do_not_count_in_the_scale_of_a_recording():
    nothing = np.full((100, 100), np.nan)
    assert recording_limits([nothing, ramp(5).astype(float)]) == (5, 104)
    assert recording_limits([nothing]) is None
    assert recording_limits([]) is None


def test_what_is_rarer_than_one_pixel_in_a_thousand_does_not_widen_the_scale_of_a_recording():
    frames = [ramp(1000) for _ in range(10)]
    frames[4][50:56, 50:56] = 1200 + np.arange(36).reshape(6, 6)  # of 100,000 pixels
    assert recording_limits(frames) == (1000, 1099)
    for frame in frames[:3]:
        frame[20:40, 20:40] = 1200 + np.arange(400).reshape(20, 20) // 4  # 1,200 of them
    low, high = recording_limits(frames)
    assert low == 1000 and 1280 < high < 1300
