"""The simulator: the physics it claims, the camera and the annotator."""

import dataclasses
import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from datasets.synthetic_ogi import annotation, camera, plume
from datasets.synthetic_ogi.annotation import ROSE, annotate
from datasets.synthetic_ogi.plume import ENTRAINMENT, EXCESS_DENSITY, GRAVITY, STEP, gas_columns, mean_flow
from datasets.synthetic_ogi.scene import Viewer, draw_scene
from datasets.synthetic_ogi.simulator import draw_setting, render_recording
from fume_jax.schema import GAS, GASES, TUBE

SHAPE = {"height": 96, "width": 128}
JET, LOW_FLOW = 8.0, 0.15  # m/s


def scene(seed=0, exit_speed=JET, **changes):
    """A scene without chance: unit emission, level tube, still air, even background, no drawing."""
    plain = draw_scene(5.9, np.random.default_rng(seed))
    quiet = dataclasses.replace(
        plain.camera,
        frame_width=0.25,
        vignetting=0.0,
        netd=0.01,
        pattern=0.005,
        dust=0,
        bad_pixels=0,
        overlay=False,
        jpeg_quality=95,
    )
    still = {
        "emission": {"co2": 1.0, "ch4": 1.0},
        "mole_fraction": 0.15,
        "exit_speed": exit_speed,
        "bore_radius": 0.0025,
        "tube_radius": 0.003,
        "tube_length": 0.1,
        "tube_row": 0.5,
        "tube_at_right": False,
        "tube_tilt": 0.0,
        "tube_temperature": 4.0,
        "tube_texture": 0.0,
        "wind": (0.0, 0.0),
        "unsteady_wind": 0.0,
        "contrast": 3.0,
        "cooling": 0.0,
        "gradient": (0.0, 0.0),
        "clutter": 0.01,
        "drift": 0.0,
        "objects": 0,
        "camera": quiet,
    }
    return dataclasses.replace(plain, **(still | changes))


def overlap(a, b):
    return ((a == GAS) & (b == GAS)).sum() / ((a == GAS) | (b == GAS)).sum()


def film(scene, gas="co2", frames=1, seed=0, height=SHAPE["height"], width=SHAPE["width"]):
    setting = draw_setting(scene, height, width)
    return render_recording(scene, setting, gas, frames=frames, rng=np.random.default_rng(seed))


# --- mean flow ---


@pytest.mark.parametrize("exit_speed", [JET, LOW_FLOW])
@pytest.mark.parametrize("gas", GASES)
def test_the_mean_flow_conserves_gas_and_horizontal_momentum(exit_speed, gas):
    s = scene(exit_speed=exit_speed)
    flow, wide = mean_flow(s, gas), s.camera.frame_width
    volume = flow.speed * wide * (flow.radius * wide) ** 2
    gas_flux = flow.column / np.sqrt(np.pi) * flow.speed * wide * flow.radius * wide
    np.testing.assert_allclose(gas_flux, 0.15 * 0.0025**2 * exit_speed, rtol=1e-4)
    np.testing.assert_allclose(flow.dilution * volume, 0.0025**2 * exit_speed, rtol=1e-4)
    momentum = volume * flow.speed * wide * flow.direction[:, 0]
    np.testing.assert_allclose(momentum, 0.0025**2 * exit_speed**2, rtol=1e-4)


@pytest.mark.parametrize("gas", GASES)
def test_buoyancy_alone_gives_vertical_momentum(gas):
    s = scene(exit_speed=LOW_FLOW)
    flow, wide = mean_flow(s, gas), s.camera.frame_width
    momentum = (flow.speed * wide * flow.radius * wide) ** 2 * flow.direction[:, 1]
    buoyancy = GRAVITY * EXCESS_DENSITY[gas] * 0.15 * 0.0025**2 * LOW_FLOW
    np.testing.assert_allclose(momentum, buoyancy * flow.age, rtol=1e-3, atol=1e-12)


def test_a_turbulent_jet_widens_as_a_cone_and_a_low_flow_stays_thin():
    jet, low = mean_flow(scene(), "co2"), mean_flow(scene(exit_speed=LOW_FLOW), "co2")
    developed = slice(np.argmax(jet.turbulence == 1), None)
    np.testing.assert_allclose(np.diff(jet.radius[developed]) / STEP, 2 * ENTRAINMENT, rtol=0.05)
    assert not low.turbulence.any()
    assert low.radius.max() < 0.06 < 0.12 < jet.radius.max()


