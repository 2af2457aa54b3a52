"""Frames from files: what is read, what is refused, what pairs with what."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from fume_jax.data import sources
from fume_jax.data.gray import luminance
from fume_jax.data.images import CELSIUS, LEVELS, PALETTE_NOTE, read_values
from fume_jax.data.matching import match_times
from fume_jax.data.scale import FRAME, RECORDING, parse_range
from fume_jax.data.sources import Pair, load, open_source
from fume_jax.data.stacks import COUNTS
from fume_jax.runtime.errors import UserError
from tests.camera import write_sequence
from tests.videos import encode, flat, flip, noise

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "camera"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the files of real cameras are not part of the project")
GREY = np.tile(np.arange(0, 200, 4, dtype=np.uint8), (40, 1))


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def make_images(folder, *names):
    for name in names:
        write(folder / name, GREY)
    return folder


def found(co2, ch4):
    """What pairs: file names by name of the pair."""
    source = open_source(*(path and str(path) for path in (co2, ch4)))
    pairs = list(source.pairs)
    assert (source.total, source.rate, {pair.time for pair in pairs}) == (len(pairs), None, {None})
    return {pair.name: {gas: path.name for gas, path in pair.frames.items()} for pair in pairs}


def test_folders_pair_by_name_and_keep_what_has_no_partner(tmp_path):
    make_images(tmp_path, "co2/b.png", "co2/a.png", "ch4/b.tiff", "ch4/c.png")
    (tmp_path / "ch4" / "notes.txt").write_text("")
    pairs = found(tmp_path / "co2", tmp_path / "ch4")
    assert list(pairs) == ["a", "b", "c"]
    assert pairs == {"a": {"co2": "a.png"}, "b": {"co2": "b.png", "ch4": "b.tiff"}, "c": {"ch4": "c.png"}}


@pytest.mark.parametrize(
    "co2, ch4, name",
    [
        ("a_co2.png", "a_ch4.png", "a"),
        ("CO2-007.png", "CH4-007.png", "007"),
        ("a.Co2.b.png", "a_b.png", None),
        ("run 3 co2 007.png", "run 3 CH4 007.png", "run 3 007"),
        ("007.png", "007-ch4.png", "007"),
        # No token: not set off, or all there is.
        ("aco2.png", "ach4.png", None),
        ("co2x_1.png", "ch4x_1.png", None),
        ("co2.png", "ch4.png", None),
        ("_co2.png", "_ch4.png", None),
    ],
)
def test_a_gas_in_a_name_does_not_count(tmp_path, co2, ch4, name):
    folders = make_images(tmp_path / "co2", co2), make_images(tmp_path / "ch4", ch4)
    if name is None:
        with pytest.raises(UserError, match="No frame of"):
            found(*folders)
    else:
        assert found(*folders) == {name: {"co2": co2, "ch4": ch4}}


def test_two_files_are_a_pair_whatever_their_names(tmp_path):
    make_images(tmp_path, "left.png", "right.png")
    assert found(tmp_path / "left.png", tmp_path / "right.png") == {"left": {"co2": "left.png", "ch4": "right.png"}}


def test_patterns_choose_among_the_images_of_a_folder(tmp_path):
    make_images(tmp_path, "1_co2.png", "2_co2.png", "11_co2.png", "1_ch4.png", "2_mask.png", "[x]_co2.png")
    (tmp_path / "1_co2.txt").write_text("")
    assert found(tmp_path / "?_co2*", tmp_path / "*ch4*") == {
        "1": {"co2": "1_co2.png", "ch4": "1_ch4.png"},
        "2": {"co2": "2_co2.png"},
    }
    assert list(found(tmp_path / "[12]_co2.png", None)) == ["1", "2"]
    assert list(found(tmp_path / "[x]_co2.png", None)) == ["[x]"]  # a file that is there is no pattern


def test_one_folder_may_hold_both_gases(tmp_path):
    folder = make_images(tmp_path / "both", "a_co2.png", "a_ch4.png", "CO2-b.png")
    assert found(folder, folder) == {"a": {"co2": "a_co2.png", "ch4": "a_ch4.png"}, "b": {"co2": "CO2-b.png"}}
    assert list(found(folder, None)) == ["a", "b"]
    make_images(tmp_path / "ch4", "a_ch4.png")
    with pytest.raises(UserError, match=r"holds no image for CO2; .*, got images named for CH4: 1 \(such as a_ch4"):
        found(tmp_path / "ch4", None)


def test_a_file_is_never_both_frames_of_a_pair(tmp_path):
    folder = make_images(tmp_path / "both", "a_co2.png", "a_ch4.png", "c.png")
    assert list(found(folder, None)) == ["a", "c"]
    (tmp_path / "link").symlink_to(folder)
    for other in (folder, folder / "*.png", tmp_path / "link"):
        message = r"c\.png would be both CO2 and CH4 of the pair 'c'\. .* such as c_co2\.png and c_ch4\.png"
        with pytest.raises(UserError, match=message):
            found(folder, other)
    film = encode(tmp_path / "a.avi", [flat(0)])
    for file in (folder / "c.png", film):
        (tmp_path / f"other{file.suffix}").symlink_to(file)
        for other in (file, file.parent / ".." / file.parent.name / file.name, tmp_path / f"other{file.suffix}"):
            with pytest.raises(UserError, match="are the same file"):
                found(file, other)


def test_what_is_left_out_of_a_folder_is_noted(tmp_path):
    folder = make_images(tmp_path / "both", "a_co2.png", "a_ch4.png", "a_co2_mask.png", "b_co2.tif", "b_ch4.tif")
    make_images(folder, "b_mask.png", "_mask.png", "folder/c.png")  # which are no masks of what is there
    for name in ("film_co2.seq", "other.MP4", "README.md", "._a.png"):
        (folder / name).touch()
    rest = "films, each given by its own path: 2 (such as film_co2.seq)"
    masks = "masks of images beside them: 1 (such as a_co2_mask.png)"
    assert open_source(str(folder), None).notes == (
        f"left out of {folder}: other files: 1 (such as README.md); images named for CH4: 2 (such as a_ch4.png); "
        f"{masks}; {rest}",
    )
    assert list(found(folder / "a_*", folder / "a_*")) == ["a"]
    assert open_source(*[str(folder / "a_*")] * 2).notes == (f"left out of {folder / 'a_*'}: {masks}",)
    assert open_source(str(folder / "a_co2.png"), None).notes == ()
    assert open_source(str(folder / "?_co2.*"), str(folder / "?_ch4.*")).notes == ()


def write_kinds(folder, **dtypes):
    for name, dtype in dtypes.items():
        tifffile.imwrite(folder / f"{name}.tif", ramps(1000)[0].astype(dtype))


def in_celsius(monkeypatch, *names):
    """Has files of these names hold temperatures."""

    def read(path):
        found = read_values(path)
        return found._replace(values=found.values / 100, unit=CELSIUS) if path.stem in names else found

    monkeypatch.setattr(sources, "read_values", read)


def test_frames_without_a_common_scale_are_refused(tmp_path, monkeypatch):
    write_kinds(tmp_path, a=np.uint16, b=np.float32, c=np.uint16)
    assert open_source(str(tmp_path), None).limits == {"co2": (1000, 1099)}
    in_celsius(monkeypatch, "c")
    for options in ({}, {"range": FRAME}):
        with pytest.raises(UserError) as refused:
            open_source(None, str(tmp_path), **options)
        assert "The frames of CH4 have no common scale" in str(refused.value)
        for kind, name in (("numbers of more than 8 bits", "a"), ("numbers in °C", "c")):
            assert f"{kind} (such as {tmp_path / name}.tif)" in str(refused.value)


def test_grey_levels_stay_as_they_are_beside_deeper_numbers(tmp_path):
    write_kinds(tmp_path, a=np.uint8, b=np.uint16, c=np.uint16)
    source = open_source(str(tmp_path), None)
    assert source.limits == {"co2": (1000, 1099)}, "that of the deeper ones alone"
    told = f"frames of CO2 that are grey levels of 8 bits (such as {tmp_path / 'a.tif'}) stay as they are"
    assert told in source.notes
    levels = [load(pair, source.limits).frames["co2"] for pair in source.pairs]
    np.testing.assert_array_equal(levels[0], read_values(tmp_path / "a.tif").values.reshape(levels[0].shape))
    assert (levels[1].min(), levels[1].max()) == (0, 255)


def test_a_rare_frame_of_another_scale_is_skipped(tmp_path, monkeypatch):
    write_kinds(tmp_path, **{f"{i:03d}": np.uint16 for i in range(100)})
    in_celsius(monkeypatch, "001")
    source = open_source(str(tmp_path), None)
    faults = [load(pair, source.limits).faults.get("co2") for pair in source.pairs]
    assert [i for i, fault in enumerate(faults) if fault] == [1]
    told = "holds numbers in °C, other frames numbers of more than 8 bits. Put them into folders of their own"
    assert faults[1].startswith(f"{tmp_path / '001.tif'}: {told}")


def test_what_cannot_be_matched_is_refused(tmp_path):
    a, b = make_images(tmp_path / "co2", "a.png"), make_images(tmp_path / "ch4", "b.png")
    (tmp_path / "empty").mkdir()
    video = encode(tmp_path / "a.avi", [flat(0)])
    for co2, ch4, message in [
        (a, b, r"No frame of .*co2 \(such as a.png\) has the name of one of .*ch4 \(such as b.png\)"),
        (tmp_path / "empty", None, "holds no image"),
        (tmp_path / "co2" / "*.tif", None, "holds no image"),
        (tmp_path / "*.avi", None, "A video is given by its own path"),
        (tmp_path / "nowhere", None, "no file or folder"),
        (tmp_path / "nowhere.mp4", None, "no file"),
        (video, b, "a.avi is a film and .*ch4 is none. Give two films"),
        (a, video, "a.avi is a film and .*co2 is none. Give two films"),
        (None, None, "at least one gas"),
        (video, video, "are the same file"),
    ]:
        with pytest.raises(UserError, match=message):
            found(co2, ch4)
    make_images(a, "a_co2.jpg")
    with pytest.raises(UserError, match="share a name, 'a'"):
        found(a, None)


def matched(first, second, tolerance):
    """Times that come together, None for none."""
    streams = (iter([(time, "frame") for time in times]) for times in (first, second))
    return [
        tuple(time if frame else None for time, frame in timed) for timed in match_times(*streams, tolerance=tolerance)
    ]


@pytest.mark.parametrize(
    "first, second, expected",
    [
        pytest.param([0, 10, 20], [0, 10, 20], [(0, 0), (10, 10), (20, 20)], id="equal"),
        pytest.param([0, 10, 20, 30], [0, 20, 30], [(0, 0), (10, None), (20, 20), (30, 30)], id="gap"),
        pytest.param([20, 30], [0, 10, 20], [(None, 0), (None, 10), (20, 20), (30, None)], id="start"),
        pytest.param([4, 14, 24], [0, 10, 20], [(4, 0), (14, 10), (24, 20)], id="offset"),
        pytest.param([5, 15], [0, 10], [(5, 0), (15, 10)], id="half a frame"),
        pytest.param([6, 16], [0, 10], [(None, 0), (6, 10), (16, None)], id="more than half a frame"),
        pytest.param([0, 8, 20], [4.5, 20], [(0, None), (8, 4.5), (20, 20)], id="nearest"),
        pytest.param([], [0, 10], [(None, 0), (None, 10)], id="one"),
        pytest.param([0], [], [(0, None)], id="other"),
        pytest.param([], [], [], id="none"),
    ],
)
def test_frames_pair_with_the_nearest_in_time(first, second, expected):
    assert matched(first, second, 5) == expected
    assert matched(second, first, 5) == [times[::-1] for times in expected]


def test_of_two_rates_every_frame_of_the_slower_pairs_with_one_of_the_faster():
    fast, slow = [i / 30 for i in range(30)], [0.001 + i / 10 for i in range(10)]
    pairs = matched(fast, slow, 0.5 / 30)
    assert len(pairs) == 30
    assert [i for i, (_, time) in enumerate(pairs) if time is not None] == list(range(0, 30, 3))


def test_times_that_are_rounded_make_no_difference():
    first, second = [0.04 * i for i in range(50)], [0.02 + 0.04 * i for i in range(50)]
    assert matched(first, second, 0.02) == list(zip(first, second, strict=True))


def test_frames_are_used_once_and_in_order_and_pair_whenever_one_is_near_and_free():
    random = np.random.default_rng(0)
    for _ in range(50):
        times = [np.sort(np.arange(40) + random.normal(0, 0.2, 40))[random.random(40) < 0.8] for _ in range(2)]
        pairs = matched(*times, 0.5)
        for k in range(2):
            assert [pair[k] for pair in pairs if pair[k] is not None] == list(times[k])
        both = [pair for pair in pairs if None not in pair]
        assert all(abs(a - b) <= 0.5 + 1e-5 for a, b in both) and len(both) > 15


def test_streams_are_read_no_further_than_needed():
    taken = [0, 0]

    def stream(k):
        for time in range(100):
            taken[k] += 1
            yield time, "frame"

    merged = match_times(stream(0), stream(1), 0.4)
    for i in range(10):
        next(merged)
        assert max(taken) <= i + 2


def test_two_videos_pair_by_time_where_frames_are_missing_or_damaged(tmp_path):
    frames = [np.maximum(flat(10 * i), noise(i, 10)) for i in range(20)]
    kept = [i for i in range(20) if i % 10 != 3]
    co2 = encode(tmp_path / "left.avi", frames)
    ch4 = encode(tmp_path / "right.mkv", [frames[i] for i in kept], "ffv1", "gray", times=kept)
    flip(co2, 5, 0)
    source = open_source(str(co2), str(ch4))
    assert (source.total, source.rate) == (None, 25)  # an MKV file does not tell how many
    pairs = list(source.pairs)
    assert [pair.name for pair in pairs] == [f"frame_{i:06d}" for i in range(20)]
    assert [pair.time for pair in pairs] == pytest.approx([0.04 * i for i in range(20)])
    for i, pair in enumerate(pairs):
        assert list(pair.frames) == (["co2", "ch4"] if i in kept else ["co2"])
        read, _, unreadable, _ = load(pair)
        if i == 5:
            assert list(read) == ["ch4"] and list(unreadable) == ["co2"]
            assert f"{co2} at 0.200 s: not decodable" in unreadable["co2"]
        else:
            assert read.keys() == pair.frames.keys() and not unreadable
            for frame in read.values():
                np.testing.assert_allclose(np.median(frame), 10 * i, atol=12)


def test_of_two_videos_the_faster_says_what_half_a_frame_is(tmp_path):
    fast = encode(tmp_path / "fast.avi", [flat(i) for i in range(8)])
    slow = encode(tmp_path / "slow.mp4", [flat(i) for i in range(4)], "libx264", "yuv420p", times=[1, 3, 5, 7])
    source = open_source(str(slow), str(fast))
    assert (source.total, source.rate) == (8, 25)
    assert [sorted(pair.frames) for pair in source.pairs] == [["ch4"], ["ch4", "co2"]] * 4


@pytest.mark.parametrize("gas", ["co2", "ch4"])
def test_one_video_is_read_by_itself(tmp_path, gas):
    path = str(encode(tmp_path / "a.avi", [flat(i) for i in (10, 20, 30)]))
    source = open_source(**({"co2": None, "ch4": None} | {gas: path}))
    assert (source.total, source.rate) == (3, 25)
    read = [(pair.name, round(pair.time, 6), list(pair.frames)) for pair in source.pairs]
    assert read == [(f"frame_00000{i}", 0.04 * i, [gas]) for i in range(3)]


def test_files_of_a_pair_that_cannot_be_read_are_named(tmp_path):
    good, bad = write(tmp_path / "a.png", GREY), tmp_path / "b.png"
    bad.write_bytes(b"")
    frames, _, unreadable, _ = load(Pair("a", None, {"co2": good, "ch4": bad}))
    assert unreadable == {"ch4": f"{bad}: the file is empty"}
    assert list(frames) == ["co2"]
    np.testing.assert_array_equal(frames["co2"][..., 0], GREY)


def test_numbers_in_names_count_by_their_value(tmp_path):
    names = [f"frame_{i}_co2.png" for i in (1, 10, 11, 2, 20, 3)] + ["frame_02b_co2.png", "a.png", "10.png", "9.png"]
    folder = make_images(tmp_path / "co2", *names)
    numbers = [f"frame_{i}" for i in (1, 2, 3, 10, 11, 20)]
    assert list(found(folder, None)) == ["9", "10", "a", *numbers[:2], "frame_02b", *numbers[2:]]
    make_images(tmp_path / "ch4", "frame_100_ch4.png", "frame_2_ch4.png", "frame_21_ch4.png")
    assert list(found(folder, tmp_path / "ch4"))[-3:] == ["frame_20", "frame_21", "frame_100"]


def test_what_only_has_the_name_of_an_image_is_listed_as_unreadable(tmp_path):
    folder = make_images(tmp_path / "co2", "a_co2.png")
    (folder / "b_co2.png").symlink_to("/not/fetched")
    (folder / "c_co2.png").symlink_to(folder / "c_co2.png")
    os.mkfifo(folder / "d_co2.png")
    make_images(folder / "e_co2.png", "a.png")  # a folder
    pairs = list(open_source(str(folder), None).pairs)
    assert [pair.name for pair in pairs] == ["a", "b", "c", "d"]
    faults = [load(pair).faults.get("co2", "") for pair in pairs]
    assert faults[0] == "" and "a link to /not/fetched, which is not there" in faults[1]
    assert f"{folder / 'd_co2.png'}: not a regular file" == faults[3]


def test_resource_forks_of_macos_are_left_out(tmp_path):
    folder = make_images(tmp_path / "co2", "a_co2.png", "._x/b_co2.png")
    (folder / "._a_co2.png").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        ")
    assert list(found(folder, None)) == ["a"]
    assert list(found(folder / "*", None)) == ["a"]


@pytest.mark.parametrize("suffix", ["MTS", "m2ts", "3gp", "flv", "asf", "mxf", "vob", "dat", "mp4"])
def test_a_video_is_one_by_its_content(tmp_path, suffix):
    form, codec = {"3gp": ("mp4", "libx264"), "mxf": ("mxf", "mpeg2video"), "flv": ("flv", "libx264")}.get(
        suffix, ("ts", "libx264")
    )
    path = encode(tmp_path / f"a.{form}", [noise(i) for i in range(12)], codec, "yuv420p")
    path = path.rename(tmp_path / f"film.{suffix}")
    assert len(list(open_source(str(path), None).pairs)) == 12


@pytest.mark.parametrize("name", ["a.gif", "a.dat", "a.jp2"])
def test_an_image_of_any_suffix_is_no_video(tmp_path, name):
    kind = {"a.gif": "GIF", "a.dat": "PNG", "a.jp2": "JPEG2000"}[name]
    Image.fromarray(GREY).save(tmp_path / name, kind)
    (pair,) = open_source(str(tmp_path / name), None).pairs
    assert load(pair).frames["co2"].shape == (*GREY.shape, 1)


@pytest.mark.parametrize("name", ["notes.dat", "frames.png"])
def test_a_file_that_is_neither_is_unreadable_as_an_image(tmp_path, name):
    (tmp_path / name).write_text("words " * 100)
    (pair,) = open_source(str(tmp_path / name), None).pairs
    assert "not an image" in load(pair).faults["co2"]


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/null"):
        with pytest.raises(UserError, match="is neither a file nor a folder"):
            open_source(str(path), None)


def ramps(*starts):
    """A recording, uint16 [T, 100, 100], whose frames rise by one from column to column."""
    return np.array(starts, np.uint16)[:, None, None] + np.tile(np.arange(100, dtype=np.uint16), (100, 1))


def write_films(folder, frames):
    """The same recording in every form, deeper than 8 bits: paths by form."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, frame in enumerate(frames):
        write(folder / "png" / f"{i}.png", frame)
    tifffile.imwrite(folder / "a.tif", frames, photometric="minisblack")
    np.save(folder / "a.npy", frames)
    np.savez(folder / "a.npz", frames)
    write_sequence(folder / "a.seq", frames, start=1e9)
    write_sequence(folder / "a.csq", frames, lossless=True)
    return [str(folder / name) for name in ("png", "a.tif", "a.npy", "a.npz", "a.seq", "a.csq")]


