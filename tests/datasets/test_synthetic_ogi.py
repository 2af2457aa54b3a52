"""The embedded dataset: deterministic, with the shares it claims, without leaks unless they are asked for."""

import collections
import dataclasses
import json
from pathlib import Path

import chex
import cv2
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from datasets.synthetic_ogi.bounds import oracle_bound
from datasets.synthetic_ogi.emission import (
    COMMON_SCATTER,
    GAS_SCATTER,
    PER_PH,
    REFERENCE_PH,
    draw_emission,
    emission_log_density,
)
from datasets.synthetic_ogi.recording import COPY, FILM, render
from datasets.synthetic_ogi.synthetic_ogi import PUBLISHED_FRAMES, PUBLISHED_RECORDINGS, SyntheticOgi
from fume_jax.data.dataset import Dataset
from fume_jax.schema import GASES, PH_CLASS, SPLITS
from tests.commands import assert_refused, run

CONFIGS = SyntheticOgi.builder_configs


def all_plans(name):
    return [plan for plans in CONFIGS[name].plan().values() for plan in plans]


def small(plan, **changes):
    return dataclasses.replace(plan, height=48, width=64, **changes)


# --- one recording ---


def test_a_recording_is_decided_by_seed_and_number():
    plan = CONFIGS["tiny"].plan()["train"][3]
    chex.assert_trees_all_equal(render(plan), render(plan))
    for change in ({"number": plan.number + 1}, {"seed": plan.seed + 1}):
        other = render(dataclasses.replace(plan, **change))
        assert not np.array_equal(render(plan)[0]["co2_frame"], other[0]["co2_frame"])


def test_a_gas_does_not_depend_on_whether_the_other_is_filmed():
    plan = next(p for p in CONFIGS["demo"].plan()["train"] if len(p.gases) == 2)
    both, alone = render(small(plan)), render(small(plan, gases=("ch4",)))
    np.testing.assert_array_equal(both[0]["ch4_frame"], alone[0]["ch4_frame"])
    assert not alone[0]["co2_frame"].any() and not alone[0]["co2_mask"].any()
    assert alone[0]["visibility"][0] == 0


def test_films_and_scene_have_random_streams_of_their_own():
    streams = [[0, 7], *([0, 7, tag, i] for tag in (FILM, COPY) for i in range(2))]
    first = [np.random.default_rng(stream).random() for stream in streams]
    assert len(set(first)) == len(streams)


def test_a_flat_frame_is_rendered_too():
    plan = CONFIGS["tiny"].plan()["train"][0]
    for number in range(6):
        assert render(dataclasses.replace(plan, number=number, height=48, width=320))[0]["co2_frame"].any()