def test_a_low_flow_bends_within_a_few_tube_widths_co2_down_and_ch4_up_and_a_jet_does_not():
    for gas, sign in (("co2", 1), ("ch4", -1)):
        low, jet = mean_flow(scene(exit_speed=0.08), gas), mean_flow(scene(), gas)
        assert sign * low.path[round(0.1 / STEP), 1] > 0.03
        assert abs(jet.path[round(0.5 / STEP), 1]) < 0.01
    assert low.path[-1, 1] < -0.5


def test_wind_carries_a_low_flow_along():
    blown = mean_flow(scene(exit_speed=0.05, wind=(0.2, 0.0)), "co2")
    still = mean_flow(scene(exit_speed=0.05), "co2")
    assert blown.path[-1, 0] > still.path[-1, 0] + 0.2


# --- gas in the frame ---


def columns(scene, frames, seed=0, gas="co2", height=120, width=160):
    scene = dataclasses.replace(scene, shared_seed=seed)
    return [c for c, _ in gas_columns(scene, gas, frames, height, width, np.random.default_rng(seed))]


def test_a_line_of_sight_meets_the_predicted_amount_of_gas():
    s = scene(exit_speed=0.3, mole_fraction=1e-6, tube_length=0.02)  # neither turbulent nor buoyant
    flow = mean_flow(s, "co2")
    picture = np.mean([columns(s, 1, seed)[0] for seed in range(40)], axis=0)
    middle = picture[59:61, 20:40].mean()
    # Half of the films begin with the release, so that somewhat less than all show gas here.
    assert 0.5 < middle / flow.column[:50].mean() < 1.05


def test_the_front_of_a_starting_jet_moves_on():
    def reach(picture):
        return np.flatnonzero((picture > 0.1 * picture.max()).any(0)).max()

    for seed in range(12):
        first, *_, last = columns(scene(), 8, seed)
        if reach(first) < 120:
            assert reach(last) > reach(first) + 5
            return
    pytest.fail("no film begins with the release")


def test_co2_falls_and_ch4_rises_in_the_frame():
    rows = {}
    for gas in GASES:
        mask = film(scene(exit_speed=0.08), gas, seed=1)[1][0]
        rows[gas] = np.argwhere(mask == GAS)[:, 0].mean() / SHAPE["height"]
    assert rows["co2"] > 0.6
    assert rows["ch4"] < 0.4


@pytest.mark.parametrize("contrast", [3.0, -3.0])
def test_gas_is_brighter_than_a_cooler_background_and_darker_than_a_warmer_one(contrast):
    frames, masks, _ = film(scene(contrast=contrast, tube_temperature=1.3 * contrast))
    difference = frames[0][masks[0] == GAS].mean() - frames[0][masks[0] == 0].mean()
    assert np.sign(difference) == np.sign(contrast)
    assert abs(difference) > 20


def test_more_emission_shows_more_gas():
    def visibility(emission):
        return film(scene(emission={"co2": emission, "ch4": 1.0}), seed=3)[2][0]

    assert visibility(0.3) < visibility(1.0) < visibility(3.0)


def test_gas_that_cools_fades_with_the_distance():
    def brightness(cooling):
        """Above the background, of the gas near the mouth and far from it."""
        frames, masks, _ = film(scene(exit_speed=LOW_FLOW, cooling=cooling), seed=1)
        above = frames[0].astype(float) - np.median(frames[0][masks[0] == 0])
        rows = np.indices(above.shape)[0]
        near, far = (above[(masks[0] == GAS) & region] for region in (rows < 52, rows > 70))
        return near.mean(), far.mean()

    (near, far), (cooled_near, cooled_far) = brightness(0.0), brightness(0.8)
    assert cooled_far / far < 0.7 * cooled_near / near < 0.7


def test_frames_of_a_recording_are_coherent_but_not_equal():
    films = [film(scene(exit_speed=3.0), frames=2, seed=seed)[:2] for seed in range(12)]
    assert not any(np.array_equal(*frames) for frames, _ in films)
    masks = [masks for _, masks in films]
    next_frame = [overlap(*own) for own in masks]
    other_recording = [overlap(a[0], b[0]) for a, b in itertools.pairwise(masks)]
    assert min(next_frame) > 0.6
    assert np.mean(next_frame) > np.mean(other_recording) + 0.01


