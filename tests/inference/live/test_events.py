"""Films in pieces, and events with what was before and after them."""

import json

import av
import cv2
import numpy as np
import pytest

from fume_jax.data.sources import open_source
from fume_jax.inference.live import events
from fume_jax.inference.live.events import Detector, EventRecorder
from fume_jax.inference.live.films import RotatingFilm, stamp

NOON = 1_750_000_000.0


def detected(fractions, hold, threshold=0.1):
    """Which of the frames, one a second, are of an event."""
    detector = Detector(threshold, hold)
    return [detector.update(time, fraction) for time, fraction in enumerate(fractions)]


@pytest.mark.parametrize(
    "fractions, hold, expected",
    [
        ([0, 0.2, 0.2, 0.2, 0, 0, 0], 2, [0, 0, 0, 1, 1, 1, 0]),
        ([0, 0.2, 0.2, 0, 0.2, 0.2, 0], 2, [0] * 7),  # puffs that are too short
        ([0.2, 0.2, 0.2, 0, 0.2, 0, 0.2], 2, [0, 0, 1, 1, 1, 1, 1]),  # gaps that are too short
        ([0, 0.1, 0.2, 0], 0, [0, 0, 1, 0]),  # above, not at, the threshold
    ],
)
def test_an_event_begins_and_ends_after_it_has_lasted(fractions, hold, expected):
    assert detected(fractions, hold) == list(map(bool, expected))


def picture(level):
    return np.full((48, 64, 3), level, np.uint8)


def length(path):
    with av.open(str(path)) as film:
        return sum(1 for _ in film.decode(video=0))


def test_a_film_is_written_in_pieces_of_which_the_last_stay(tmp_path):
    (tmp_path / "notes.mp4").write_text("somebody's own")
    film = RotatingFilm(tmp_path, 10.0, keep=2)
    for i in range(35):
        film.write(picture(i), NOON + i)
    names = [f"{stamp(NOON + begin)}.mp4" for begin in (0, 10, 20, 30)]
    assert sorted(path.name for path in tmp_path.glob("*.mp4")) == [names[1], names[2], "notes.mp4"]
    film.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [names[2], names[3], "notes.mp4"]
    assert [length(tmp_path / name) for name in names[2:]] == [10, 5]
    assert stamp(NOON) == "2025-06-15T150640Z"


def test_after_an_error_a_film_goes_on_in_a_new_piece(tmp_path):
    film = RotatingFilm(tmp_path, 10.0, keep=9)
    film.write(picture(0), NOON)
    with pytest.raises(Exception):  # noqa: B017 (whatever the encoder raises)
        film.write(np.zeros((48, 64, 7), np.uint8), NOON + 1)
    film.write(picture(0), NOON + 2)
    film.close()
    assert [path.name for path in tmp_path.iterdir()] == [f"{stamp(NOON + 2)}.mp4"]


def record(recorder, times, on, dtype=np.uint8):
    for i in times:
        frame = np.full((24, 32), i % 256, dtype)
        values = {"frame": f"live_{i:06d}", "time": NOON + i}
        recorder.add(NOON + i, values, {"co2": frame}, picture(i % 256), on(i))


def test_an_event_has_the_seconds_before_and_after_it(tmp_path):
    told = []
    recorder = EventRecorder(tmp_path, 3.0, told.append)
    record(recorder, range(30), lambda i: 10 <= i < 15)
    recorder.close()
    (folder,) = tmp_path.iterdir()
    assert folder.name == stamp(NOON + 10)
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [line["time"] - NOON for line in lines] == list(range(7, 18))  # 3 s before 10, 3 s after 14
    assert length(folder / "annotated.mp4") == 11
    assert told == [
        f"event: gas since {stamp(NOON + 10)}; it is written to {folder}",
        f"event: complete in {folder}",
    ]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_frames_of_an_event_are_kept_as_they_were_measured_and_read_by_predict(tmp_path, dtype):
    recorder = EventRecorder(tmp_path, 1.0, print)
    record(recorder, range(200, 204), lambda i: True, dtype)
    recorder.close()
    (folder,) = tmp_path.iterdir()
    assert [pair.name for pair in open_source(str(folder / "co2"), None).pairs] == [
        f"live_{i:06d}" for i in range(200, 204)
    ]
    kept = cv2.imread(str(folder / "co2" / "live_000202.png"), cv2.IMREAD_UNCHANGED)
    assert kept.dtype == dtype and (kept == 202).all()


def test_gas_that_stays_ends_an_event_and_begins_no_other_until_it_has_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(events, "MOST_SECONDS", 5.0)
    recorder = EventRecorder(tmp_path, 1.0, print)
    record(recorder, range(40), lambda i: i < 20 or i >= 30)
    recorder.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [stamp(NOON), stamp(NOON + 30)]
    assert length(tmp_path / stamp(NOON) / "annotated.mp4") == 6


def test_what_is_in_memory_is_bounded(tmp_path):
    recorder = EventRecorder(tmp_path, 1e9, print)
    record(recorder, range(events.MOST_MOMENTS + 50), lambda i: False)
    assert len(recorder._ring) == events.MOST_MOMENTS
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_an_error_and_the_next_event_may_be_written(tmp_path):
    recorder = EventRecorder(tmp_path / "events", 1.0, print)
    (tmp_path / "events").write_text("a file")
    with pytest.raises(OSError):
        record(recorder, [0], lambda i: True)
    (tmp_path / "events").unlink()
    record(recorder, range(1, 20), lambda i: 5 <= i < 8)
    recorder.close()
    assert [path.name for path in (tmp_path / "events").iterdir()] == [stamp(NOON + 5)]
