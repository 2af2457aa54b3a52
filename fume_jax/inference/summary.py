"""Sums up a predicted recording: `recording.json`, and `recording.html`, a page with its class, timeline and frames."""

import base64
import collections
import html
import json
from pathlib import Path

import cv2
import numpy as np

from fume_jax.data.sources import Source
from fume_jax.evaluation import overlays
from fume_jax.inference.card import ModelCard
from fume_jax.inference.output import ABSTAINS, by_class
from fume_jax.learning.likeness import CHECKS
from fume_jax.learning.recording_summary import summarize_recording
from fume_jax.runtime.byproducts import ByProducts
from fume_jax.runtime.errors import DONE, PARTLY_DONE
from fume_jax.runtime.files import replace_text
from fume_jax.runtime.names import printable
from fume_jax.schema import GASES

SUMMARY, PAGE = "recording.json", "recording.html"
# Frames on a page, and their width in pixels.
SHOWN, WIDTH = 8, 240
# Share of the frames from which on a recording counts as unlike training: a few of every recording are.
UNLIKE = 0.5
# Measures of a plume that are summed up, in pixels and degrees, by their columns.
MEASURES = {
    "area": "area_pixels",
    "length": "length_pixels",
    "direction": "direction_degrees",
    "dispersion": "dispersion_pixels",
}
_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse } td, th { padding: .2em .8em; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left } figure { display: inline-block; margin: .3em }
figcaption { font-size: 12px; color: #555 } img { max-width: 100% } .timeline { width: 100% }
"""


class Series:
    """Collects what the frames of a recording say, in order."""

    def __init__(self, card: ModelCard, source: Source, by_products: ByProducts, mm_per_pixel: float | None = None):
        """Begins a recording that is predicted with the model of `card`."""
        self._card, self.source, self._by_products, self.mm_per_pixel = card, source, by_products, mm_per_pixel
        self._times, self._probabilities, self._plumes, self._contrasts = [], [], [], []
        self._frame_pixels, self._strip = {}, _Filmstrip()
        self.counts = collections.Counter()  # frames by the gases that were read
        self._unlike, self._any_unlike = collections.Counter(), 0

    def __len__(self) -> int:
        return len(self._times)

    def add(self, result) -> None:
        """Adds a `PredictedPair` that has a prediction."""
        prediction = result.prediction
        self.counts[" and ".join(gas.upper() for gas in GASES if gas in result.frames)] += 1
        self._times.append(result.time)
        self._probabilities.append(by_class(prediction.probabilities))
        self._plumes.append(prediction.plumes)
        self._contrasts.append(result.contrasts)
        self._unlike.update(prediction.unlike_training)
        self._any_unlike += bool(prediction.unlike_training)
        for gas, mask in prediction.masks.items():
            self._frame_pixels.setdefault(gas, mask.size)
        with self._by_products.attempt(PAGE, f"a picture of {PAGE}, {result.name},"):
            self._strip.add(result)

    @property
    def unit(self) -> str:
        """Unit of the times: `s`, or `frame` of images."""
        return "frame" if None in self._times else "s"

    @property
    def times(self) -> np.ndarray:
        """Seconds, or numbers of images, float [N]."""
        return np.arange(len(self)) if self.unit == "frame" else np.array(self._times, float)

    @property
    def strip(self) -> list[tuple[str, np.ndarray]]:
        """Captions and overlays, RGB uint8, of some frames spread over the recording."""
        return self._strip.pictures

    def unlike_training(self) -> list[str]:
        """Returns those of `likeness.CHECKS` in which `UNLIKE` of the frames, or more, are unlike those of training."""
        return [name for name in CHECKS if len(self) and self._unlike[name] >= UNLIKE * len(self)]

    def save_timeline(self, folder: Path) -> None:
        """Draws `timeline.png`: the probabilities of the classes, and the share of the frame that is gas."""
        try:
            from fume_jax.evaluation.timeline import timeline_chart
        except ImportError as error:
            print(f"note: no timeline.png, as {error.name} is not installed")
            return
        segmented = [gas for gas in self._card.segmented if gas in self.source.gases]
        shares = {gas: _values(self._plumes, gas, "fraction") for gas in segmented}
        rows = np.array(self._probabilities) if self._card.classifies else None
        overlays.save(folder / "timeline.png", timeline_chart(self.times, rows, shares, unit=self.unit))

    def summarize(self) -> dict:
        """Returns the columns of `recordings.csv`; see `summarize_recording`, and docs/prediction.md."""
        order = np.argsort(self.times, kind="stable")
        order = order[np.append(True, np.diff(self.times[order]) > 0)]  # frames of one time count once
        gases = [gas for gas in self._card.segmented if gas in self._frame_pixels]
        measures = {}
        for gas in gases:
            measures[gas] = {key: _values(self._plumes, gas, name)[order] for key, name in MEASURES.items()}
            measures[gas]["contrast"] = _values(self._contrasts, gas, "mean")[order]
        probabilities = np.array(self._probabilities, float)[order]
        found = summarize_recording(self.times[order], probabilities, measures, self._frame_pixels)
        for gas in gases:
            if self.unit == "frame":
                found[f"{gas}_onsets"] = None  # in no unit
            if (scale := self.mm_per_pixel) is not None:
                for name, factor in (("area", scale**2), ("length", scale), ("dispersion", scale)):
                    unit = "mm2" if name == "area" else "mm"
                    for key in ("median", "q1", "q3"):
                        value = found[f"{gas}_{name}_{key}"]
                        found[f"{gas}_{name}_{unit}_{key}"] = None if value is None else value * factor
        found = {"class": found["class"]} | self._certainty(found) | found  # side by side
        return {name: _rounded(value) for name, value in found.items()}

    def _certainty(self, found):
        """Returns whether the model abstains from the class, and what is unlike training, as far as the card says."""
        limit, columns = self._card.recording_abstain_below, {}
        if limit is not None:
            columns["abstain"] = ABSTAINS[None if found["class"] is None else found["probability"] < limit]
        if self._card.training_frames is not None:
            columns["unlike_training"] = " ".join(self.unlike_training())
            columns["frames_unlike_training"] = self._any_unlike
        return columns


def _values(frames, gas, name):
    """Returns an attribute of what each frame has of a gas, float [N], NaN where there is none."""
    found = (frame[gas] and getattr(frame[gas], name) if gas in frame else None for frame in frames)
    return np.array([np.nan if value is None else value for value in found], float)


class _Filmstrip:
    """Keeps small overlays of frames that are spread evenly over all that were added, however many come."""

    def __init__(self):
        self._kept, self._step, self._count = [], 1, 0

    def add(self, result):
        self._count += 1
        if (self._count - 1) % self._step == 0:
            self._kept.append((self._caption(result), _thumbnail(result)))
            if len(self._kept) > 2 * SHOWN:
                self._kept, self._step = self._kept[::2], 2 * self._step

    @property
    def pictures(self):
        positions = np.linspace(0, len(self._kept) - 1, min(SHOWN, len(self._kept))).round().astype(int)
        return [self._kept[i] for i in positions]

    @staticmethod
    def _caption(result):
        label, time = result.prediction.label, result.time
        return f"{printable(result.name) if time is None else f'{time:.2f} s'} {label or ''}".strip()


def _thumbnail(result):
    masks = result.prediction.masks
    tiles = []
    for gas, frame in result.frames.items():
        picture = overlays.overlay(frame[..., 0], masks[gas], gas) if gas in masks else frame.repeat(3, -1)
        height = max(1, round(WIDTH * picture.shape[0] / picture.shape[1]))
        tiles.append(cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA))
    height = max(tile.shape[0] for tile in tiles)
    return np.hstack([np.pad(tile, ((0, height - tile.shape[0]), (0, 0), (0, 0))) for tile in tiles])


def write_summary(
    folder: Path,
    series: Series,
    title: str | None,
    settings: dict,
    skipped: int,
    by_products: ByProducts,
) -> int:
    """Writes the page of a recording, and then `recording.json`, which says that all of its folder is there.

    Returns the exit code: `PARTLY_DONE` if frames were skipped or a by-product failed, else `DONE`.

    The JSON file holds `settings`, the exit `code`, the number of frames that were `skipped`, the limits of the grey
    levels and the units by gas, and under `summary` the row of `recordings.csv`.
    """
    source, summary = series.source, series.summarize()
    if len(series) > 1:
        with by_products.attempt(PAGE):
            replace_text(folder / PAGE, _page(folder, title or folder.name, series, summary))
    code = PARTLY_DONE if skipped or by_products.failures else DONE
    found = {"settings": settings, "code": code, "skipped": skipped, "range": source.limits, "units": source.units}
    with by_products.attempt(SUMMARY):
        replace_text(folder / SUMMARY, json.dumps(found | {"clock": source.clock, "summary": summary}, indent=1))
        return code
    return PARTLY_DONE


def _page(folder, title, series, summary):
    rows = "".join(
        f"<tr><td>{html.escape(name.replace('_', ' '))}</td><td>{html.escape(cell(value))}</td></tr>"
        for name, value in summary.items()
    )
    figures = "".join(
        f"<figure><img src='{_embed(picture)}' alt=''><figcaption>{html.escape(caption)}</figcaption></figure>"
        for caption, picture in series.strip
    )
    timeline = folder / "timeline.png"
    drawn = f"<img class='timeline' alt='' src='{_data(timeline.read_bytes(), 'png')}'>" if timeline.exists() else ""
    name = html.escape(printable(title))
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{name}</title><style>{_STYLE}</style>"
        f"<h1>{name}</h1><p>{html.escape(_headline(summary))}</p>{drawn}<p>{figures}</p><table>{rows}</table></html>"
    )


def _headline(summary):
    if summary["class"] is None:
        return f"{summary['frames']} frames, {summary['frames_with_gas']} with gas"
    interval = ""
    if summary["probability_low"] is not None:
        interval = f" ({summary['probability_low']:.2f} to {summary['probability_high']:.2f})"
    frames = f"{summary['agreement']:.0%} of {summary['frames_used']} frames agree"
    unsure = "; too unsure to be used" if summary.get("abstain") == ABSTAINS[True] else ""
    return f"{summary['class']}, probability {summary['probability']:.2f}{interval}; {frames}{unsure}"


def cell(value) -> str:
    """Returns a value of a summary as the cell of a table."""
    if isinstance(value, list):
        return " ".join(f"{number:g}" for number in value)
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _embed(picture):
    options = [cv2.IMWRITE_JPEG_QUALITY, 85]
    return _data(cv2.imencode(".jpg", picture[..., ::-1], options)[1].tobytes(), "jpeg")


def _data(content, kind):
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _rounded(value):
    if isinstance(value, list):
        return [_rounded(number) for number in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
