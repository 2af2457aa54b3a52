"""Predicts a list of recordings, a folder each, and sums them up in one table."""

import csv
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from fume_jax.data.recording_list import AUTO, Recording
from fume_jax.inference.output import USUAL, output_folder
from fume_jax.inference.predictor import Predictor
from fume_jax.inference.recording import find_offset, predict_recording
from fume_jax.inference.settings import FOUND, LABELS, open_predicted, to_settings
from fume_jax.inference.summary import SUMMARY, cell
from fume_jax.runtime.errors import DONE, NOTHING_DONE, PARTLY_DONE, RUN_AGAIN, UserError
from fume_jax.runtime.files import check_folder, read_json, replace_text, replacing
from fume_jax.runtime.names import csv_text, file_name, printable
from fume_jax.runtime.preemption import StopRequest

TABLE = "recordings.csv"


def predict_recordings(
    predictor: Predictor,
    recordings: Sequence[Recording],
    output: str,
    *,
    batch_size: int,
    products: Sequence[str] = USUAL,
    rate: float | None = None,
    share: tuple[int, int] = (0, 1),
    stop: StopRequest | None = None,
) -> int:
    """Predicts each recording into the folder of its id, and writes `recordings.csv`, a row each, in order of the list.

    What is done is skipped, so the same command goes on where it ended; a recording that was not finished begins anew.
    One that cannot be predicted has a row that says why, and is tried again the next time. A share of the list writes
    no table: `write_table` makes it from the folders once all shares have written theirs, in whatever place.

    Args:
      predictor, batch_size, products: as for `predict_recording`.
      output: folder, created if missing. Processes that predict shares of a list may have it in common; it need not
        know locks of several machines.
      rate: frames per second of files that state no times.
      share: (K, N) predicts recordings K, K + N, K + 2 N and so on.
      stop: a request ends the prediction after the current pair.

    Returns:
      `DONE`; `PARTLY_DONE` if something could not be read or made; `NOTHING_DONE` if no recording could be predicted;
      `RUN_AGAIN` if stopped.

    Raises:
      UserError: if a recording was predicted with other settings.
    """
    own, folder, whole = recordings[share[0] :: share[1]], Path(output), share[1] == 1
    check_folder(folder)
    settings = {recording.id: to_settings(recording, predictor.card, rate) for recording in own}
    todo = [recording for recording in own if not _is_done(folder, recording, settings[recording.id])]
    for recording in own:
        if recording not in todo:
            _hand_on_labels(folder, recording, settings[recording.id])
    print(f"{len(todo)} of {len(own)} recordings to do in {output}", flush=True)
    for number, recording in enumerate(todo, 1):
        print(f"[{number}/{len(todo)}] {printable(recording.id)}", flush=True)
        options = {"batch_size": batch_size, "products": products, "stop": stop}
        try:
            code = _predict(predictor, recording, folder, rate, options)
        except UserError as error:
            code = NOTHING_DONE
            print(f"skipped: {printable(recording.id)}: {error}", flush=True)
            _write_fault(folder, recording, settings[recording.id], str(error))
        if code != RUN_AGAIN and read_result(folder, recording) is None:
            reason = "no frame is readable" if code == NOTHING_DONE else "its summary could not be written"
            _write_fault(folder, recording, settings[recording.id], reason)
        if whole:
            write_table(folder, recordings)
        if code == RUN_AGAIN:
            return RUN_AGAIN
    if whole:
        write_table(folder, recordings)
    else:
        print(f"When all shares are done, the same command without --share writes {folder / TABLE}.", flush=True)
    return sum_codes(read_result(folder, recording)["code"] for recording in own)


def sum_codes(codes: Iterable[int]) -> int:
    """Returns the exit code of what consists of parts that ended with these codes, of which none was stopped."""
    codes = set(codes)
    if codes == {DONE}:
        return DONE
    return PARTLY_DONE if codes & {DONE, PARTLY_DONE} else NOTHING_DONE


def _predict(predictor, recording, folder, rate, options):
    output = str(folder / file_name(recording.id))
    with output_folder(output, (recording.co2, recording.ch4)):
        settings = find_settings(predictor, recording, rate, options["batch_size"])
        named = {"mm_per_pixel": recording.mm_per_pixel, "title": recording.id, "settings": settings}
        return predict_recording(predictor, open_predicted(settings), output, **named, **options)


def find_settings(predictor: Predictor, recording: Recording, rate: float | None, batch_size: int) -> dict:
    """Returns the settings of a recording that is to be predicted, with its offset if that is to be found.

    Raises UserError as `find_offset` does.
    """
    settings = to_settings(recording, predictor.card, rate)
    paths = (recording.co2, recording.ch4)
    if recording.offset == AUTO and None not in paths:
        opening = {"range": recording.range, "rate": rate, "start": recording.start, "stop": recording.stop}
        settings[FOUND] = float(find_offset(predictor, *paths, batch_size, **opening).seconds)
    return settings


def _is_done(folder, recording, settings):
    found = read_result(folder, recording)
    if found is None or found["code"] == NOTHING_DONE:
        return False
    before = found["settings"]
    compared = settings.keys() - set(LABELS)
    if before.get("digest") == "":
        compared -= {"digest"}  # an earlier version knew none of a run
    if different := sorted(key for key in compared if before.get(key) != settings[key]):
        changes = ", ".join(f"{key} was {before.get(key)} and is {settings[key]}" for key in different)
        raise UserError(
            f"{folder / file_name(recording.id)} was predicted with other settings: {changes}. Choose another "
            "--output, or remove that folder."
        )
    return True


def _hand_on_labels(folder, recording, settings):
    """Writes the labels of a recording to the summary of its prediction, if the list has other ones by now."""
    found, labels = read_result(folder, recording), {name: settings[name] for name in LABELS}
    if any(found["settings"].get(name) != label for name, label in labels.items()):
        found["settings"] |= labels
        replace_text(folder / file_name(recording.id) / SUMMARY, json.dumps(found, indent=1))


def read_result(folder: Path, recording: Recording) -> dict | None:
    """Returns what the summary of a recording in the folder of a list says; None if there is none yet.

    A recording that could not be predicted has the `code` `NOTHING_DONE`, and a `fault` that says why.
    """
    path = folder / file_name(recording.id) / SUMMARY
    return read_json(path) if path.exists() else None


def _write_fault(folder, recording, settings, reason):
    path = folder / file_name(recording.id) / SUMMARY
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {"settings": settings, "code": NOTHING_DONE, "fault": reason, "summary": {}}
    replace_text(path, json.dumps(found, indent=1))


def write_table(folder: Path, recordings: Sequence[Recording]) -> None:
    """Writes `recordings.csv` of the recordings that have been tried, in the order of the list.

    It follows from their summaries alone, so any number of processes may write it.
    """
    rows = []
    for recording in recordings:
        if (found := read_result(folder, recording)) is not None:
            notes = {"skipped_frames": found.get("skipped"), "fault": found.get("fault", "")}
            rows.append({"id": recording.id} | found["summary"] | notes)
    # Columns in the order of the fullest row; all have those of their gases alone.
    columns = list(dict.fromkeys(name for row in sorted(rows, key=len, reverse=True) for name in row))
    # Two processes that write at once have each a file of their own.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".table-") as own:
        with replacing(Path(own, TABLE)) as part, part.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(columns)
            for row in rows:
                values = [row.get(column) for column in columns]
                table.writerow([csv_text(value) if isinstance(value, str) else cell(value) for value in values])
        os.replace(Path(own, TABLE), folder / TABLE)