def test_copies_follow_their_frame_and_change_geometry_and_brightness_only():
    plan = small(next(p for p in CONFIGS["published"].plan()["train"] if len(p.gases) == 2))
    examples = render(plan)
    assert [(e["frame_index"], e["copy_index"]) for e in examples] == [(i // 3, i % 3) for i in range(21)]
    plain = render(dataclasses.replace(plan, copies=0, kept=tuple(range(7))))
    for example in examples:
        original = plain[example["frame_index"]]
        same = np.array_equal(example["co2_frame"], original["co2_frame"])
        assert same == (example["copy_index"] == 0)
        assert set(np.unique(example["co2_mask"])) <= {0, 1, 2}
        for key in ("label", "ph", "recording_index", "exit_speed"):
            assert example[key] == original[key]


def test_a_missing_gas_stays_absent_in_augmented_copies():
    plan = small(next(p for p in CONFIGS["published"].plan()["train"] if p.gases == ("co2",)))
    assert not any(e["ch4_frame"].any() or e["ch4_mask"].any() for e in render(plan))


# --- composition ---


def count(plans):
    """Single-gas frames by pH and gas, and pairs."""
    frames = collections.Counter()
    for plan in plans:
        for gas in plan.gases:
            frames[plan.ph, gas] += len(plan.kept)
    return frames, sum(len(plan.kept) for plan in plans)


@pytest.mark.parametrize("name", ["published", "published_leaking"])
def test_published_has_the_frames_and_pairs_of_the_published_dataset(name):
    frames, pairs = count(all_plans(name))
    assert (sum(frames.values()), pairs) == (8967, 6258)
    for ph, published in PUBLISHED_FRAMES.items():
        assert sum(frames[ph, gas] for gas in GASES) == published
    # The published CO2 frames of each pH level; copies make them multiples of 21 only in the sum.
    for ph, co2 in {6.5: 693, 6.2: 721, 5.9: 651, 5.6: 2121, 5.3: 1039, 5.0: 938}.items():
        assert frames[ph, "co2"] == pytest.approx(co2, abs=11)
    originals = [gases for by_gas in PUBLISHED_RECORDINGS.values() for gases in by_gas.items()]
    assert sum(n * (2 if gases == "both" else 1) for gases, n in originals) == 427


def test_published_splits_by_recording_and_the_leaking_one_by_copy():
    for name, leaks in (("published", False), ("published_leaking", True)):
        plan = CONFIGS[name].plan()
        recordings = [{p.number for p in plan[split]} for split in SPLITS]
        shared = recordings[0] & recordings[2]
        assert len(shared) == (298 if leaks else 0)
        sizes = np.array([count(plan[split])[1] for split in SPLITS]) / 6258
        np.testing.assert_allclose(sizes, [0.7, 0.15, 0.15], atol=0.01)
    # No example is in two splits, not even where recordings are.
    examples = [(p.number, i) for split in SPLITS for p in plan[split] for i in p.kept]
    assert len(examples) == len(set(examples)) == 6258


def test_a_dataset_that_leaks_says_so(tmp_path):
    for name in CONFIGS:
        info = SyntheticOgi(config=name, data_dir=tmp_path).info
        assert bool(info.metadata["leak"]) == (name == "published_leaking")


@pytest.mark.parametrize("name", list(CONFIGS))
def test_every_split_holds_every_class_in_its_share(name):
    plan = CONFIGS[name].plan()
    total = collections.Counter(PH_CLASS[p.ph] for plans in plan.values() for p in plans for _ in p.kept)
    for split, share in CONFIGS[name].splits.items():
        classes = collections.Counter(PH_CLASS[p.ph] for p in plan[split] for _ in p.kept)
        examples = len(plan[split][0].kept)
        for label in total:
            assert classes[label] > 0
            assert abs(classes[label] - share * total[label]) <= 2 * max(examples, 21)


def test_one_in_ten_recordings_of_the_demo_lacks_a_gas_mostly_ch4():
    plans = all_plans("demo")
    assert [len(CONFIGS["demo"].plan()[split]) for split in SPLITS] == [780, 180, 240]
    assert sorted(p.number for p in plans) == list(range(1200))
    single = [p.gases for p in plans if len(p.gases) == 1]
    assert len(single) == 120
    assert single.count(("co2",)) == pytest.approx(2 * single.count(("ch4",)), abs=2)
    for ph, frames in PUBLISHED_FRAMES.items():
        assert sum(p.ph == ph for p in plans) == pytest.approx(1200 * frames / 8967, abs=1)


def test_transitional_is_as_rare_as_its_name_says():
    plans = all_plans("rare_transitional")
    labels = [PH_CLASS[p.ph] for p in plans]
    assert np.mean(np.array(labels) == 1) == pytest.approx(0.026, abs=0.0005)
    assert np.mean(np.array(labels) == 0) == pytest.approx(0.45, abs=0.005)


# --- emission and bounds ---


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


@pytest.mark.parametrize("gases", [("co2",), ("ch4",), GASES])
def test_the_density_of_emissions_is_that_of_a_normal_distribution(gases):
    emission = dict(zip(gases, (1.7, 0.4), strict=False))
    logarithms, mean = np.log(list(emission.values())), [PER_PH[gas] * (5.3 - REFERENCE_PH) for gas in gases]
    expected = multivariate_normal.logpdf(logarithms, mean, GAS_SCATTER**2 * np.eye(len(gases)) + COMMON_SCATTER**2)
    assert emission_log_density(5.3, emission) == pytest.approx(expected, rel=1e-9)


def test_both_gases_tell_the_oracle_much_more_than_one_and_not_everything():
    rng = np.random.default_rng(0)
    shares = np.array(list(PUBLISHED_FRAMES.values())) / 8967
    examples = []
    for ph in rng.choice(list(PUBLISHED_FRAMES), 3000, p=shares):
        emission = draw_emission(ph, rng)
        examples.append({"label": PH_CLASS[ph], "modality_mask": [1, 1], "emission": [emission[gas] for gas in GASES]})
    both = oracle_bound(examples, PUBLISHED_FRAMES)
    assert 0.9 < both < 0.97
    for gas in GASES:
        assert both - oracle_bound(examples, PUBLISHED_FRAMES, gases=(gas,)) > 0.3
    without = [example | {"emission": [0.0, 0.0]} for example in examples]
    assert oracle_bound(without, PUBLISHED_FRAMES) == pytest.approx(1 / 3)


# --- the prepared dataset ---


def test_splits_share_no_recording_and_hold_every_class(tiny_dataset):
    dataset = Dataset(tiny_dataset)
    recordings = {s: {e["recording_index"] for e in dataset.split(s)} for s in SPLITS}
    assert [len(r) for r in recordings.values()] == [12, 6, 6]
    assert len(set.union(*recordings.values())) == 24
    for split in recordings:
        assert set(dataset.labels(split)) == {0, 1, 2}


def test_stored_examples_are_what_was_rendered(tiny_dataset):
    plans = {p.number: p for p in CONFIGS["tiny"].plan()["train"]}
    for stored in list(Dataset(tiny_dataset).split("train"))[:3]:
        rendered = render(plans[int(stored["recording_index"])])[int(stored["frame_index"])]
        assert set(stored) == set(rendered)
        for key, value in rendered.items():
            np.testing.assert_array_equal(np.float32(stored[key]), np.float32(value))


def test_visibility_is_stored_for_every_mask_that_shows_gas(tiny_dataset):
    for example in Dataset(tiny_dataset).split("train"):
        for gas, visibility in zip(GASES, example["visibility"], strict=True):
            assert (visibility > 0) == (example[f"{gas}_mask"] == 2).any()


def test_bounds_are_stored_with_the_dataset(tiny_dataset):
    bounds = json.loads((Path(tiny_dataset) / "metadata.json").read_text())["bounds"]
    assert set(bounds) == {
        "oracle/balanced_accuracy",
        "oracle/pairs/balanced_accuracy",
        "oracle/pairs/co2_alone/balanced_accuracy",
        "oracle/pairs/ch4_alone/balanced_accuracy",
        "baseline/histogram/balanced_accuracy",
    }
    assert all(0 <= value <= 1 for value in bounds.values())


# --- commands ---


@pytest.mark.slow
def test_another_size_and_seed_are_another_dataset(tmp_path):
    options = ("--name=tiny", "--height=48", "--width=64", "--seed=3", f"--data_dir={tmp_path}")
    done = run("datasets.synthetic_ogi", *options)
    assert done.returncode == 0, done.stderr
    dataset = Dataset(str(tmp_path / "synthetic_ogi" / "tiny_64x48_seed3" / "3.0.0"))
    assert dataset.split("test")[0]["co2_frame"].shape == (48, 64, 1)
    assert run("datasets.synthetic_ogi", *options).returncode == 0  # done already


def test_an_unknown_name_is_refused_with_the_known_ones():
    for command in ("datasets.synthetic_ogi", "datasets.synthetic_ogi.gallery"):
        assert_refused(run(command, "--name=dmeo"), "'dmeo'", "demo, published")


@pytest.mark.slow
def test_the_gallery_shows_recordings_a_film_and_camera_frames(tmp_path):
    cv2.imwrite(str(tmp_path / "own.png"), np.full((100, 100), 7, np.uint8))
    output = tmp_path / "gallery"
    options = ("--name=tiny", "--recordings=3", "--frames=4", f"--output={output}", f"--beside={tmp_path}")
    done = run("datasets.synthetic_ogi.gallery", *options)
    assert done.returncode == 0, done.stderr
    assert cv2.imread(str(output / "sheet.jpg")).shape == (3 * 260, 4 * 320, 3)
    beside = cv2.imread(str(output / "beside.jpg"))
    assert beside.shape == (260, 3 * 320, 3)
    assert abs(int(beside[120, 160, 0]) - 7) <= 2 and beside[:, 320:].std() > 10
    read, film = cv2.imreadanimation(str(output / "film.webp"))
    assert read and len(film.frames) == 4
    moved = np.abs(film.frames[0].astype(int) - film.frames[3].astype(int))
    assert moved.max() > 50
    refused = run(
        "datasets.synthetic_ogi.gallery", "--name=tiny", f"--output={output}", f"--beside={tmp_path / 'none'}"
    )
    assert_refused(refused, "no image", "none")