def levels_of(path, **options):
    source = open_source(str(path), None, **options)
    return np.array([load(pair, source.limits).frames["co2"][..., 0] for pair in source.pairs])


@pytest.mark.parametrize("seed", range(3))
def test_a_recording_has_the_same_grey_levels_in_every_form(tmp_path, seed):
    random = np.random.default_rng(seed)
    smooth = [cv2.GaussianBlur(random.normal(0, 1, (60, 80)), (0, 0), 6) for _ in range(5)]
    frames = np.array([9000 + 500 * i + 20_000 * frame for i, frame in enumerate(smooth)]).astype(np.uint16)
    for options in ({}, {"range": FRAME}, {"range": (8000.0, 12_000.0)}):
        first, *others = (levels_of(path, **options) for path in write_films(tmp_path, frames))
        assert first.dtype == np.uint8 and np.ptp(first.astype(int)) > 200
        for other in others:
            np.testing.assert_array_equal(other, first)


def test_one_scale_holds_for_a_recording(tmp_path):
    frames = ramps(1000, 1200, 1056)
    frames[0, 50, 50], frames[1, 20, 20] = 0, 65535  # dead and hot
    for path in write_films(tmp_path, frames):
        source = open_source(path, None)
        assert source.limits == {"co2": (1000, 1299)}
        assert source.units == {"co2": COUNTS if path.endswith("q") else LEVELS}
        first, second, third = (load(pair, source.limits) for pair in source.pairs)
        np.testing.assert_array_equal(second.values["co2"], frames[1])
        # (value - 1000) * 255 / 299 by hand: 0 -> 0, 99 -> 84.4, 200 -> 170.6, 299 -> 255, 56 -> 47.8
        assert first.frames["co2"][3, [0, 99], 0].tolist() == [0, 84]
        assert second.frames["co2"][3, [0, 99], 0].tolist() == [171, 255]
        assert third.frames["co2"][3, 0, 0] == 48
        assert (first.frames["co2"][50, 50, 0], second.frames["co2"][20, 20, 0]) == (0, 255)
        assert open_source(path, None, range=FRAME).limits == {}
        assert open_source(path, None, range=(1.0, 2.0)).limits == {"co2": (1.0, 2.0)}


