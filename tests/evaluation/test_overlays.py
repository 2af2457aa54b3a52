"""What people see of a prediction: overlays, frames of an annotated video, the chart of a recording."""

import os

import cv2
import numpy as np
import pytest

from fume_jax.evaluation import overlays
from fume_jax.evaluation.overlays import BACKDROP, CLASS_COLORS, GAS_COLORS, TUBE_COLOR, annotated_pair, overlay
from fume_jax.evaluation.timeline import _means, timeline_chart
from fume_jax.schema import CLASSES, GAS, GASES, IGNORE, TUBE

SIZE = (320, 240)
BAND = 28  # rows of a line of text at this size


def scene(seed, width=320, height=240):
    """A frame and a mask of ragged regions that touch, have holes and reach the border."""
    fields = np.random.default_rng(seed).standard_normal((2, height, width))
    grey, regions = (cv2.GaussianBlur(field, (0, 0), 8) for field in fields)
    frame = cv2.normalize(grey, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    return frame[..., None], np.digitize(regions, [0.0, 0.03])


def pair(**changed):
    """Arguments of an annotated pair as large as its panels."""
    frames, masks = ({gas: scene(i)[j] for i, gas in enumerate(GASES)} for j in (0, 1))
    return {
        "frames": frames,
        "masks": masks,
        "caption": "Acidotic 0.75   12.48 s",
        "probabilities": [0.05, 0.2, 0.75],
        "size": SIZE,
    } | changed


def panels(picture):
    """What is below the band, by gas, without the rows that the gas is written in."""
    left, right = np.split(picture[-SIZE[1] :], 2, axis=1)
    return {"co2": left[BAND:], "ch4": right[BAND:]}


def grey_as_rgb(frame):
    return np.repeat(frame, 3, axis=-1)


def coloured(picture, colour, tolerance=0):
    return (abs(picture.astype(int) - colour) <= tolerance).all(-1)


# --- files ---


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("shape", [(24, 32), (24, 32, 1), (24, 32, 3)])
def test_a_picture_is_written_under_any_name_in_the_format_of_its_suffix(tmp_path, suffix, shape):
    picture = np.full(shape, 200, np.uint8)
    if shape[2:] == (3,):
        picture[..., 1:] = 0  # red
    path = tmp_path / os.fsdecode(b"f\xe9") / f"{os.fsdecode(bytes([0xE9]))}{suffix}"
    overlays.save(path, picture)
    assert path.read_bytes()[:4] in (b"\x89PNG", b"\xff\xd8\xff\xe0")
    read = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    assert read.shape == (shape if shape[2:] == (3,) else shape[:2])
    as_rgb = read[..., ::-1] if read.ndim == 3 else read
    assert np.abs(as_rgb.astype(int) - picture.reshape(as_rgb.shape)).max() < 5


def test_a_picture_that_cannot_be_written_says_why(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(IsADirectoryError):
        overlays.save(tmp_path / "a.png", np.zeros((8, 8), np.uint8))
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        overlays.save(tmp_path / "file" / "b.png", np.zeros((8, 8), np.uint8))


# --- overlays and writing ---


@pytest.mark.parametrize("gas", GASES)
@pytest.mark.parametrize("width", [320, 640])
def test_an_overlay_tints_and_outlines_tube_then_gas(gas, width):
    frame, mask = scene(0, width)
    expected = grey_as_rgb(frame)
    for value, colour in ((TUBE, TUBE_COLOR), (GAS, GAS_COLORS[gas])):
        expected[mask == value] = np.rint(0.7 * expected[mask == value] + 0.3 * np.array(colour))
        region = (mask == value).astype(np.uint8)
        contours, _ = cv2.findContours(region, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(expected, contours, -1, colour, width // 320)
    assert np.unique(mask).tolist() == [0, TUBE, GAS]
    np.testing.assert_array_equal(overlay(frame[..., 0], mask, gas), expected)
    np.testing.assert_array_equal(overlay(frame[..., 0], 0 * mask, gas), grey_as_rgb(frame))


def test_pixels_of_unknown_class_are_hatched():
    mask = np.zeros((40, 60), np.uint8)
    mask[:, 30:] = IGNORE
    picture = overlay(np.full((40, 60), 100, np.uint8), mask, "co2")
    assert (picture[:, :30] == 100).all()
    assert set(np.unique(picture[:, 30:])) == {100, 205}
    stripes = (picture[:, 30:, 0] == 205).mean()
    assert stripes == 2 / overlays.HATCH


@pytest.mark.parametrize("scale", [0.5, 0.7, 1.5])
@pytest.mark.parametrize("text", ["CO2", "Transitional 0.97   1234.56 s"])
def test_text_is_white_in_a_dark_rim_that_follows_the_letters(text, scale):
    black, white = (np.full((90, 900, 3), level, np.uint8) for level in (0, 255))
    letters = overlays._write(black, text, 0, scale)[..., 0] > 128
    rim = overlays._write(white, text, 0, scale)[..., 0] < 128
    assert letters.sum() > 20
    assert not (letters & rim).any()
    around = cv2.dilate(letters.astype(np.uint8), None, iterations=2) > 0
    assert not (rim & ~around).any(), "no second copy of the text beside the first"
    touching = cv2.dilate(letters.astype(np.uint8), None) > 0
    assert (rim & touching).sum() > 0.5 * (touching & ~letters).sum()


def test_text_that_is_too_long_is_made_smaller():
    tile = np.zeros((40, 200, 3), np.uint8)
    for text in ("frame 1", "a caption of very many words that has no room"):
        columns = np.flatnonzero(overlays._write(tile, text, 0).any((0, 2)))
        assert (columns[0] >= 6) & (columns[-1] <= 194)
    assert columns[-1] > 150, "but no smaller than need be"


# --- frames of a video ---


def test_panels_show_what_is_known_of_each_gas():
    arguments = pair()
    frames, masks = arguments["frames"], arguments["masks"]
    shown = panels(annotated_pair(**arguments))
    for gas in GASES:
        np.testing.assert_array_equal(shown[gas], overlay(frames[gas][..., 0], masks[gas], gas)[BAND:])
    shown = panels(annotated_pair(**pair(masks={"co2": masks["co2"]})))
    np.testing.assert_array_equal(shown["ch4"], grey_as_rgb(frames["ch4"])[BAND:])
    lacking = annotated_pair(**pair(frames={"co2": frames["co2"]}))
    assert (panels(lacking)["ch4"] == BACKDROP).all()
    np.testing.assert_array_equal(panels(lacking)["co2"], panels(annotated_pair(**arguments))["co2"])
    dark = np.full((SIZE[1], SIZE[0], 3), BACKDROP, np.uint8)
    np.testing.assert_array_equal(lacking[-SIZE[1] :, SIZE[0] :], overlays._write(dark, "CH4 absent", 0))


def test_a_recording_of_one_gas_has_one_panel():
    alone = annotated_pair(**pair(gases=("ch4",)))
    assert alone.shape == (2 * BAND + SIZE[1], SIZE[0], 3)
    np.testing.assert_array_equal(alone[-SIZE[1] :], annotated_pair(**pair())[-SIZE[1] :, SIZE[0] :])


def test_all_frames_of_a_video_have_one_size_that_can_be_encoded():
    frame, mask = scene(3, 130, 300)
    nothing = {"frames": {}, "masks": {}, "caption": "", "probabilities": [np.nan] * 3}
    odd = {"frames": {"co2": frame}, "masks": {"co2": mask}, "caption": "words " * 50}
    for size in (SIZE, (640, 480), (460, 346), (1280, 1024)):
        shapes = {annotated_pair(**pair(size=size) | changed).shape for changed in ({}, nothing, odd)}
        ((height, width, _),) = shapes
        assert (width, height % 2) == (2 * size[0], 0)
        assert height > size[1]


@pytest.mark.parametrize(
    "width, height, shown", [(400, 100, (320, 80)), (60, 120, (120, 240)), (1280, 960, SIZE), (1, 900, (1, 240))]
)
def test_frames_keep_their_shape_in_the_middle_of_the_panel(width, height, shown):
    frame, mask = np.full((height, width, 1), 200, np.uint8), np.zeros((height, width), int)
    picture = annotated_pair(**pair(frames={"co2": frame}, masks={"co2": mask}))
    bright = coloured(panels(picture)["co2"], 200)
    rows, columns = np.flatnonzero(bright.any(1)) + BAND, np.flatnonzero(bright.any(0))
    top, left = (SIZE[1] - shown[1]) // 2, (SIZE[0] - shown[0]) // 2
    assert (columns[0], columns[-1] + 1) == (left, left + shown[0])
    assert (rows[0], rows[-1] + 1) == (max(top, BAND), top + shown[1])
    assert bright.sum() == len(rows) * len(columns)
    assert coloured(panels(picture)["co2"], BACKDROP).sum() == bright.size - bright.sum()


def test_bars_are_filled_as_far_as_classes_are_probable():
    bars = annotated_pair(**pair())[BAND : 2 * BAND]
    for i, (probability, colour) in enumerate(zip((0.05, 0.2, 0.75), CLASS_COLORS, strict=True)):
        cell = bars[1, 640 * i // 3 : 640 * (i + 1) // 3]  # above the letters
        filled = np.flatnonzero(coloured(cell, colour))
        assert filled.size == pytest.approx(probability * 640 / 3, abs=2)
        assert filled[-1] - filled[0] + 1 == filled.size
        assert filled[0] <= 1
    unknown = annotated_pair(**pair(probabilities=[np.nan] * 3))[BAND : 2 * BAND]
    assert not any(coloured(unknown, colour).any() for colour in CLASS_COLORS)
    assert (unknown > 250).all(-1).any(), "names of the classes"


def test_the_band_says_the_caption():
    first, second = (annotated_pair(**pair(caption=text)) for text in ("Healthy 0.97", "Acidotic 0.97"))
    assert (first[:BAND] != second[:BAND]).any()
    np.testing.assert_array_equal(first[BAND:], second[BAND:])
    without = annotated_pair(**pair(caption="Healthy 0.97", probabilities=None))
    np.testing.assert_array_equal(without, np.concatenate([first[:BAND], first[2 * BAND :]]))


# --- the chart of a recording ---

PROBABILITIES = np.tile([0.2, 0.3, 0.5], (40, 1))


def inside(picture):
    """What is between the left and the right edge of the axes, without ticks and legend."""
    edges = np.flatnonzero((picture.max(-1) < 40).sum(0) > 0.7 * picture.shape[0])
    assert edges[-1] - edges[0] > 0.75 * picture.shape[1]
    return picture[:, edges[0] + 3 : edges[-1] - 2]


def columns_of(picture, colour, tolerance=2):
    """How many pixels of a colour the columns within the axes have."""
    return coloured(inside(picture), colour, tolerance).sum(0)


def timeline(times=None, probabilities=None, areas=(), unit="frame"):
    areas = dict(areas)
    count = len(next(iter(areas.values()), probabilities))
    return timeline_chart(np.arange(count) if times is None else times, probabilities, areas, unit=unit)


@pytest.mark.parametrize("frames", [1, 2, 40, 3333])
def test_probabilities_are_stacked_over_the_whole_recording(frames):
    picture = timeline(probabilities=np.tile([0.2, 0.3, 0.5], (frames, 1)))
    heights = np.array([columns_of(picture, colour) for colour in CLASS_COLORS])
    assert (heights > 0).mean() > 0.95, "but for lines of the grid"
    np.testing.assert_allclose(
        np.median(heights, axis=1) / np.median(heights, axis=1).sum(), [0.2, 0.3, 0.5], atol=0.03
    )
    rows = [np.mean(np.nonzero(coloured(picture, colour))[0]) for colour in CLASS_COLORS]
    assert rows[0] > rows[1] > rows[2], "the order of the classes goes up"


@pytest.mark.parametrize("frames", [40, 4000])
def test_frames_without_a_class_leave_a_gap(frames):
    probabilities = np.tile([0.2, 0.3, 0.5], (frames, 1))
    probabilities[frames // 4 : frames // 2] = np.nan
    heights = columns_of(timeline(probabilities=probabilities), CLASS_COLORS[2])
    shown = np.flatnonzero(heights)
    (gap,) = np.flatnonzero(np.diff(shown) > 10)
    assert shown[[gap, gap + 1]] / heights.size == pytest.approx((0.25, 0.5), abs=0.01)


def test_areas_are_lines_at_their_height_with_gaps_where_a_gas_is_absent():
    co2, ch4 = np.repeat([0.1, 0.4], 20), np.repeat([0.2, np.nan], 20)
    picture = timeline(areas={"co2": co2, "ch4": ch4})
    lines, other = (coloured(inside(picture), GAS_COLORS[gas], 70) for gas in GASES)
    width = lines.shape[1]
    low, high = (np.flatnonzero(lines[:, column]).mean() for column in (width // 4, 3 * width // 4))
    between = np.flatnonzero(other[:, width // 4]).mean()
    assert (low - between) / (low - high) == pytest.approx(1 / 3, abs=0.02)
    assert lines.any(0).all()
    np.testing.assert_allclose(np.flatnonzero(other.any(0))[[0, -1]], (0, width / 2), atol=3)


def test_one_frame_of_gas_in_very_many_can_be_seen():
    areas = np.full(100_000, 0.01)
    areas[70_000] = 0.5
    pale = 255 - 0.35 * (255 - np.array(GAS_COLORS["co2"]))  # from the least to the most, behind the line of means
    heights = columns_of(timeline(areas={"co2": areas}), pale, 45)
    (tall,) = np.nonzero(heights > 100)
    assert 1 <= tall.size <= 3
    assert not (columns_of(timeline(areas={"co2": np.sort(areas)[:-1]}), pale, 45) > 100).any()


def test_a_contact_sheet_has_a_tile_for_each_picture():
    wide, flat = np.full((120, 160, 3), 90, np.uint8), np.full((30, 90, 3), 200, np.uint8)
    tiles = [(overlays.fit(picture, SIZE), ("bottle 3", "CO2 jump 0.75")) for picture in (wide, flat, wide, flat, wide)]
    assert [picture.shape for picture, _ in tiles[:2]] == [(240, 320, 3), (107, 320, 3)]
    sheet = overlays.contact_sheet(tiles, SIZE)
    assert sheet.shape == (2 * 240, 3 * 320, 3)
    assert sheet[230, [5, 325, 645], 0].tolist() == [90, BACKDROP, 90]
    assert sheet[120, [319, 639, 959], 0].tolist() == [90, 200, 90]
    assert (sheet[240:, 640:] == BACKDROP).all(), "of six places the last is empty"
    assert (sheet[:100, :320] > 240).any(), "text"


def test_times_are_to_scale():
    # Ten frames in the first second, then ten in nine.
    times = np.concatenate([np.linspace(0, 1, 10, endpoint=False), np.linspace(1, 10, 10)])
    probabilities = np.repeat([[1.0, 0, 0], [0, 0, 1.0]], 10, axis=0)
    picture = timeline(times, probabilities, unit="s")
    early, late = ((columns_of(picture, CLASS_COLORS[i]) > 100).sum() for i in (0, 2))
    assert early / (early + late) == pytest.approx(0.1, abs=0.02)


def test_means_are_of_what_is_known():
    values = np.array([1.0, 3.0, np.nan, 5.0, np.nan, np.nan, 7.0])
    np.testing.assert_array_equal(_means(values, np.array([0, 2, 4, 6])), [2, 5, np.nan, 7])


def test_a_chart_has_a_row_for_each_task_of_the_model():
    areas = {"co2": np.full(40, 0.1)}
    both = timeline(probabilities=PROBABILITIES, areas=areas)
    classes, gas = timeline(probabilities=PROBABILITIES), timeline(areas=areas)
    assert both.shape[0] > classes.shape[0] == gas.shape[0]
    assert all(coloured(both, colour).any() for colour in (*CLASS_COLORS, GAS_COLORS["co2"]))
    assert not coloured(classes, GAS_COLORS["co2"]).any()
    assert not any(coloured(gas, colour).any() for colour in CLASS_COLORS)
    assert len(CLASS_COLORS) == len(CLASSES)
    with pytest.raises(ValueError, match="probabilities or areas"):
        timeline_chart(np.arange(3), None, {}, unit="frame")


def test_a_gas_that_is_never_there_draws_nothing():
    picture = timeline(areas={"ch4": np.full(5, np.nan)})
    assert not columns_of(picture, GAS_COLORS["ch4"], 70).any()
