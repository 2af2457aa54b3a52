"""Scenes of every kind: what `variety.vary` draws, and that pictures and masks of such scenes belong together."""

import dataclasses
import functools

import numpy as np
import pytest

from datasets.synthetic_ogi.camera import INTERPOLATIONS, optics
from datasets.synthetic_ogi.recording import render, scene_of
from datasets.synthetic_ogi.scene import Camera, Scene, Viewer, draw_scene
from datasets.synthetic_ogi.simulator import draw_setting, render_recording
from datasets.synthetic_ogi.synthetic_ogi import SyntheticOgi
from datasets.synthetic_ogi.variety import GASLESS, VIEWS
from fume_jax.schema import BACKGROUND, GAS, GASES, TUBE
from tests.datasets.test_simulator import scene as plain_scene

DRAWS = 300
PLANS = {name: SyntheticOgi.builder_configs[name].plan()["train"] for name in ("demo", "pretraining")}
# Least and largest value of what is drawn at random.
SCENE_RANGES = {
    "tube_length": (-0.5, 0.35),
    "tube_row": (0.1, 0.9),
    "tube_tilt": (-1.75, 1.75),
    "tube_radius": (0.0015, 0.0193),
    "tube_temperature": (-20.0, 20.0),
    "tube_texture": (0.0, 1.2),
    "connectors": (0, 3),
    "unsteady_wind": (0.0, 0.03),
    "contrast": (-4.0, 4.0),
    "cooling": (0.0, 1.1),
    "clutter": (0.0005, 0.6),
    "objects": (0, 3),
    "bodies": (0, 2),
    "motion": (-0.15, 0.15),
}
CAMERA_RANGES = {
    "frame_width": (0.05, 1.7),
    "blur": (0.5, 5.0),
    "vignetting": (0.0, 0.5),
    "netd": (0.002, 0.04),
    "pattern": (0.002, 0.03),
    "jpeg_quality": (12, 96),
    "detector_width": (96, 320),
    "shake": (0.0, 8.0),
    "stripes": (0.0, 0.08),
    "ghost": (-0.15, 0.15),
    "minimal_span": (0.3, 2.0),
    "rotation": (-25.0, 25.0),
    "wedge": (0, 255),
    "shading": (-24.0, 24.0),
}
# Whose defaults are those of the laboratory.
OF_ANY_CAMERA = {"detector_width", "enlarged_by", "small_picture", "shake", "shading", "stripes", "ghost"}
OF_ANY_CAMERA |= {"any_maker", "mirrored", "rotation", "wedge"}
# What `vary` keeps, and pairs of numbers, which are checked by themselves.
KEPT = {"ph", "emission", "mole_fraction", "exit_speed", "bore_radius", "tube_at_right", "drift"}
KEPT |= {"shared_seed", "dust", "bad_pixels"}
OTHERS = {"viewer", "has_gas", "wind", "gradient", "camera", "enlarged_by", "small_picture", "gain_percentiles"}
OTHERS |= {"headroom", "overlay", "any_maker", "mirrored", "shading_center"}


@functools.cache
def of_pretraining():
    return [(plan, scene_of(plan)) for plan in PLANS["pretraining"][: 2 * DRAWS]]


def drawn():
    """Scenes of any camera."""
    return [scene for _, scene in of_pretraining() if scene.viewer != Viewer()][:DRAWS]


def filmed(scene, seed=0, height=96, width=128):
    """The first frame, its mask and the visibility of its gas."""
    recording = render_recording(
        scene, draw_setting(scene, height, width), "co2", frames=1, rng=np.random.default_rng(seed)
    )
    return tuple(part[0] for part in recording)


def with_camera(scene, **changes):
    return dataclasses.replace(scene, camera=dataclasses.replace(scene.camera, **changes))


def is_binomial(count, share, draws=DRAWS):
    """Whether a count lies within four standard deviations of its mean."""
    return abs(count - share * draws) < 4 * (draws * share * (1 - share)) ** 0.5


# --- distributions ---


@pytest.mark.parametrize("ranges, of", [(SCENE_RANGES, Scene), (CAMERA_RANGES, Camera)])
def test_every_field_is_in_range(ranges, of):
    values = [s if of is Scene else s.camera for s in drawn()]
    assert {field.name for field in dataclasses.fields(of)} <= ranges.keys() | KEPT | OTHERS
    for name, (low, high) in ranges.items():
        own = np.array([getattr(value, name) for value in values])
        assert (own >= low).all() and (own <= high).all(), name
        assert own.max() - own.min() > 0.3 * (high - low), name


