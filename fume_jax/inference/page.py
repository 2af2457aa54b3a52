"""The page on which a trained model is tried in the browser."""

from collections.abc import Sequence
from pathlib import Path

import gradio as gr
import numpy as np
from gradio.processing_utils import check_all_files_in_cache

from fume_jax.data.images import UnreadableFrame, read_frame
from fume_jax.inference.card import ModelCard
from fume_jax.inference.predictor import Predictor, pretrained_examples
from fume_jax.learning.plume import Plume
from fume_jax.schema import GASES

# Dataset of frames that no camera has taken.
SIMULATED = "synthetic_ogi"
# Colours of the overlays in words.
LEGENDS = {"co2": "CO2: plume orange, tube blue", "ch4": "CH4: plume green, tube blue"}
# Of a picture on the page, pixels.
HEIGHT = 260
# One of the fonts that come with Gradio, of which some lack most letters where they are semi-bold, as by default.
FONT = gr.themes.LocalFont("Source Sans Pro", weights=(400, 700)), "sans-serif"
THEME = gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=FONT, font_mono=FONT)


def create_page(predictor: Predictor) -> gr.Blocks:
    """The page of a model, with what that reads and says.

    Whatever the model, its endpoint `predict` takes an image file of each gas, either of which may be None, and returns
    the overlays of CO2 and CH4, probabilities, measures and milliseconds, None where there is no such thing.
    """
    card = predictor.card
    with gr.Blocks(title="fume_jax", analytics_enabled=False) as page:
        gr.Markdown(describe(card))
        # What the model does not have stays hidden, so that the endpoint is the same for all.
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                with gr.Row():
                    frames = [_picture(f"{gas.upper()} frame", gas in card.gases, upload=True) for gas in GASES]
                examples = list_examples(card)
                gr.Examples(
                    list(examples.values()),
                    frames,
                    label="Examples, simulated",
                    example_labels=list(examples),
                    api_visibility="private",
                )
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
            (prediction,) = predictor.predict([pair])
            pictured = {gas: overlays.overlay(pair[gas][..., 0], mask, gas) for gas, mask in prediction.masks.items()}
            table = tabulate(prediction.plumes, card.segmented)
            return *map(pictured.get, GASES), prediction.probabilities or None, table, prediction.milliseconds

        # Gradio's own way from an upload to a file goes through Pillow, which cannot read all that a camera writes.
        options = {"preprocess": False, "show_progress": "minimal"}
        outputs = [*overlays, probabilities, measures, milliseconds]
        changes = [frame.change for frame in frames]
        gr.on(changes, predict, frames, outputs, api_name="predict", trigger_mode="always_last", **options)
        for frame in frames:
            frame.upload(show_upload, frame, frame, api_visibility="private", **options)
    return page


def describe(card: ModelCard) -> str:
    """Title, and a line on what the model is, Markdown."""
    path = Path(card.config["data"]["path"])
    data = f"simulated frames alone, {path}" if SIMULATED in path.parts else path
    # The parameters of step 0 come from a file, and the config does not know what they were trained on.
    trained = f"trained for {card.step:,} steps on {data}" if card.step else "trained elsewhere"
    scores = {"gas IoU": "test/iou_gas", "balanced accuracy": "test/balanced_accuracy"}
    told = [f"{name} {card.metrics[key]:.2f}" for name, key in scores.items() if key in card.metrics]
    test = f" Scores on its test split: {', '.join(told)}." if told else ""
    return (
        "# Gas plumes in infrared frames\n"
        f"Model `{card.model}`, frames scaled to {card.width}x{card.height}, {trained}.{test}"
    )


def list_examples(card: ModelCard) -> dict[str, list[str | None]]:
    """Files of CO2 and CH4 by a name for people; the first once more as CO2 alone, for a model that reads both."""
    examples = {}
    for name, files in pretrained_examples().items():
        pair = [str(files[gas]) if gas in files and gas in card.gases else None for gas in GASES]
        examples[name.replace("_", " ")] = pair
    name, pair = next(iter(examples.items()))
    if None not in pair:
        examples[f"{name}, CO2 alone"] = [pair[0], None]
    return examples


def read_upload(file: dict) -> np.ndarray:
    """The frame in an uploaded file, uint8 [H, W, 1].

    Raises:
      gradio.Error: if nobody has uploaded it: other files of this machine are no one's business.
      UnreadableFrame: if it holds no usable image.
    """
    check_all_files_in_cache(file)
    return read_frame(file["path"])


def read_pair(files: dict[str, dict]) -> dict[str, np.ndarray]:
    """The frames in uploaded files by gas, or a `gradio.Error`, which the page shows."""
    frames = {}
    for gas, file in files.items():
        try:
            frames[gas] = read_upload(file)
        except UnreadableFrame as error:
            raise gr.Error(f"The {gas.upper()} frame: {error}.", print_exception=False) from error
    return frames


def show_upload(file: dict) -> np.ndarray | dict:
    """What the model sees of an uploaded file, which may be of a kind that browsers do not show, such as TIFF."""
    try:
        return read_upload(file)[..., 0]
    except UnreadableFrame:
        return gr.skip()  # the prediction says why


def tabulate(plumes: dict[str, Plume], gases: Sequence[str]) -> dict[str, list]:
    """Measures of plumes by gas, a column for each of `gases`, empty where there is none."""
    rows = {
        "Area, pixels": lambda plume: plume.area_pixels,
        "Share of the frame, %": lambda plume: round(100 * plume.fraction, 2),
        "Direction, degrees (90 is up)": lambda plume: _rounded(plume.direction_degrees),
        "Length, pixels": lambda plume: _rounded(plume.length_pixels),
    }
    return {
        "headers": ["", *(gas.upper() for gas in gases)],
        "data": [
            [name, *(measure(plumes[gas]) if gas in plumes else None for gas in gases)]
            for name, measure in rows.items()
        ],
    }


def _picture(label, visible, *, upload):
    # PNG: the other formats of the web change pixels.
    options = {"sources": ["upload", "clipboard"]} if upload else {"buttons": ["download", "fullscreen"]}
    return gr.Image(label=label, visible=visible, interactive=upload, format="png", height=HEIGHT, **options)


def _rounded(value):
    return None if value is None else round(value, 1)