def test_a_single_image_keeps_its_own_range(tmp_path):
    path = write(tmp_path / "a.png", ramps(1000)[0])
    assert open_source(str(path), None).limits == {}
    assert levels_of(path)[0, 0, [0, 99]].tolist() == [0, 255]


def test_frames_of_8_bits_are_grey_levels_already(tmp_path):
    folder = make_images(tmp_path / "co2", "a.png", "b.png")
    film = str(encode(tmp_path / "a.avi", [flat(7)] * 3))
    for path in (str(folder), film):
        for scale in (RECORDING, FRAME):
            source = open_source(path, None, range=scale)
            assert (source.limits, source.notes) == ({}, ())
        source = open_source(path, None, range=(0.0, 9.0))
        assert source.limits == {}
        assert source.notes == ("the frames of CO2 are grey levels already, which --range does not change",)
    np.testing.assert_array_equal(levels_of(folder, range=(0.0, 9.0)), [GREY, GREY])


def test_a_range_is_two_numbers_or_a_word():
    assert [parse_range(text) for text in ("recording", "frame", "1,2.5", "-3,1e4")] == [
        RECORDING,
        FRAME,
        (1, 2.5),
        (-3, 10_000),
    ]
    for text in ("", "1", "2,1", "1,1", "a,b", "1,2,3", "nan,1", "0,inf", "-inf,0", "Recordings"):
        with pytest.raises(UserError, match="expected recording, frame, or LOW,HIGH"):
            parse_range(text)