def test_pairs_of_numbers_and_names_are_in_range():
    for scene in drawn():
        low, high = scene.camera.gain_percentiles
        assert 0.3 <= low <= 2.0 and 97.0 <= high <= 99.97
        below, above = scene.camera.headroom
        assert 0 <= below <= 0.9 and -0.1 <= above <= 0.9
        assert np.abs(scene.wind).max() < 0.25 and np.abs(scene.gradient).max() < 3.0
        assert (scene.viewer.noise, scene.viewer.least_area) == (1.2, 1.5e-4) and 0.08 <= scene.viewer.share <= 0.2
        assert 0.25 <= abs(scene.contrast) <= 4.0
        assert np.abs(scene.camera.shading_center).max() <= 1
        assert not scene.camera.shading or 0.3 <= abs(scene.camera.shading / scene.contrast) <= 6
    assert {scene.camera.enlarged_by for scene in drawn()} == INTERPOLATIONS.keys()
    # A picture is enlarged where it has few pixels only.
    assert all(s.camera.detector_width < 320 for s in drawn() if s.camera.small_picture)


def test_shares_are_those_stated():
    scenes = drawn()
    assert is_binomial(sum(s.contrast > 0 for s in scenes), 0.5)
    assert is_binomial(sum(not s.has_gas for s in scenes), GASLESS)
    any_camera = 1 - VIEWS["laboratory"][0]
    assert is_binomial(len([s for _, s in of_pretraining() if s.viewer == Viewer()]), 1 - any_camera, 2 * DRAWS)
    assert is_binomial(sum(s.tube_length < 0 for s in scenes), VIEWS["cloud"][0] / any_camera)
    assert is_binomial(sum(s.camera.mirrored for s in scenes), 0.3)
    assert is_binomial(sum(s.camera.rotation != 0 for s in scenes), 0.15)
    assert is_binomial(sum(s.camera.shading > 0 for s in scenes), 0.2)
    assert is_binomial(sum(s.camera.shading < 0 for s in scenes), 0.2)
    # A nozzle is mostly as warm or cold as the gas.
    assert is_binomial(sum(s.tube_temperature * s.contrast > 0 for s in scenes), 0.8)


def test_the_physics_of_the_gas_stays():
    for plan, scene in of_pretraining()[:20]:
        laboratory = draw_scene(plan.ph, np.random.default_rng([plan.seed, plan.number]))
        names = KEPT & {field.name for field in dataclasses.fields(Scene)}
        assert all(getattr(scene, name) == getattr(laboratory, name) for name in names)


def test_some_scenes_are_those_of_the_laboratory_but_for_polarity_and_gas():
    scenes = [(plan, scene) for plan, scene in of_pretraining() if scene.viewer == Viewer()]
    signs = []
    for plan, scene in scenes:
        before = draw_scene(plan.ph, np.random.default_rng([plan.seed, plan.number]))
        signs.append(np.sign(scene.contrast) * np.sign(before.contrast))
        tube = signs[-1] * before.tube_temperature
        same = dataclasses.replace(before, contrast=scene.contrast, tube_temperature=tube, has_gas=scene.has_gas)
        assert scene == same and abs(scene.contrast) == abs(before.contrast)
    assert is_binomial(sum(scene.contrast > 0 for _, scene in scenes), 0.5, len(scenes))
    assert is_binomial(sum(not scene.has_gas for _, scene in scenes), GASLESS, len(scenes))


def test_scenes_of_the_laboratory_are_as_they_were():
    laboratory = {field.name: field.default for field in dataclasses.fields(Camera)}
    for plan in PLANS["demo"][:50]:
        scene = scene_of(plan)
        assert scene == draw_scene(plan.ph, np.random.default_rng([plan.seed, plan.number]))
        assert (scene.viewer, scene.has_gas, scene.connectors, scene.bodies, scene.motion) == (Viewer(), True, 0, 0, 0)
        assert all(getattr(scene.camera, name) == laboratory[name] for name in OF_ANY_CAMERA)
    first = draw_scene(5.9, np.random.default_rng([0, 0]))
    golden = (6.621592884778759, 1.0584455453812516, 0.30109540006805924, 0.3395535897262738, 3281590885)
    assert (first.exit_speed, first.contrast, first.tube_row, first.camera.frame_width, first.shared_seed) == golden


# --- pictures and masks ---


def test_a_scene_without_gas_has_masks_without_gas():
    plans = [plan for plan, scene in of_pretraining() if not scene.has_gas][:8]
    for plan in plans:
        for example in render(dataclasses.replace(plan, height=96, width=128)):
            assert not any((example[f"{gas}_mask"] == GAS).any() for gas in GASES)
            assert not example["visibility"].any() and not example["emission"].any()
            assert any(example[f"{gas}_frame"].std() > 1 for gas in GASES)


