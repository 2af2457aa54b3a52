"""Frames that look alike across splits: the hash by hand, the nearest by brute force, and what is told."""

import dataclasses
import time

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.fume_ogi import checks, hashing
from datasets.fume_ogi.plan import Options, make_plan
from datasets.synthetic_ogi.recording import RecordingPlan, render_film
from fume_jax.schema import SPLITS
from tests.datasets import recordings

RNG = np.random.default_rng(0)


def field(seed, height=120, width=160):
    """A smooth picture, uint8 [H, W]."""
    small = np.random.default_rng(seed).uniform(60, 200, (9, 12)).astype(np.float32)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)


def distance(a, b):
    both = hashing.bits([hashing.perceptual_hash(image) for image in (a, b)])
    return int((both[0] != both[1]).sum())


def test_the_bits_of_a_bright_block_by_hand():
    image = np.full((16, 16, 1), 100, np.uint8)
    assert hashing.perceptual_hash(image) == "0" * 64
    image[3, 5] = 101
    # Bit 3 * 16 + 5: in byte 6, the bit 5 from the left.
    assert hashing.perceptual_hash(image) == "00" * 6 + "04" + "00" * 25
    large = cv2.resize(image, (320, 240), interpolation=cv2.INTER_NEAREST)
    assert hashing.perceptual_hash(large) == hashing.perceptual_hash(image)
    assert hashing.perceptual_hash(image // 4 + 9) == "0" * 64, "a difference that is rounded away"


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (15, 17), (481, 641)])
def test_frames_of_any_size_have_a_hash(size):
    assert len(hashing.perceptual_hash(RNG.integers(0, 256, size, np.uint8))) == 64


def test_brightness_contrast_noise_and_size_keep_a_picture_alike_and_another_is_not():
    image = field(1)
    noisy = np.clip(image + RNG.normal(0, 5, image.shape), 0, 255).astype(np.uint8)
    ramp = np.clip(image + np.linspace(-20, 20, 160), 0, 255).astype(np.uint8)
    for changed in (image // 2, image // 2 + 90, noisy, ramp, cv2.resize(image, (640, 480))):
        assert distance(image, changed) <= 20
    assert min(distance(image, field(seed)) for seed in range(2, 60)) > checks.MAX_DISTANCE + 20
    assert distance(image, image[:, ::-1]) > checks.MAX_DISTANCE, "a flipped copy is not found, as the README says"


def test_the_nearest_of_another_group_is_found_as_by_brute_force():
    own, others = (RNG.choice([-1, 1], (count, 256)).astype(np.float32) for count in (1500, 300))
    groups, other_groups = RNG.integers(0, 5, 1500), RNG.integers(0, 5, 300)
    index, found = hashing.nearest(own, others, groups, other_groups)
    differ = (own[:, None] != others).sum(-1).astype(float)
    differ[groups[:, None] == other_groups] = np.inf
    np.testing.assert_array_equal(found, differ.min(1))
    np.testing.assert_array_equal(differ[np.arange(1500), index], differ.min(1))
    assert np.isinf(hashing.nearest(own[:2], others, np.zeros(2, int), np.zeros(300, int))[1]).all()


def test_ten_thousand_frames_are_compared_in_seconds():
    bits = RNG.choice([-1, 1], (10_000, 256)).astype(np.float32)
    groups, began = np.arange(10_000), time.process_time()
    hashing.nearest(bits[7000:], bits[:7000], groups[7000:], groups[:7000])
    assert time.process_time() - began < 20


def write(folder, images):
    """The small recordings with other pictures, a recording for each row of `images`, [9, 2] of both gases."""
    table = recordings.write(folder)

    def change(number, cells):
        Image.fromarray(images(number)).save(folder / cells["frame_path"])
        Image.fromarray(np.repeat(np.repeat(recordings.mask(number), 5, 0), 5, 1)).save(folder / cells["mask_path"])
        cells["recording_id"] = number // 2

    recordings.rewrite(table, change)
    return Options(str(table))


def test_a_frame_that_looks_like_one_of_another_split_is_a_warning_that_names_both(tmp_path):
    def alike(number):
        noise = np.random.default_rng(number).normal(0, 3, (120, 160))
        # CO2 frames of the first two recordings are alike; so are a CO2 and a CH4 frame, which are not compared.
        return np.clip(field({2: 0, 5: 6}.get(number, number)) + noise, 0, 255).astype(np.uint8)

    options = write(tmp_path, alike)
    plan = make_plan(tmp_path, options)
    place = {frame.frame_path: split for split, rows in plan.pairs.items() for row in rows for frame in row.frames}
    earlier, later = sorted(("images/000.png", "images/002.png"), key=lambda p: SPLITS.index(place[p]))
    assert place[earlier] != place[later]
    (warning,) = plan.warnings
    assert warning.kind == "near_duplicate" and warning.place.endswith(f"row {int(later[7:10]) + 2}")
    assert warning.message == f"{later} ({place[later]}) looks like {earlier} ({place[earlier]})"


def test_a_frame_has_one_warning_however_many_look_like_it(tmp_path):
    def alike(number):
        noise = np.random.default_rng(number).normal(0, 3, (120, 160))
        return np.clip(field(0) + noise, 0, 255).astype(np.uint8)

    plan = make_plan(tmp_path, write(tmp_path, alike))
    # Three recordings of two frames each validate, and three test.
    assert [fault.kind for fault in plan.warnings] == ["near_duplicate"] * 12
    assert len({fault.place for fault in plan.warnings}) == 12
    of_one = {
        split: [
            dataclasses.replace(r, frames=tuple(dataclasses.replace(f, recording="A") for f in r.frames)) for r in rows
        ]
        for split, rows in plan.pairs.items()
    }
    assert checks.near_duplicates(of_one, plan.contents, "recording") == [], "what is known to be shared is a leak"
    assert checks.near_duplicates(of_one, plan.contents, "original")


def test_neighbours_in_simulated_films_look_alike_and_other_recordings_do_not():
    plans = [RecordingPlan(n, 5.6, ("co2",), 2, 0, 120, 160, 3, (0, 1)) for n in range(24)]
    films = [[example["co2_frame"] for example in render_film(plan, 2)] for plan in plans]
    bits = [hashing.bits([hashing.perceptual_hash(frame) for frame in film]) for film in films]
    neighbours = [(first != second).sum() for first, second in bits]
    assert np.mean(np.array(neighbours) <= checks.MAX_DISTANCE) > 0.8
    first = np.array([pair[0] for pair in bits])
    _, found = hashing.nearest(first, first, np.arange(24), np.arange(24))
    assert (found > checks.MAX_DISTANCE).all()