def test_a_wall_stays_as_it_is_while_gas_comes_and_goes(tmp_path):
    wall = ramps(*[5000] * 8)
    for i in range(8):
        wall[i, 30:70, 30:70] += np.uint16(60 * i)  # gas
    np.save(tmp_path / "a.npy", wall)
    spread = {
        scale: np.ptp(levels_of(tmp_path / "a.npy", range=scale)[:, :20].astype(int), axis=0)
        for scale in (RECORDING, FRAME)
    }
    assert spread[RECORDING].max() < 1
    assert spread[FRAME].max() > 20


def test_a_damaged_first_frame_does_not_decide_the_scale(tmp_path):
    frames = ramps(1000, 1200, 1056)
    path = write_sequence(tmp_path / "a.seq", frames)
    data = bytearray(path.read_bytes())
    data[0x1C:0x20] = b"\xff" * 4  # the number of records
    path.write_bytes(data)
    source = open_source(str(path), None)
    assert source.limits == {"co2": (1056, 1299)}
    assert ["co2" in load(pair, source.limits).faults for pair in source.pairs] == [True, False, False]


def paired(source):
    """By pair the time, and the level of the first pixel of each gas."""
    return [(round(p.time, 6), {gas: int(frame[0, 0]) for gas, frame in p.frames.items()}) for p in source.pairs]