def test_the_background_drifts():
    still, drifting = (film(scene(drift=d, mole_fraction=1e-6), frames=12)[0].astype(float) for d in (0.0, 2.0))
    assert np.abs(drifting[-1] - drifting[0]).mean() > 3 * np.abs(still[-1] - still[0]).mean()


def test_size_changes_pixels_and_not_the_scene():
    small, large = (film(scene(), seed=3, height=h, width=w) for h, w in ((240, 320), (480, 640)))
    assert overlap(large[1][0][::2, ::2], small[1][0]) > 0.9


@pytest.mark.parametrize("width", [161, 239, 320])
def test_gas_is_where_the_mouth_is_on_detectors_of_any_width(width):
    s = scene(exit_speed=0.3, mole_fraction=1e-6, tube_length=0.5, tube_row=0.8)  # a straight and thin plume
    height = round(0.75 * width)
    rows, first = [], []
    for column in columns(s, 2, height=height, width=width):
        by_row = column.sum(1)
        rows.append((by_row * (np.arange(height) + 0.5)).sum() / by_row.sum())
        first.append(np.flatnonzero((column > 0.5 * column.max()).any(0))[0])
    np.testing.assert_allclose(rows, 0.8 * height, atol=0.05)
    np.testing.assert_allclose(first, 0.5 * width, atol=0.6)


def test_the_release_flickers_alike_for_both_gases_however_different_their_flows():
    slow = scene(exit_speed=0.08)
    flows = [mean_flow(slow, gas) for gas in GASES]
    assert abs(flows[0].age[-1] / flows[1].age[-1] - 1) > 0.02
    emitted = [plume._history(flow, 30, np.random.default_rng([7, plume.RELEASE]))[1] for flow in flows]
    np.testing.assert_array_equal(*emitted)
    assert 0.5 * plume.FLICKER < np.log(emitted[0]).std() < 2 * plume.FLICKER
    # Without buoyancy the flows are the same, and so is all that is filmed of them.
    same = scene(exit_speed=0.3, mole_fraction=1e-6)
    co2, ch4 = (columns(same, 3, gas=gas) for gas in GASES)
    np.testing.assert_allclose(co2, ch4, rtol=1e-3, atol=1e-12)
    assert np.max(co2) > 0


def test_eddies_have_unit_variance_and_no_divergence_and_are_those_of_other_sets_of_sizes():
    fields = plume._eddy_fields(np.arange(6), np.random.default_rng(0))
    some = plume._eddy_fields(np.array([1, 4]), np.random.default_rng(0))
    np.testing.assert_allclose(some, fields[[1, 4]], atol=1e-5)
    np.testing.assert_array_equal(fields[:, 0], fields[:, -1])
    np.testing.assert_array_equal(fields[:, :, 0], fields[:, :, -1])
    period = fields[:, :-1, :-1, :3]
    np.testing.assert_allclose((period**2).mean((1, 2)), 1, rtol=1e-4)
    np.testing.assert_allclose(period.mean((1, 2)), 0, atol=1e-5)
    waves = np.fft.fftfreq(plume.EDDY_GRID, 1 / plume.EDDY_GRID)
    along, across, _ = np.moveaxis(np.fft.fft2(period, axes=(1, 2)), -1, 0)
    flux = np.abs(waves * along), np.abs(waves[:, None] * across)
    # Both parts are scaled to unit variance, so a little divergence is left.
    assert np.abs(waves * along + waves[:, None] * across).max() < 0.1 * max(part.max() for part in flux)
    strongest = np.hypot(*np.meshgrid(waves, waves)).ravel()[np.abs(along).reshape(6, -1).argmax(1)]
    np.testing.assert_allclose(strongest, plume.EDDY_GRID / plume.CELLS_PER_EDDY, atol=4)


# --- camera ---


@pytest.mark.parametrize("at_right", [False, True])
def test_the_tube_enters_from_its_side_and_is_annotated_over_the_gas(at_right):
    mask = film(scene(tube_at_right=at_right))[1][0]
    assert set(np.unique(mask)) == {0, TUBE, GAS}
    tube, gas = (np.argwhere(mask == value)[:, 1] / SHAPE["width"] for value in (TUBE, GAS))
    assert (tube > 0.88).all() if at_right else (tube < 0.12).all()
    assert len(tube) > 20
    assert (gas < 0.92).all() if at_right else (gas > 0.08).all()


