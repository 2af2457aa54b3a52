"""Builds the parts of the web page that predict films, and many recordings at once."""

import contextlib
import csv
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
from gradio.processing_utils import check_all_files_in_cache
from gradio.utils import get_upload_folder

from fume_jax.data.recording_list import Recording, read_recordings
from fume_jax.inference.output import output_folder
from fume_jax.inference.predictor import Predictor
from fume_jax.inference.recording import predict_recording
from fume_jax.inference.recordings import TABLE, find_settings, predict_recordings
from fume_jax.inference.settings import open_predicted
from fume_jax.inference.summary import PAGE, SUMMARY, cell
from fume_jax.runtime.errors import NOTHING_DONE, UserError, explain
from fume_jax.runtime.files import read_json
from fume_jax.runtime.names import printable
from fume_jax.schema import GASES

# Pairs that the model processes at once, of short films too, since JAX compiles for each number.
BATCH_SIZE = 8
# Files of a film that the page shows or offers: its video, its timeline, and those to download.
VIDEO, TIMELINE, TABLES = "annotated.mp4", "timeline.png", ("predictions.csv", SUMMARY, PAGE)
# Values of a recording that the page shows; docs/prediction.md describes them.
SHOWN = ("class", "probability", "abstain", "unlike_training", "agreement", "frames", "frames_with_gas")


def create_film_tab(predictor: Predictor) -> None:
    """Adds what predicts the film of each gas, or of one, to the page that is being built.

    The endpoint `predict_film` takes a file of each gas, either of which may be None, and returns the annotated video,
    the timeline, the summary, and a list of tables to download.
    """
    gr.Markdown("Videos, SEQ, CSQ, TIFF stacks or NumPy arrays. Frames of the two gases pair by time.")
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            films = [gr.File(label=f"{gas.upper()} film", visible=gas in predictor.card.gases) for gas in GASES]
            start = gr.Button("Predict", variant="primary")
            summary = gr.Dataframe(headers=["", "value"], label="Recording", interactive=False, buttons=[])
            downloads = gr.File(label="Tables", interactive=False, file_count="multiple")
        with gr.Column(scale=3, min_width=320):
            video = gr.Video(label="Annotated film", interactive=False, autoplay=True)
            timeline = gr.Image(label="Timeline", interactive=False, format="png", buttons=["download", "fullscreen"])

    def predict_film(co2: dict | None, ch4: dict | None):
        """Segments and classifies a film of each gas, or of one."""
        given = [None if file is None else uploaded_path(file) for file in (co2, ch4)]
        if not any(given):
            raise gr.Error("Choose a film of at least one gas.", print_exception=False)
        name = next(Path(file["orig_name"] or file["path"]).stem for file in (co2, ch4) if file is not None)
        folder = predict_uploads(predictor, Recording(printable(name), *given))
        there = {name: str(folder / name) for name in os.listdir(folder)}
        tables = [there[name] for name in TABLES if name in there]
        return there.get(VIDEO), there.get(TIMELINE), tabulate_summary(folder), tables

    outputs = [video, timeline, summary, downloads]
    start.click(predict_film, films, outputs, api_name="predict_film", preprocess=False)


def create_recordings_tab(predictor: Predictor) -> None:
    """Adds what predicts many recordings to the page that is being built.

    The endpoint `predict_recordings` takes a list of files that are named for their gas, and returns the table of
    recordings and a zip file of all that was written.
    """
    gr.Markdown("Films that are named for their gas: `bottle3_co2.seq` and `bottle3_ch4.seq` are a recording.")
    films = gr.File(label="Films", file_count="multiple")
    start = gr.Button("Predict", variant="primary")
    table = gr.Dataframe(label="Recordings", interactive=False, buttons=[])
    everything = gr.File(label="Tables, films and timelines", interactive=False)

    def predict_all(files: list[dict] | None):
        """Segments and classifies recordings, whose films are named for their gas."""
        with told():
            source, output = _new_folder(), _new_folder() / "recordings"
            for file in files or []:
                path = uploaded_path(file)
                (source / Path(file["orig_name"] or path).name).symlink_to(path)
            options = {"batch_size": BATCH_SIZE, "products": ["video"]}
            predict_recordings(predictor, read_recordings(str(source)), str(output), **options)
            shutil.rmtree(source)
        with (output / TABLE).open(newline="", encoding="utf-8") as lines:
            headers, *rows = csv.reader(lines)
        return {"headers": headers, "data": rows}, shutil.make_archive(str(output), "zip", output)

    start.click(predict_all, films, [table, everything], api_name="predict_recordings", preprocess=False)


def predict_uploads(predictor: Predictor, recording: Recording) -> Path:
    """Predicts a recording into a new folder among the files of the page; raises `gr.Error` if it cannot."""
    with told():
        folder = _new_folder() / "recording"
        settings = find_settings(predictor, recording, None, BATCH_SIZE)
        source, options = open_predicted(settings), {"batch_size": BATCH_SIZE, "products": ["video"]}
        with output_folder(str(folder), (recording.co2, recording.ch4)):
            options |= {"title": recording.id, "settings": settings}
            if predict_recording(predictor, source, str(folder), **options) == NOTHING_DONE:
                raise UserError("No frame is readable.")
    return folder


def tabulate_summary(folder: Path) -> list[list[str]]:
    """Returns rows of names and values from the summary of a recording."""
    values = read_json(folder / SUMMARY)["summary"]
    return [[name.replace("_", " "), cell(values[name])] for name in SHOWN if name in values]


def uploaded_path(file: dict) -> str:
    """Returns the path of a file that was uploaded; `gradio.Error` if it is any other file of this machine."""
    check_all_files_in_cache(file)
    return file["path"]


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Shows an error of the user or of the system on the page, by names of files without their folders."""
    try:
        yield
    except (UserError, MemoryError, OSError) as error:
        text = re.sub(rf"{re.escape(get_upload_folder())}/(?:\w+/)*", "", explain(error))
        raise gr.Error(text, print_exception=False) from error


def _new_folder():
    # Among the files that the server deletes when it ends.
    return Path(tempfile.mkdtemp(dir=os.environ.get("GRADIO_TEMP_DIR")))