def sequences(folder, start, apart, count=5):
    frames = {"co2": ramps(*range(1000, 1000 + count)), "ch4": ramps(*range(2000, 2000 + count))}
    starts = {"co2": start, "ch4": None if apart is None else start + apart}
    return [str(write_sequence(folder / f"{g}.seq", frames[g], start=starts[g], rate=10)) for g in ("co2", "ch4")]


def test_films_pair_by_the_clocks_of_the_cameras(tmp_path):
    source = open_source(*sequences(tmp_path, 1e9, 0.2))
    assert paired(source) == [
        (0, {"co2": 1000}),
        (0.1, {"co2": 1001}),
        (0.2, {"co2": 1002, "ch4": 2000}),
        (0.3, {"co2": 1003, "ch4": 2001}),
        (0.4, {"co2": 1004, "ch4": 2002}),
        (0.5, {"ch4": 2003}),
        (0.6, {"ch4": 2004}),
    ]
    assert source.clock == 1e9
    assert any("the film of CH4 begins +0.200 s after that of CO2" in note for note in source.notes)


def test_clocks_that_do_not_overlap_say_so(tmp_path):
    source = open_source(*sequences(tmp_path, 1e9, 3600))
    assert paired(source)[0] == (0, {"co2": 1000, "ch4": 2000})
    assert any("3,600.0 s apart and do not overlap" in note for note in source.notes)


