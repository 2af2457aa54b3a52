"""Pictures for people: overlays of masks and of attention on frames, panels of pairs."""

import cv2
import numpy as np

from fume_jax.vocabulary import CLASSES, GAS, GASES, TUBE

# RGB of tube and of each gas.
TUBE_COLOUR = (90, 160, 255)
GAS_COLOURS = {"co2": (255, 140, 0), "ch4": (60, 220, 120)}


def to_uint8(frame: np.ndarray) -> np.ndarray:
    """Grey levels uint8 [H, W] of a normalised frame [H, W, 1]."""
    return np.clip(np.rint((frame[..., 0] * 0.5 + 0.5) * 255), 0, 255).astype(np.uint8)


def overlay(frame: np.ndarray, mask: np.ndarray, gas: str) -> np.ndarray:
    """Tints tube and gas and outlines them: RGB uint8 [H, W, 3] from a uint8 frame and an int mask [H, W]."""
    picture = np.repeat(frame[..., None], 3, axis=-1)
    for value, colour in ((TUBE, TUBE_COLOUR), (GAS, GAS_COLOURS[gas])):
        region = (mask == value).astype(np.uint8)
        tinted = np.rint(0.7 * picture + 0.3 * np.array(colour)).astype(np.uint8)
        picture = np.where(region[..., None] > 0, tinted, picture)
        contours, _ = cv2.findContours(region, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        thickness = max(1, frame.shape[1] // 320)
        picture = cv2.drawContours(np.ascontiguousarray(picture), contours, -1, colour, thickness)
    return picture


def pair_panel(batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray], count: int) -> np.ndarray:
    """Rows of annotated and predicted overlays of `count` valid pairs spread over a batch, RGB uint8.

    Each row shows CO2 annotated, CO2 predicted, CH4 annotated, CH4 predicted, and the classes in words. An absent gas,
    or one the model does not segment, stays grey.
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
        truth = f"pH state: {CLASSES[batch['labels'][i]]}"
        tiles[0] = _write(tiles[0], truth, line=1)
        if "cls_logits" in outputs:
            tiles[1] = _write(tiles[1], f"pH state: {CLASSES[outputs['cls_logits'][i].argmax()]}", line=1)
        rows.append(np.concatenate(tiles, axis=1))
    return np.concatenate(rows)


def attention_panel(batch: dict[str, np.ndarray], attention: dict[str, np.ndarray], count: int) -> np.ndarray:
    """Rows of frames of the first `count` pairs with what each gas looks at laid over them, RGB uint8.

    Args:
      batch: see `fume_jax.vocabulary`.
      attention: by `{query}_to_{looked at}`, float [B, h, w], 1 where an even spread would be; see `attention_maps`.
      count: of the pairs.
    """
    rows = []
    for i in range(count):
        tiles = []
        for name, maps in attention.items():
            query, gas = name.split("_to_")
            absent = [g.upper() for g in {query, gas} if not batch["modality_mask"][i, GASES.index(g)]]
            frame = _enlarge(to_uint8(batch[f"{gas}_frame"][i]))
            heat = cv2.resize(maps[i], frame.shape[::-1], interpolation=cv2.INTER_LINEAR)
            colours = cv2.applyColorMap(np.clip(heat * 85, 0, 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
            tile = np.rint(0.5 * frame[..., None] + 0.5 * colours).astype(np.uint8)
            text = f"where {query.upper()} looks in {gas.upper()}, to {maps[i].max():.1f}x"
            if absent:
                tile, text = np.repeat(frame[..., None], 3, axis=-1), f"{' and '.join(sorted(absent))} absent"
            tiles.append(_write(tile, text, line=0))
        rows.append(np.concatenate(tiles, axis=1))
    return np.concatenate(rows)


def save(path, picture: np.ndarray) -> None:
    """Writes an RGB or grey picture as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    if not cv2.imwrite(str(path), picture):
        raise OSError(f"could not write {path}")


def _enlarge(tile, width=320):
    height = round(tile.shape[0] * width / tile.shape[1])
    return cv2.resize(tile, (width, height), interpolation=cv2.INTER_LINEAR)


def _write(tile, text, line):
    tile = np.ascontiguousarray(tile)
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):  # readable on any frame
        place = (8, 20 + 18 * line)
        cv2.putText(tile, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, thickness, cv2.LINE_AA)
    return tile
