"""Draws masks and attention on frames: overlays, panels of pairs, frames of an annotated video."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from fume_jax.runtime import files
from fume_jax.schema import CLASSES, GAS, GASES, IGNORE, TUBE

# RGB colours of the tube, the gases and the classes.
TUBE_COLOR = (90, 160, 255)
GAS_COLORS = {"co2": (255, 140, 0), "ch4": (60, 220, 120)}
CLASS_COLORS = ((69, 117, 180), (214, 158, 46), (215, 48, 39))
# Pixels from a stripe to the next in what is hatched.
HATCH = 8
# Grey levels of an annotated pair: its background, and the empty part of a bar.
BACKDROP, EMPTY = 24, 64


def to_uint8(frame: np.ndarray) -> np.ndarray:
    """Converts a normalised frame [H, W, 1] to grey levels, uint8 [H, W]."""
    return np.clip(np.rint((frame[..., 0] * 0.5 + 0.5) * 255), 0, 255).astype(np.uint8)


def overlay(frame: np.ndarray, mask: np.ndarray, gas: str) -> np.ndarray:
    """Tints and outlines tube and gas: RGB uint8 [H, W, 3] from a uint8 frame and an int mask [H, W].

    Pixels of unknown class are hatched.
    """
    picture = cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB)
    if (unknown := mask == IGNORE).any():
        y, x = np.nonzero(unknown)
        on_stripe = (x + y) % HATCH < 2
        picture[y[on_stripe], x[on_stripe]] = 255 - picture[y[on_stripe], x[on_stripe]] // 2
    for value, color in ((TUBE, TUBE_COLOR), (GAS, GAS_COLORS[gas])):
        region = (mask == value).view(np.uint8)
        tint = np.rint(0.7 * np.arange(256)[:, None] + 0.3 * np.array(color)).astype(np.uint8)
        cv2.copyTo(cv2.LUT(picture, tint[None]), region, picture)
        contours, _ = cv2.findContours(region, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, contours, -1, color, thickness=max(1, frame.shape[1] // 320))
    return picture


def pair_panel(batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray], count: int) -> np.ndarray:
    """Draws annotated and predicted overlays of `count` valid pairs spread over a batch, RGB uint8, a row per pair.

    Each row shows CO2 annotated, CO2 predicted, CH4 annotated, CH4 predicted, and the names of the classes. An absent
    gas, or one that the model does not segment, stays grey.
    """
    rows = []
    valid = np.flatnonzero(batch["valid"])
    for i in valid[np.linspace(0, len(valid) - 1, min(count, len(valid))).astype(int)]:
        tiles = []
        for present, gas in zip(batch["modality_mask"][i], GASES, strict=True):
            frame = to_uint8(batch[f"{gas}_frame"][i])
            masks = [batch[f"{gas}_mask"][i]]
            masks.append(outputs[f"{gas}_seg_logits"][i].argmax(-1) if f"{gas}_seg_logits" in outputs else 0 * masks[0])
            for mask, word in zip(masks, ("annotated", "predicted"), strict=True):
                tile = _enlarge(overlay(frame, mask if present else 0 * mask, gas))
                tiles.append(_write(tile, f"{gas.upper()} {word if present else 'absent'}", line=0))
        tiles[0] = _write(tiles[0], f"pH state: {CLASSES[batch['labels'][i]]}", line=1)
        if "cls_logits" in outputs:
            tiles[1] = _write(tiles[1], f"pH state: {CLASSES[outputs['cls_logits'][i].argmax()]}", line=1)
        rows.append(np.concatenate(tiles, axis=1))
    return np.concatenate(rows)


def attention_panel(batch: dict[str, np.ndarray], attention: dict[str, np.ndarray], count: int) -> np.ndarray:
    """Draws attention on the frames of the first `count` pairs of a batch, RGB uint8, a row per pair.

    `attention` has maps float [B, h, w] by `{query}_to_{attended gas}`, relative to uniform attention, which is 1; see
    `attention_maps`.
    """
    rows = []
    for i in range(count):
        tiles = []
        for name, maps in attention.items():
            query, gas = name.split("_to_")
            absent = [g.upper() for g in {query, gas} if not batch["modality_mask"][i, GASES.index(g)]]
            frame = _enlarge(to_uint8(batch[f"{gas}_frame"][i]))
            heat = cv2.resize(maps[i], frame.shape[::-1], interpolation=cv2.INTER_LINEAR)
            colors = cv2.applyColorMap(np.clip(heat * 85, 0, 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
            tile = np.rint(0.5 * frame[..., None] + 0.5 * colors).astype(np.uint8)
            text = f"where {query.upper()} looks in {gas.upper()}, to {maps[i].max():.1f}x"
            if absent:
                tile, text = np.repeat(frame[..., None], 3, axis=-1), f"{' and '.join(sorted(absent))} absent"
            tiles.append(_write(tile, text, line=0))
        rows.append(np.concatenate(tiles, axis=1))
    return np.concatenate(rows)


def annotated_pair(
    frames: Mapping[str, np.ndarray],
    masks: Mapping[str, np.ndarray],
    caption: str,
    probabilities: Sequence[float] | None = None,
    *,
    gases: Sequence[str] = GASES,
    size: tuple[int, int],
) -> np.ndarray:
    """Draws a frame of an annotated video: panels of the gases side by side under a band with the prediction.

    Args:
      frames: by gas, uint8 [H, W, 1] of any size; a gas without frame gets a dark panel marked absent.
      masks: by gas, int [H, W] as large as its frame; a frame without mask stays grey.
      caption: one line of text, made smaller if it does not fit.
      probabilities: [3] of the classes, drawn as bars, empty if NaN; None if the model does not classify.
      gases: the gases of the recording, from left to right.
      size: width and height of a panel; frames keep their aspect ratio in it.

    Returns:
      RGB uint8 [height + band, width * len(gases), 3], where the band is an even number of rows: the same size for all
      frames of a recording.
    """
    width, height = size
    scale = max(0.5, height / 700)
    row = 2 * round(28 * scale)
    band = np.full((row, width * len(gases), 3), BACKDROP, np.uint8)
    rows = [_write(band, caption, line=0, scale=scale)]
    if probabilities is not None:
        edges = np.linspace(0, band.shape[1], len(CLASSES) + 1).astype(int)
        cells = zip(np.diff(edges), CLASSES, CLASS_COLORS, probabilities, strict=True)
        rows.append(np.concatenate([_bar(row, *cell, scale) for cell in cells], axis=1))
    panels = [_panel(frames.get(gas), masks.get(gas), gas, size, scale) for gas in gases]
    return np.concatenate([*rows, np.concatenate(panels, axis=1)])


def contact_sheet(tiles: Sequence[tuple[np.ndarray, Sequence[str]]], size: tuple[int, int]) -> np.ndarray:
    """Arranges pictures with lines of text on them in a grid about as wide as high, RGB uint8.

    Each is RGB uint8 and fits in `size`, width and height; see `fit`.
    """
    columns = math.ceil(math.sqrt(len(tiles)))
    sheet = np.full((math.ceil(len(tiles) / columns) * size[1], columns * size[0], 3), BACKDROP, np.uint8)
    for i, (picture, lines) in enumerate(tiles):
        top, left = i // columns * size[1], i % columns * size[0]
        tile = _center(picture, size)
        for line, text in enumerate(lines):
            tile = _write(tile, text, line=line)
        sheet[top : top + size[1], left : left + size[0]] = tile
    return sheet


def fit(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a picture to the largest that fits in `size`, width and height; keeps the aspect ratio."""
    return _enlarge(picture, *size)