@pytest.mark.parametrize("clocks", [0.2, None])
def test_an_offset_is_what_the_clock_of_ch4_is_ahead(tmp_path, clocks):
    # What CO2 shows at 0 s, CH4 shows at 0.3 s on its own clock: the frame 2003.
    source = open_source(*sequences(tmp_path, 1e9, clocks), offset=0.3)
    pairs = paired(source)
    assert [time for time, _ in pairs] == pytest.approx([-0.3, -0.2, -0.1, 0, 0.1, 0.2, 0.3, 0.4])
    assert pairs[3] == (0, {"co2": 1000, "ch4": 2003})
    assert pairs[0][1] == {"ch4": 2000} and pairs[-1][1] == {"co2": 1004}
    assert paired(open_source(*sequences(tmp_path, 1e9, clocks), offset=-0.3))[3] == (0.3, {"co2": 1003, "ch4": 2000})


def test_start_and_stop_are_times_of_the_first_and_the_last_pair(tmp_path):
    path = sequences(tmp_path, 1e9, 0)[0]
    times = lambda **span: [time for time, _ in paired(open_source(path, None, **span))]  # noqa: E731
    assert times(start=0.15) == [0.2, 0.3, 0.4]
    assert times(stop=0.2) == [0, 0.1, 0.2]
    assert times(start=0.1, stop=0.3) == [0.1, 0.2, 0.3]
    assert times(stop=0.0) == times(start=-1, stop=0.05) == [0]
    both = open_source(*sequences(tmp_path, 1e9, 0), offset=0.3, start=0.0)
    assert paired(both)[0] == (0, {"co2": 1000, "ch4": 2003}) and both.total is None
    with pytest.raises(UserError, match="images, which have no times"):
        open_source(str(make_images(tmp_path / "png", "a.png")), None, start=1.0)


