"""Builds the web page on which to try a model."""

from collections.abc import Sequence
from pathlib import Path

import gradio as gr
import numpy as np
from gradio.processing_utils import check_all_files_in_cache
from starlette.middleware import Middleware

from fume_jax.data.faults import UnreadableFrame, max_pixels
from fume_jax.data.images import MAX_PIXEL_BYTES, read_frame
from fume_jax.evaluation.overlays import overlay
from fume_jax.inference.card import ModelCard
from fume_jax.inference.film_page import create_film_tab, create_recordings_tab
from fume_jax.inference.host_check import HostCheck
from fume_jax.inference.predictor import Predictor, pretrained_examples
from fume_jax.learning.plume import Plume
from fume_jax.schema import GASES

# Dataset of simulated frames.
SIMULATED = "synthetic_ogi"
# Titles of the overlays, with their colours.
LEGENDS = {"co2": "CO2: plume orange, tube blue", "ch4": "CH4: plume green, tube blue"}
# Height of a picture on the page in pixels.
HEIGHT = 260
# A font of Gradio without semi-bold, its default weight, in which some of its fonts lack most letters.
FONT = gr.themes.LocalFont("Source Sans Pro", weights=(400, 700)), "sans-serif"
THEME = gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=FONT, font_mono=FONT)


def create_page(predictor: Predictor) -> gr.Blocks:
    """Creates the page of a model, with an endpoint in each of its tabs."""
    card = predictor.card
    with gr.Blocks(title="fume_jax", analytics_enabled=False) as page:
        gr.Markdown(describe(card))
        with gr.Tab("Frames"):
            create_frame_tab(predictor)
        with gr.Tab("Films"):
            create_film_tab(predictor)
        with gr.Tab("Recordings"):
            create_recordings_tab(predictor)
    return page


def create_frame_tab(predictor: Predictor) -> None:
    """Adds what predicts a frame of each gas, or of one, to the page that is being built.

    For every model, the endpoint `predict` takes an image file of each gas, either of which may be None, and returns
    the overlays of CO2 and CH4, probabilities, measures and milliseconds; those that the model lacks are None.
    """
    card = predictor.card
    # Parts that the model lacks are hidden, so that the endpoint is the same for all models.
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            with gr.Row():
                frames = [_picture(f"{gas.upper()} frame", gas in card.gases, upload=True) for gas in GASES]
            examples = list_examples(card)
            labels = {"label": "Examples, simulated", "example_labels": list(examples)}
            chosen = gr.Examples(list(examples.values()), frames, **labels, api_visibility="private")
            probabilities = gr.Label(label="pH state", visible=card.classifies)
            milliseconds = gr.Number(label="Milliseconds", precision=1, interactive=False)
        with gr.Column(scale=3, min_width=320, visible=bool(card.segmented)):
            with gr.Row():
                overlays = [_picture(LEGENDS[gas], gas in card.segmented, upload=False) for gas in GASES]
            measures = gr.Dataframe(tabulate({}, card.segmented), label="Plume", interactive=False, buttons=[])

    def predict(co2: dict | None, ch4: dict | None):
        """Segments and classifies a pair of frames, or one."""
        given = {gas: file for gas, file in zip(GASES, (co2, ch4), strict=True) if file is not None}
        if not given:
            return None, None, None, tabulate({}, card.segmented), None
        pair = read_pair(given)
        try:
            (prediction,) = predictor.predict([pair])
            pictured = {gas: overlay(pair[gas][..., 0], mask, gas) for gas, mask in prediction.masks.items()}
        except MemoryError as error:
            raise gr.Error("There is not enough memory for this frame.", print_exception=False) from error
        table = tabulate(prediction.plumes, card.segmented)
        return *map(pictured.get, GASES), prediction.probabilities or None, table, prediction.milliseconds

    # Gradio would read uploads with Pillow, which does not support all formats of cameras.
    options = {"preprocess": False, "show_progress": "minimal"}
    outputs = [*overlays, probabilities, measures, milliseconds]
    # What the user does, not every change: `show_upload` changes the frame once more, and an example both.
    inputs = [frame.input for frame in frames]
    gr.on(inputs, predict, frames, outputs, api_name="predict", trigger_mode="always_last", **options)
    chosen.load_input_event.then(predict, frames, outputs, api_visibility="private", **options)
    for frame in frames:
        frame.upload(show_upload, frame, frame, api_visibility="private", **options)