@pytest.mark.parametrize("at_right", [False, True])
@pytest.mark.parametrize("exit_speed", [1.0, 8.0])
def test_gas_of_a_tube_out_of_view_enters_from_its_side(at_right, exit_speed):
    cloud = plain_scene(tube_length=-0.3, tube_at_right=at_right, exit_speed=exit_speed, emission={"co2": 3.0})
    for shared_seed in range(9):  # some films begin before the front is in view
        mask = filmed(dataclasses.replace(cloud, shared_seed=shared_seed))[1]
        assert not (mask == TUBE).any()
        edge = mask[:, -5:] if at_right else mask[:, :5]
        if (edge == GAS).any():
            return
    pytest.fail("no gas enters the frame")


def test_shading_grows_with_the_square_of_the_distance_from_its_center():
    camera = plain_scene().camera
    shaded = dataclasses.replace(camera, shading=2.0, shading_center=(-1.0, 0.0))
    added = np.subtract(*(optics(x, 73, 97, np.random.default_rng(0))[1] for x in (shaded, camera)))
    # At the center, in the middle of the frame and a frame width away; and half a frame height above the center.
    np.testing.assert_allclose(added[36, [0, 48, 96]], [0.0, 0.5, 2.0], atol=1e-5)
    np.testing.assert_allclose(added[0, 0], 2.0 * (0.5 * 73 / 97) ** 2, atol=1e-5)


@pytest.mark.parametrize("overlay", [False, True])
def test_a_mirrored_picture_and_its_mask_are_those_of_the_scene_mirrored(overlay):
    scene = with_camera(plain_scene(), overlay=overlay)
    picture, mask, _ = filmed(scene)
    mirrored_picture, mirrored_mask, _ = filmed(with_camera(scene, mirrored=True))
    np.testing.assert_array_equal(mirrored_picture, picture[:, ::-1])
    np.testing.assert_array_equal(mirrored_mask, mask[:, ::-1])


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [-20.0, 8.0, 25.0])
def test_a_turned_mask_lies_on_its_picture(rotation, mirrored):
    scene = plain_scene(tube_temperature=3.0, contrast=3.0, emission={"co2": 5.0})
    straight, straight_mask, _ = filmed(scene)
    picture, mask, _ = filmed(with_camera(scene, rotation=rotation, mirrored=mirrored, wedge=114))
    assert set(np.unique(mask)) == {BACKGROUND, TUBE, GAS}
    assert (picture[[0, 0, -1, -1], [0, -1, 0, -1]] == 114).sum() >= 2

    def contrast(picture, mask, foreground):
        inside = (mask != BACKGROUND) & foreground
        return picture[inside].mean() - picture[(mask == BACKGROUND) & foreground].mean()

    everywhere, turned = np.ones(mask.shape, bool), picture != 114
    assert contrast(picture, mask, turned) > 0.9 * contrast(straight, straight_mask, everywhere) > 50
    # A mask that lies elsewhere does not fit.
    assert contrast(picture, mask[:, ::-1], turned) < 0.5 * contrast(picture, mask, turned)
    assert (mask == TUBE).sum() > 0.5 * (straight_mask == TUBE).sum()


@pytest.mark.parametrize("sign", [1, -1])
def test_gas_of_both_polarities_is_outlined_where_it_differs(sign):
    scene = plain_scene(contrast=2.0 * sign, tube_temperature=3.0 * sign, emission={"co2": 3.0})
    scene = dataclasses.replace(scene, viewer=Viewer(noise=1.2, share=0.12, least_area=1.5e-4))
    picture, mask, visibility = filmed(scene)
    assert sign * (picture[mask == GAS].mean() - picture[mask == BACKGROUND].mean()) > 20
    assert visibility > 5


def test_recordings_of_every_kind_are_decided_by_seed_and_number():
    for plan in PLANS["pretraining"][:6]:
        plan = dataclasses.replace(plan, height=72, width=96)
        for first, second in zip(render(plan), render(plan), strict=True):
            assert all(np.array_equal(first[key], second[key]) for key in first)


def test_gas_as_warm_as_the_background_is_not_outlined_where_it_passes_a_warm_thing():
    viewer = Viewer(noise=1.2, share=0.12, least_area=1.5e-4)
    for contrast, seen in ((0.001, False), (2.0, True)):
        scene = dataclasses.replace(plain_scene(contrast=contrast, emission={"co2": 3.0}), viewer=viewer)
        setting = draw_setting(scene, 96, 128)
        warm = np.zeros_like(setting.things)
        warm[:, 60:80] = 4.0
        setting = dataclasses.replace(setting, things=warm)
        _, masks, _ = render_recording(scene, setting, "co2", frames=1, rng=np.random.default_rng(0))
        assert (masks[0] == GAS).any() == seen