def test_pairs_of_films_have_the_positions_of_their_frames(tmp_path):
    for gas, times in (("co2", [0, 1, 2, 3]), ("ch4", [0, 2])):
        np.savez(tmp_path / f"{gas}.npz", frames=np.zeros((len(times), 8, 8), np.uint8), times=np.array(times) / 10)
    source = open_source(str(tmp_path / "co2.npz"), str(tmp_path / "ch4.npz"), offset=0, start=0.1)
    assert [pair.positions for pair in source.pairs] == [{"co2": 1}, {"co2": 2, "ch4": 1}, {"co2": 3}]


def test_a_part_of_a_film_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"There is no file or folder .*gone\.npz"):
        open_source(str(tmp_path / "gone.npz"), None, start=1.0)


def test_the_rate_counts_for_files_without_times(tmp_path):
    np.save(tmp_path / "a.npy", ramps(*range(4)))
    source = open_source(str(tmp_path / "a.npy"), None, rate=10)
    assert [pair.time for pair in source.pairs] == pytest.approx([0, 0.1, 0.2, 0.3]) and source.notes == ()
    source = open_source(str(tmp_path / "a.npy"), None)
    assert source.rate == pytest.approx(25) and "25 frames a second are assumed (--rate)" in source.notes[0]


def test_a_coloured_palette_is_noted_once(tmp_path):
    colored = cv2.applyColorMap(GREY, cv2.COLORMAP_JET)
    tifffile.imwrite(tmp_path / "a.tif", np.stack([colored] * 4), photometric="rgb")
    source = open_source(str(tmp_path / "a.tif"), None)
    assert sum(PALETTE_NOTE in note for note in source.notes) == 1
    for i in range(3):
        write(tmp_path / "png" / f"{i}.png", colored)
    notes = [load(pair).notes["co2"] for pair in open_source(str(tmp_path / "png"), None).pairs]
    assert notes == [PALETTE_NOTE] * 3  # the same words for each, which prediction says once


