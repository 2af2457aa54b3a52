"""Draws what the main model of a study predicts on test pairs, a row for each class."""

import csv
import functools
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fume_jax.config import data_options, open_dataset
from fume_jax.data.loader import Loader
from fume_jax.evaluation.evaluator import create_attention_fn, create_eval_fns
from fume_jax.evaluation.overlays import overlay, to_uint8
from fume_jax.runtime.console import Console
from fume_jax.runtime.mesh import create_mesh, replicate_to_hosts
from fume_jax.schema import CLASSES, GASES
from fume_jax.training.checkpoint import load_config
from fume_jax.training.setup import load_best_model
from launch.scored import EXAMPLES
from launch.study.style import WIDTH


def predictions_figure(run: Path, data: str | None = None) -> Figure:
    """Draws for each class the pair of median loss: both frames, truth, prediction, and where the attention looks.

    `run` is a run folder with its checkpoint; `data` the folder of the prepared dataset if it has moved. Raises
    UserError if one of them is missing.
    """
    config = load_config(run)
    config.data.path = data or config.data.path
    indices, mesh = choose_pairs(run / EXAMPLES), create_mesh()
    model, _ = load_best_model(config, str(run), mesh)
    loader = Loader(open_dataset(config), data_options(config), mesh, Console(quiet=True))
    batch = loader.examples("test", np.array(list(indices.values())))
    outputs = create_eval_fns(config, mesh)[1](**model, batch=batch)
    attention = create_attention_fn(config, mesh)(**model, batch=batch)
    batch, outputs, attention = replicate_to_hosts((batch, outputs, attention))
    maps = {name: values for name, values in attention.items() if len(set(name.split("_to_"))) > 1}
    return draw_panel(batch, outputs, maps or attention, len(indices))


def choose_pairs(table: Path) -> dict[str, int]:
    """Returns the example index of the pair of median loss of each class that a table of examples has."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.get("loss")]
    chosen = {}
    for name in CLASSES:
        own = sorted((float(row["loss"]), int(row["example_index"])) for row in rows if row["label"] == name)
        if own:
            chosen[name] = own[(len(own) - 1) // 2][1]
    return chosen


def draw_panel(batch: dict, outputs: dict, attention: dict, count: int) -> Figure:
    """Draws the first `count` pairs of a batch, a row each; see `overlays.pair_panel` for the arguments."""
    gases = [gas for gas in GASES if batch["modality_mask"][:count, GASES.index(gas)].any()]
    segmented = [gas for gas in gases if f"{gas}_seg_logits" in outputs]
    columns = {f"{gas.upper()} frame": functools.partial(_frame, batch, gas) for gas in gases}
    for gas in segmented:
        columns[f"{gas.upper()} truth"] = functools.partial(_mask, batch, batch[f"{gas}_mask"], gas)
        predicted = outputs[f"{gas}_seg_logits"].argmax(-1)
        columns[f"{gas.upper()} predicted"] = functools.partial(_mask, batch, predicted, gas)
    height, width = batch["co2_frame"].shape[1:3]
    total = len(columns) + len(attention)
    side = (WIDTH - 0.7) / total  # besides labels and the scale of attention
    figure = Figure(figsize=(WIDTH, count * (side * height / width + 0.02) + 0.25), layout="compressed")
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
    grid, shade = figure.subplots(count, total, squeeze=False), None
    most = max((float(maps[:count].max()) for maps in attention.values()), default=1.0)
    for i, row in enumerate(grid):
        for axes, (title, draw) in zip(row, columns.items(), strict=False):
            axes.imshow(draw(i), cmap="gray", vmin=0, vmax=255)
            _label(axes, title, i)
        for axes, (name, maps) in zip(row[len(columns) :], attention.items(), strict=True):
            query, gas = (word.upper() for word in name.split("_to_"))
            axes.imshow(_frame(batch, gas.lower(), i), cmap="gray", vmin=0, vmax=255, extent=(0, 1, 0, 1))
            look = {"cmap": "cividis", "vmin": 0, "vmax": most, "alpha": 0.6, "extent": (0, 1, 0, 1)}
            shade = axes.imshow(maps[i], interpolation="bilinear", aspect=height / width, **look)
            _label(axes, f"where {query}\nlooks in {gas}", i)
        row[0].set_ylabel(_classes(batch, outputs, i), fontsize=4.5)
    if shade is not None:
        bar = figure.colorbar(shade, ax=grid.ravel().tolist(), location="right", shrink=0.6, aspect=25, pad=0.01)
        bar.ax.tick_params(labelsize=5)
        bar.set_label("attention, 1 is an even spread", fontsize=5)
    return figure


def _frame(batch, gas, i):
    return to_uint8(batch[f"{gas}_frame"][i])


def _mask(batch, masks, gas, i):
    present = batch["modality_mask"][i, GASES.index(gas)] > 0
    return overlay(_frame(batch, gas, i), masks[i] if present else 0 * masks[i], gas)


def _label(axes, title, i):
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if i == 0:
        axes.set_title(title, fontsize=5.5, pad=2)


def _classes(batch, outputs, i):
    text = CLASSES[batch["labels"][i]]
    return f"{text}\nas {CLASSES[outputs['cls_logits'][i].argmax()]}" if "cls_logits" in outputs else text