def test_automatic_gain_spreads_the_scene_over_the_display():
    exposure = np.linspace(-1, 9, 10001).reshape(1, -1).astype(np.float32)
    plain = dataclasses.replace(scene().camera, headroom=(0.0, 0.0))
    black, per_level = camera.automatic_gain(plain, exposure)
    assert black == pytest.approx(-1 + 0.1, abs=0.01)  # a hundredth of the pixels is darker
    assert black + 255 * per_level == pytest.approx(9 - 0.01, abs=0.01)
    even = np.zeros((4, 4), np.float32)
    assert camera.automatic_gain(plain, even)[1] == pytest.approx(plain.minimal_span / 255)


def test_noise_has_the_stated_temperature():
    s = scene(mole_fraction=1e-6, clutter=1e-4)
    s = dataclasses.replace(s, camera=dataclasses.replace(s.camera, netd=0.05, pattern=0.0, headroom=(0.1, 0.0)))
    frames = film(s, frames=8)[0].astype(float)
    far = frames[:, :30, 60:]
    per_level = (far - far.mean(0)).std() / 0.05  # grey levels per kelvin
    # The tube, 4 K, is the brightest thing; a tenth of the span is left below the background.
    assert per_level == pytest.approx(255 / (4 * 1.1), rel=0.15)


@pytest.mark.parametrize("shown", [False, True])
def test_the_camera_draws_over_the_picture_only_where_it_does(shown):
    s = scene(mole_fraction=1e-6)
    s = dataclasses.replace(s, camera=dataclasses.replace(s.camera, overlay=shown))
    changed = sum((film(s, seed=seed)[0][0][:, 110:] > 200).any() for seed in range(6))
    assert changed >= 4 if shown else changed == 0


# --- annotator ---


def disc(radius, value, shape=(120, 160), hole=0):
    y, x = np.mgrid[: shape[0], : shape[1]]
    distance = np.hypot(y - shape[0] / 2, x - shape[1] / 2)
    return np.where((distance < radius) & (distance >= hole), value, 0).astype(np.float32)


def annotated(levels, noise=0.0, tube=None):
    tube = np.zeros_like(levels) if tube is None else tube
    return annotate(levels, tube, noise, *levels.shape, Viewer())


@pytest.mark.parametrize("sign", [1, -1])
def test_visible_gas_is_outlined_and_its_visibility_is_contrast_over_noise(sign):
    mask, visibility = annotated(disc(30, sign * 60.0), noise=4.0)
    assert (mask == GAS).sum() == pytest.approx(np.pi * 30**2, rel=0.05)
    assert visibility == pytest.approx(60 / np.hypot(4, Viewer().noise), rel=0.05)


@pytest.mark.parametrize("factor, seen", [(0.9, False), (1.5, True)])
def test_what_stands_out_by_less_than_five_times_the_noise_is_not_outlined(factor, seen):
    noise = 6.0
    mask, visibility = annotated(disc(30, factor * ROSE * np.hypot(noise, Viewer().noise)), noise)
    assert (mask == GAS).any() == seen
    assert (visibility > 0) == seen


def test_small_gaps_are_closed_large_ones_are_kept_and_specks_dropped():
    assert annotated(disc(30, 60.0, hole=2))[0][60, 80] == GAS
    assert annotated(disc(45, 60.0, hole=25))[0][60, 80] == 0
    assert not annotated(disc(2, 60.0))[0].any()


def test_the_tube_covers_the_gas():
    mask, _ = annotated(disc(30, 60.0), tube=disc(10, 1.0))
    assert mask[60, 80] == TUBE
    assert mask[60, 100] == GAS


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_outlines_are_those_of_steps_over_the_whole_picture(seed):
    rng = np.random.default_rng(seed)
    coarse = rng.random(rng.integers(2, 40, 2)) < rng.uniform(0, 1)
    visible = cv2.resize(coarse.astype(np.uint8), (100, 80), interpolation=cv2.INTER_NEAREST)
    visible[:, : rng.integers(0, 60)] = 0
    visible[rng.integers(20, 81) :] = 0
    size = 100 // 60 | 1
    expected = cv2.morphologyEx(visible, cv2.MORPH_CLOSE, np.ones((size, size), np.uint8))

    def dropped(region, least):
        parts, count = ndimage.label(region, np.ones((3, 3)))
        return region * np.isin(parts, [i for i in range(1, count + 1) if (parts == i).sum() >= least])

    expected = 1 - dropped(1 - dropped(expected, 5e-3 * 8000), annotation.HOLE * 8000)
    np.testing.assert_array_equal(annotation._outlined(visible.copy(), 5e-3), expected)