def test_a_picture_that_cannot_be_grey_is_named_and_no_crash(tmp_path):
    np.savez(tmp_path / "a.npz", np.full((3, 8, 9), np.nan))
    source = open_source(str(tmp_path / "a.npz"), None)
    assert source.limits == {}
    for i, pair in enumerate(source.pairs):
        assert load(pair, source.limits).faults == {"co2": f"{tmp_path / 'a.npz'}, frame {i}: no finite pixel"}


TEMPERATURES = {
    "ThermStats_FLIR8565.jpg": ((120, 160), 23.47, 25.34, 24.20),
    "TIA_Flir_E40.jpg": ((120, 160), 17.88, 24.70, 21.09),
    "FlirImageExtractor_ax8.jpg": ((60, 80), 24.36, 25.47, 25.03),
    "floor_heating_CC0.jpg": ((240, 320), 16.72, 34.47, 19.88),
    "ducks_CC0.jpg": ((120, 120), 7.21, 23.24, 10.03),
}


@real
@pytest.mark.parametrize("name", TEMPERATURES)
def test_a_real_radiometric_picture_has_its_temperatures(name):
    shape, low, high, mean = TEMPERATURES[name]
    source = open_source(str(REAL / name), None)
    assert source.units == {"co2": CELSIUS}
    (pair,) = source.pairs
    loaded = load(pair, source.limits)
    values = loaded.values["co2"]
    assert values.shape == shape and not loaded.notes
    assert (values.min(), values.max(), values.mean()) == pytest.approx((low, high, mean), abs=0.006)


@real
def test_real_pictures_of_several_units_have_no_common_scale():
    told = "numbers in °C .such as .*jpg., numbers of more than 8 bits .such as .*flirpy_example_radiometric.tiff."
    with pytest.raises(UserError, match=told):
        open_source(str(REAL), None)
    source = open_source(str(REAL / "*[!R].jpg"), None)
    assert source.units == {"co2": CELSIUS} and 0 < source.limits["co2"][0] < source.limits["co2"][1] < 40


@real
def test_a_real_picture_of_dji_is_read_with_a_note():
    found = read_values(REAL / "thermalparser_XTS_DJI_0001_R.jpg")
    assert found.unit == LEVELS and found.values.shape == (512, 640, 3)
    for note in ("temperatures of DJI cameras are not read, so its picture is taken", "the end of the file is missing"):
        assert note in found.note


@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_jpeg_that_lacks_its_end_is_read_with_a_note_and_more_is_refused(tmp_path, channels):
    noise = np.random.default_rng(0).integers(0, 256, (400, 64, *channels)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg", subsampling="4:2:0")
    data = (tmp_path / "a.jpg").read_bytes()
    whole = read_values(tmp_path / "a.jpg").values
    (tmp_path / "a.jpg").write_bytes(data[:-100])
    (pair,) = open_source(str(tmp_path / "a.jpg"), None).pairs
    loaded = load(pair)
    assert "the end of the file is missing" in loaded.notes["co2"] and not loaded.faults
    np.testing.assert_array_equal(loaded.values["co2"][:383], luminance(whole)[:383])
    (tmp_path / "a.jpg").write_bytes(data[: len(data) * 3 // 4])
    assert "damaged" in load(pair).faults["co2"]