def save(path: Path, picture: np.ndarray, options: Sequence[int] = ()) -> None:
    """Writes an RGB or grey picture whole or not at all; OSError says why it cannot be written.

    The suffix of the path names the format, of which `options` are those of OpenCV.
    """
    if picture.shape[2:] == (3,):
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    # Encoded in memory: OpenCV tells no reason for a failure, and crashes at a path that is not UTF-8.
    _, data = cv2.imencode(path.suffix, picture, options)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path, synced=False) as part:
        part.write_bytes(data)


def _panel(frame, mask, gas, size, scale):
    """Draws one gas in the middle of a panel."""
    if frame is None:
        empty = np.full((*size[::-1], 3), BACKDROP, np.uint8)
        return _write(empty, f"{gas.upper()} absent", line=0, scale=scale)
    picture = cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB) if mask is None else overlay(frame[..., 0], mask, gas)
    return _write(_center(_enlarge(picture, *size), size), gas.upper(), line=0, scale=scale)


def _center(picture, size):
    """Puts a picture in the middle of a panel that is at least as large."""
    panel = np.full((*size[::-1], 3), BACKDROP, np.uint8)
    top, left = (size[1] - picture.shape[0]) // 2, (size[0] - picture.shape[1]) // 2
    panel[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return panel


def _bar(height, width, name, color, probability, scale):
    """Draws a cell whose filled width is the probability of a class."""
    cell = np.full((height, width, 3), EMPTY, np.uint8)
    known = not np.isnan(probability)
    if known:
        cell[:, : round(width * probability)] = color
    cell[:, 0] = BACKDROP
    return _write(cell, f"{name} {probability:.2f}" if known else name, line=0, scale=scale)


def _enlarge(tile, width=320, height=np.inf):
    """Resizes a tile to the largest size that fits; keeps the aspect ratio."""
    scale = min(width / tile.shape[1], height / tile.shape[0])
    size = tuple(max(1, round(scale * side)) for side in tile.shape[1::-1])
    return cv2.resize(tile, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _write(tile, text, line, scale=0.5):
    """Writes a line of text on a copy of a tile, white with a dark rim for any background, no wider than the tile."""
    font, weight = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(1.5 * scale))
    margin, baseline = round(16 * scale), round((40 + 36 * line) * scale)
    (length, _), _ = cv2.getTextSize(text, font, scale, weight)
    scale *= min(1, (tile.shape[1] - 2 * margin) / max(1, length))
    tile = tile.copy()
    strip = tile[: baseline + margin]
    # The rim is the dilated text: letters of a heavier weight have other widths and would not lie under them.
    ink = np.zeros(strip.shape[:2], np.uint8)
    cv2.putText(ink, text, (margin, baseline), font, scale, 255, weight, cv2.LINE_AA)
    rim = cv2.dilate(ink, None)
    strip[:] = cv2.multiply(strip, cv2.cvtColor(255 - rim, cv2.COLOR_GRAY2RGB), scale=1 / 255)
    strip += cv2.cvtColor(ink, cv2.COLOR_GRAY2RGB)
    return tile