def launch_options(host: str) -> dict:
    """Returns options for `Blocks.launch` at a host: nothing leaves this machine, nothing comes from other sites."""
    return {
        "share": False,
        "run_history": False,
        "quiet": True,
        "prevent_thread_lock": True,
        "footer_links": ["api"],
        "max_file_size": MAX_PIXEL_BYTES * max_pixels(),
        "app_kwargs": {"middleware": [Middleware(HostCheck, host=host)]},
    }


def describe(card: ModelCard) -> str:
    """Returns the title and a description of the model in Markdown."""
    path = Path(card.config["data"]["path"])
    data = f"simulated frames alone, {path}" if SIMULATED in path.parts else path
    # Parameters of step 0 come from a file; the config does not have the data of their training.
    trained = f"trained for {card.step:,} steps on {data}" if card.step else "trained elsewhere"
    scores = {"gas IoU": "test/iou_gas", "balanced accuracy": "test/balanced_accuracy"}
    listed = ", ".join(f"{name} {card.metrics[key]:.2f}" for name, key in scores.items() if key in card.metrics)
    test = f" Scores on its test split: {listed}." if listed else ""
    model = f"Model `{card.model}`, frames scaled to {card.width}x{card.height}, {trained}.{test}"
    return f"# Gas plumes in infrared frames\n{model}"


def list_examples(card: ModelCard) -> dict[str, list[str | None]]:
    """Returns example files of CO2 and CH4 by title; repeats the first as CO2 alone if the model reads both gases."""
    examples = {}
    for name, files in pretrained_examples().items():
        pair = [str(files[gas]) if gas in files and gas in card.gases else None for gas in GASES]
        examples[name.replace("_", " ")] = pair
    name, pair = next(iter(examples.items()))
    if None not in pair:
        examples[f"{name}, CO2 alone"] = [pair[0], None]
    return examples


def read_upload(file: dict) -> np.ndarray:
    """Reads an uploaded file, uint8 [H, W, 1]; raises UnreadableFrame if it holds no usable image."""
    check_all_files_in_cache(file)  # or gradio.Error: the page must not read other files of this machine
    return read_frame(file["path"])


def read_pair(files: dict[str, dict]) -> dict[str, np.ndarray]:
    """Reads uploaded files by gas; raises `gradio.Error`, which the page shows, if one is unreadable."""
    frames = {}
    for gas, file in files.items():
        try:
            frames[gas] = read_upload(file)
        except UnreadableFrame as error:
            raise gr.Error(f"The {gas.upper()} frame: {error}.", print_exception=False) from error
    return frames


def show_upload(file: dict) -> np.ndarray | dict:
    """Reads an uploaded file as the model does, for formats that browsers do not show, such as TIFF."""
    try:
        return read_upload(file)[..., 0]
    except UnreadableFrame:
        return gr.skip()  # the prediction reports the error


def tabulate(plumes: dict[str, Plume], gases: Sequence[str]) -> dict[str, list]:
    """Tabulates measures of plumes, with a column for each of `gases`, empty without a plume of it."""
    columns = [["Area, pixels", "Share of the frame, %", "Direction, degrees (90 is up)", "Length, pixels"]]
    for plume in map(plumes.get, gases):
        columns.append([None] * 4)
        if plume is not None:
            lengths = [x and round(x, 1) for x in (plume.direction_degrees, plume.length_pixels)]
            columns[-1] = [plume.area_pixels, round(100 * plume.fraction, 2), *lengths]
    return {"headers": ["", *(gas.upper() for gas in gases)], "data": list(map(list, zip(*columns, strict=True)))}


def _picture(label, visible, *, upload):
    # PNG, since other formats of the web change pixels.
    options = {"sources": ["upload", "clipboard"]} if upload else {"buttons": ["download", "fullscreen"]}
    return gr.Image(label=label, visible=visible, interactive=upload, format="png", height=HEIGHT, **options)
