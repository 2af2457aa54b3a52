"""Overlays of cameras: laid out alike at any size, within the picture, various, and decided by the generator."""

import numpy as np
import pytest

from datasets.synthetic_ogi import overlay

SIZES = [(480, 640), (240, 320), (96, 128), (100, 300), (640, 480)]


@pytest.mark.parametrize("draw", [overlay.laboratory, overlay.of_any_maker])
@pytest.mark.parametrize("height, width", SIZES)
def test_overlays_of_any_size_are_levels_and_opacities(draw, height, width):
    for seed in range(60):
        grey, opacity = draw(height, width, np.random.default_rng(seed))
        assert grey.shape == opacity.shape == (height, width) and grey.dtype == opacity.dtype == np.float32
        assert grey.min() >= 0 and grey.max() <= 255 and opacity.min() >= 0 and opacity.max() <= 1
        again = draw(height, width, np.random.default_rng(seed))
        assert all(np.array_equal(a, b) for a, b in zip(again, (grey, opacity), strict=True))


def test_the_layout_is_that_of_a_larger_picture():
    for seed in range(20):
        large, small = (overlay.of_any_maker(h, w, np.random.default_rng(seed))[1] for h, w in ((480, 640), (240, 320)))
        assert np.abs(large.reshape(240, 2, 320, 2).mean((1, 3)) - small).mean() < 0.002


def test_makers_draw_at_every_edge_and_leave_most_of_the_picture_free():
    opacities = np.stack([overlay.of_any_maker(240, 320, np.random.default_rng(seed))[1] for seed in range(200)])
    covered = (opacities > 0.5).mean(0)
    corners = [covered[y, x] for y in (slice(0, 40), slice(200, 240)) for x in (slice(0, 60), slice(260, 320))]
    assert all(corner.max() > 0.1 for corner in corners)
    assert covered[60:180, 80:240].max() < 0.1 < (opacities > 0.5).any((1, 2)).mean()
    assert (opacities > 0.5).mean((1, 2)).max() < 0.2


def test_ink_is_light_or_dark():
    inks = set()
    for seed in range(100):
        canvas, style = overlay.Canvas(240, 320), overlay._Style(np.random.default_rng(seed))
        style.veil = 0
        style.label(canvas, "24.3 C", (True, True))
        inks.add(int(np.median(canvas.grey[canvas.opacity == 255])))
    assert inks == {255, 10}


def test_labels_keep_to_their_corners():
    for left in (True, False):
        for top in (True, False):
            canvas = overlay.Canvas(480, 640)
            overlay._Style(np.random.default_rng(1)).label(canvas, "24.3 C", (left, top))
            y, x = np.argwhere(canvas.opacity).T
            assert (x.max() < 200 if left else x.min() > 440) and (y.max() < 80 if top else y.min() > 400)
