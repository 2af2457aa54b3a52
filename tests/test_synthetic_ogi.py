"""The simulator and its dataset: deterministic, without leaks, and with the physics it claims."""

import dataclasses
import json
from pathlib import Path

import chex
import numpy as np
import pytest

from datasets.synthetic_ogi.bounds import oracle_bound
from datasets.synthetic_ogi.simulator import (
    COMMON_SCATTER,
    GAS_SCATTER,
    PER_PH,
    draw_emission,
    draw_scene,
    render_recording,
)
from datasets.synthetic_ogi.synthetic_ogi import PH_FRAMES, SyntheticOgi, plan_recordings, render
from fume_jax.input_pipeline import Dataset
from fume_jax.vocabulary import GASES, PH_CLASS

CONFIG = SyntheticOgi.builder_configs["demo"]
SHAPE = {"height": 96, "width": 128}


def scene(seed=0, **changes):
    plain = draw_scene(5.9, np.random.default_rng(seed))
    return dataclasses.replace(plain, emission={"co2": 1.0, "ch4": 1.0}, wind=(0.0, 0.0), tube_tilt=0.0, **changes)


def film(scene, gas="co2", frames=1, seed=0):
    return render_recording(scene, gas, frames=frames, **SHAPE, rng=np.random.default_rng(seed))


def test_a_recording_is_decided_by_seed_and_number():
    plan = plan_recordings(SyntheticOgi.builder_configs["tiny"], 0, 12)[3]
    chex.assert_trees_all_equal(render(plan), render(plan))
    other = render(dataclasses.replace(plan, number=plan.number + 1))
    assert not np.array_equal(render(plan)[0]["co2_frame"], other[0]["co2_frame"])


def test_splits_share_no_recording_and_hold_every_class(tiny_dataset):
    dataset = Dataset(tiny_dataset)
    recordings = {s: {e["recording_index"] for e in dataset.split(s)} for s in ("train", "val", "test")}
    assert [len(r) for r in recordings.values()] == [12, 6, 6]
    assert len(set.union(*recordings.values())) == 24
    for split in recordings:
        assert set(dataset.labels(split)) == {0, 1, 2}


def test_stored_examples_are_what_was_rendered(tiny_dataset):
    plans = {p.number: p for p in plan_recordings(SyntheticOgi.builder_configs["tiny"], 0, 12)}
    for stored in list(Dataset(tiny_dataset).split("train"))[:3]:
        rendered = render(plans[int(stored["recording_index"])])[int(stored["frame_index"])]
        for gas in GASES:
            np.testing.assert_array_equal(stored[f"{gas}_frame"], rendered[f"{gas}_frame"])
            np.testing.assert_array_equal(stored[f"{gas}_mask"], rendered[f"{gas}_mask"])
        assert stored["label"] == PH_CLASS[round(float(stored["ph"]), 1)]


def test_bounds_are_stored_with_the_dataset(tiny_dataset):
    metadata = json.loads((Path(tiny_dataset) / "metadata.json").read_text())
    assert set(metadata["bounds"]) == {"oracle/balanced_accuracy", "baseline/histogram/balanced_accuracy"}


def test_ph_levels_and_single_gas_recordings_have_their_shares():
    plans = plan_recordings(CONFIG, 0, 320)
    for ph, frames in PH_FRAMES.items():
        assert sum(p.ph == ph for p in plans) == pytest.approx(320 * frames / sum(PH_FRAMES.values()), abs=1)
    single = [p.gases for p in plans if len(p.gases) == 1]
    assert len(single) == 32
    assert single.count(("co2",)) == pytest.approx(2 * single.count(("ch4",)), abs=2)


def test_falling_ph_raises_co2_and_lowers_ch4_emission_with_the_stated_scatter():
    def log_emissions(ph):
        drawn = [draw_emission(ph, np.random.default_rng(s)) for s in range(4000)]
        return np.log([[e[gas] for gas in GASES] for e in drawn])

    high, low = log_emissions(6.5), log_emissions(5.0)
    expected = -1.5 * np.array([PER_PH[gas] for gas in GASES])
    assert expected[0] > 0 > expected[1]
    np.testing.assert_allclose((low - high).mean(0), expected, atol=1e-9)
    np.testing.assert_allclose(high.std(0), np.hypot(GAS_SCATTER, COMMON_SCATTER), rtol=0.05)
    np.testing.assert_allclose((high[:, 0] - high[:, 1]).std(), np.sqrt(2) * GAS_SCATTER, rtol=0.05)


def test_the_oracle_needs_both_gases():
    shares = {ph: n / sum(PH_FRAMES.values()) for ph, n in PH_FRAMES.items()}
    rng = np.random.default_rng(0)
    levels = rng.choice(list(PH_FRAMES), 2000, p=list(shares.values()))
    emissions = [draw_emission(ph, rng) for ph in levels]

    def bound(modality_mask):
        return oracle_bound(
            [
                {"label": PH_CLASS[ph], "modality_mask": modality_mask, "emission": [e[gas] for gas in GASES]}
                for ph, e in zip(levels, emissions, strict=True)
            ],
            shares,
        )

    assert 0.85 < bound([1, 1]) < 0.97
    assert bound([1, 0]) < 0.75
    assert bound([0, 1]) < 0.75


def test_co2_falls_and_ch4_rises():
    rows = {}
    for gas in GASES:
        heights = []
        for seed in range(6):
            s = scene(seed, density=0.02, contrast=0.6, background=0.1, noise=0.006, tube_row=0.5)
            mask = film(s, gas, seed=seed)[1][0]
            heights.append(np.argwhere(mask == 2)[:, 0].mean() / SHAPE["height"])
        rows[gas] = np.mean(heights)
    assert rows["co2"] > 0.53
    assert rows["ch4"] < 0.47


@pytest.mark.parametrize("contrast, background", [(0.5, 0.1), (-0.5, 0.7)])
def test_gas_is_brighter_than_a_cooler_background_and_darker_than_a_warmer_one(contrast, background):
    frames, masks = film(scene(contrast=contrast, background=background))
    difference = frames[0][masks[0] == 2].mean() - frames[0][masks[0] == 0].mean()
    assert np.sign(difference) == np.sign(contrast)
    assert abs(difference) > 10


def test_more_emission_shows_more_gas():
    def area(emission):
        s = dataclasses.replace(scene(contrast=0.3, background=0.2), emission={"co2": emission, "ch4": 1.0})
        return (film(s)[1] == 2).sum()

    assert area(0.3) < area(1.0) < area(3.0)


def test_frames_of_a_recording_are_coherent_but_not_equal():
    frames, masks = film(scene(noise=0.006), frames=3)
    assert not np.array_equal(frames[0], frames[1])

    def overlap(a, b):
        return ((a == 2) & (b == 2)).sum() / ((a == 2) | (b == 2)).sum()

    other = film(scene(noise=0.006), seed=1)[1][0]
    assert overlap(masks[0], masks[1]) > 0.6
    assert overlap(masks[0], masks[1]) > overlap(masks[0], other)


@pytest.mark.parametrize("at_right", [False, True])
def test_the_tube_enters_from_its_side_and_is_annotated_over_the_gas(at_right):
    s = scene(tube_at_right=at_right, tube_row=0.5, tube_length=0.1)
    mask = film(s)[1][0]
    columns = np.argwhere(mask == 1)[:, 1] / SHAPE["width"]
    assert (columns > 0.88).all() if at_right else (columns < 0.12).all()
    assert len(columns) > 20
    assert set(np.unique(mask)) == {0, 1, 2}
