"""Charts of a study: scores, classes, confusions, differences, speed against accuracy, curves of training."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from fume_jax.schema import CLASSES, GASES
from launch.study.gather import Entry, Study
from launch.study.style import (
    COLORS,
    DASHES,
    FAINT,
    INK,
    MAIN_COLOR,
    MAIN_HATCH,
    OTHER_COLOR,
    create_figure,
    look,
)
from launch.study.tables import COLUMNS

COLUMN_OF = {column.key: column for column in COLUMNS}
HEADINGS = {key: column.heading for key, column in COLUMN_OF.items()}
BARS = ("mean_iou", "iou_gas", "balanced_accuracy", "macro_f1")
DELTAS = ("iou_gas", "balanced_accuracy", "recording/balanced_accuracy")
# Scores that are drawn over costs.
SCORES, COSTS = ("mean_iou", "balanced_accuracy"), ("milliseconds", "parameters")
ALPHA = 0.05
ROW, MATRICES = 0.21, 6


def scores_figure(study: Study) -> Figure:
    """Draws a panel of bars for each main score, with 95 % intervals and a dot for each run."""
    shown = [name for name in BARS if any(not math.isnan(entry.score(name)) for entry in study.entries)]
    figure, all_axes = create_figure(0.8 + ROW * len(study.entries), 1, len(shown), sharey=True)
    places = np.arange(len(study.entries))
    for axes, name in zip(all_axes, shown, strict=True):
        for place, entry in zip(places, study.entries, strict=True):
            main = entry is study.main
            style = {"color": MAIN_COLOR if main else OTHER_COLOR, "hatch": MAIN_HATCH if main else None}
            if math.isnan(value := entry.score(name)):
                axes.text(0.02, place, "none", va="center", color="grey", fontsize="small")
                continue
            axes.barh(place, value, 0.7, edgecolor="white", **style)
            row = entry.scores[name]
            axes.plot([row["low"], row["high"]], [place, place], color=INK, linewidth=1.2, marker="|", markersize=4)
            runs = [run.metrics[name] for run in entry.pooled.runs if run.metrics.get(name) is not None]
            axes.plot(runs, np.full(len(runs), place), ".", color=INK, markersize=3, markerfacecolor="white")
        axes.set(xlim=(0, 1), title=HEADINGS[name])
        axes.grid(axis="x", alpha=0.3)
    _name_rows(all_axes[0], study.entries)
    return figure


def classes_figure(study: Study) -> Figure:
    """Draws the F1 of each pH state and the IoU of tube and gas of each frame, a row an entry."""
    f1 = {name: f"{name}_f1" for name in CLASSES}
    iou = {f"{gas.upper()} {name}": f"{gas}/iou_{name}" for gas in GASES for name in ("gas", "tube")}
    figure, all_axes = create_figure(1.1 + ROW * len(study.entries), 1, 2, sharey=True)
    handles = []
    for axes, title, keys in zip(all_axes, ("F1 of pH states, pairs", "IoU"), (f1, iou), strict=True):
        for i, (label, key) in enumerate(keys.items()):
            values = [entry.score(key) for entry in study.entries]
            # A little above or below the others of the row.
            places = np.arange(len(values)) + 0.5 * ((i + 0.5) / len(keys) - 0.5)
            style = look(len(handles))
            axes.plot(values, places, linestyle="", markersize=4.5, **style)
            handles.append(_mark(label, style["marker"], style["color"]))
        axes.set(xlim=(-0.02, 1.02), title=title)
        axes.grid(axis="x", alpha=0.3)
        for place in range(1, len(study.entries)):
            axes.axhline(place - 0.5, color=FAINT, linewidth=0.4)
    _name_rows(all_axes[0], study.entries)
    _legend_below(figure, handles)
    return figure


def confusions_figure(study: Study) -> Figure | None:
    """Draws the confusion matrices of pairs and of recordings, the means over seeds; None if no model classifies."""
    shown = [entry for entry in study.entries if "cls_confusion" in entry.pooled.by_group]
    if not shown:
        return None
    width, kinds = min(MATRICES, len(shown)), {"pairs": "cls_confusion", "recordings": "recording_confusion"}
    lines = math.ceil(len(shown) / width)
    figure, all_axes = create_figure(1.45 * 2 * lines + 0.3, 2 * lines, width)
    for axes in all_axes:
        axes.set_axis_off()
    for half, (noun, key) in enumerate(kinds.items()):
        for i, entry in enumerate(shown):
            axes = all_axes[half * lines * width + i]
            axes.set_axis_on()
            _draw_confusion(axes, entry.pooled.by_group[key].sum(0).mean(0), i % width == 0)
            axes.set_title(f"{_wrapped(entry.name)}\n{noun}", fontsize=6)
    return figure


def deltas_figure(study: Study) -> Figure | None:
    """Draws how the scores of each entry differ from those of the main one, with intervals; None without others.

    Filled marks have a corrected p-value below 0.05.
    """
    shown = [name for name in DELTAS if any(row.metric == name for row in study.metric_rows)]
    others = study.entries[1:]
    if not (shown and others):
        return None
    figure, all_axes = create_figure(1.1 + ROW * len(others), 1, len(shown), sharey=True)
    for axes, name in zip(all_axes, shown, strict=True):
        rows = {row.run: row for row in study.metric_rows if row.metric == name}
        axes.axvline(0, color=INK, linewidth=0.8)
        for place, entry in enumerate(others):
            if (row := rows.get(entry.name)) is None:
                axes.text(0, place, " none", va="center", color="grey", fontsize="small")
                continue
            clear = row.p_holm < ALPHA
            color = COLORS[0] if row.difference < 0 else MAIN_COLOR
            axes.plot([-row.high, -row.low], [place, place], color=color, linewidth=1.4)
            marker = "^" if row.difference < 0 else "v" if row.difference > 0 else "o"
            axes.plot(-row.difference, place, marker, color=color, markerfacecolor=color if clear else "white")
        axes.set(title=HEADINGS[name], xlabel=f"less that of {study.main.name}")
        axes.grid(axis="x", alpha=0.3)
        axes.margins(x=0.1)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    _name_rows(all_axes[0], others)
    marks = {"better": ("^", COLORS[0], "white"), "worse": ("v", MAIN_COLOR, "white")}
    marks[f"p (Holm) < {ALPHA}"] = ("o", "grey", "grey")
    _legend_below(figure, [_mark(label, *mark) for label, mark in marks.items()])
    return figure


def tradeoff_figure(study: Study) -> Figure:
    """Draws scores over time and over size of the models; a line joins those that no other one beats in both."""
    costs = [COLUMN_OF[key] for key in COSTS if not math.isnan(getattr(study.main.cost, key))]
    scores = [name for name in SCORES if any(not math.isnan(entry.score(name)) for entry in study.entries)]
    columns = math.ceil(len(study.entries) / 4)
    figure, all_axes = create_figure(2.5 * len(scores) + 0.16 * columns + 0.3, len(scores), len(costs), sharex="col")
    panels = [(score, cost) for score in scores for cost in costs]
    for axes, (score, cost) in zip(all_axes, panels, strict=True):
        spent = [getattr(entry.cost, cost.key) * cost.factor for entry in study.entries]
        points = np.stack([spent, [entry.score(score) for entry in study.entries]], -1)
        front = points[pareto(points)]
        axes.plot(*_steps(front), color=FAINT, linewidth=1.5, zorder=1)
        for i, (entry, point) in enumerate(zip(study.entries, points, strict=True)):
            row = entry.scores.get(score)
            if row:
                axes.plot(
                    point[:1].repeat(2), [row["low"], row["high"]], color=look(i)["color"], alpha=0.4, linewidth=1
                )
            size = {"markersize": 10 if i == 0 else 6.5, "markeredgecolor": "white", "markeredgewidth": 0.5}
            axes.plot(*point, linestyle="", **size, **look(i))
        axes.set(xscale="log", ylabel=HEADINGS[score], xlabel=cost.heading)
        _plain_ticks(axes.xaxis, points[:, 0])
        axes.grid(alpha=0.3)
    handles = [_mark(entry.name, look(i)["marker"], look(i)["color"]) for i, entry in enumerate(study.entries)]
    _legend_below(figure, [*handles, Line2D([], [], color=FAINT, label="Pareto front")])
    return figure


def curves_figure(study: Study) -> Figure | None:
    """Draws losses and scores over the steps of training, the mean over the runs of an entry; None if none are logged.

    A band spans the runs of the main entry.
    """
    tags = [tag for tag in study.main.curves if any(entry.curves[tag] for entry in study.entries)]
    if not tags:
        return None
    lines = math.ceil(len(study.entries) / 4)
    figure, all_axes = create_figure(2.4 + 0.16 * lines, 1, len(tags))
    for axes, tag in zip(all_axes, tags, strict=True):
        for i, entry in reversed(list(enumerate(study.entries))):
            steps, values = shared_steps(entry.curves[tag])
            if not len(steps):
                continue
            style = {"color": look(i)["color"], "linestyle": DASHES[i % len(DASHES)], "linewidth": 2 if i == 0 else 0.9}
            axes.plot(steps, values.mean(0), **style)
            if i == 0:
                axes.fill_between(steps, values.min(0), values.max(0), color=look(i)["color"], alpha=0.2, linewidth=0)
        axes.set(title=tag, xlabel="step")
        axes.grid(alpha=0.3)
    styles = [{"color": look(i)["color"], "linestyle": DASHES[i % len(DASHES)]} for i in range(len(study.entries))]
    _legend_below(figure, [Line2D([], [], label=e.name, **s) for e, s in zip(study.entries, styles, strict=True)])
    return figure


def pareto(points: np.ndarray) -> list[int]:
    """Returns the indices of the points (cost, score), float [N, 2], that none of the others beats, by rising cost.

    A point beats another if it costs no more and scores no less, and is better in one of the two. Points with a NaN
    are none of them.
    """
    order = sorted(np.flatnonzero(~np.isnan(points).any(1)), key=lambda i: (points[i, 0], -points[i, 1]))
    front = []
    for i in order:
        if not front or points[i, 1] > points[front[-1], 1]:
            front.append(int(i))
    return front


def shared_steps(curves: Sequence[tuple[Sequence[int], Sequence[float]]]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps that all curves have, int [T], and the values there, float [R, T]; empty without curves."""
    by_step = [dict(zip(steps, values, strict=True)) for steps, values in curves]
    steps = sorted(set.intersection(*map(set, by_step))) if by_step else []
    return np.array(steps, int), np.array([[own[step] for step in steps] for own in by_step])


def _draw_confusion(axes, counts, named):
    """Draws mean counts [3, 3], truth in rows; the shade is the share of the row."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (i, j), n in np.ndenumerate(counts):
        text = f"{n:.0f}\n{share[i, j]:.0%}"
        axes.text(j, i, text, ha="center", va="center", color="w" if share[i, j] > 0.6 else "k", fontsize=5.5)
    initials = [name[0] for name in CLASSES]
    axes.set_xticks(range(len(CLASSES)), initials)
    axes.set_yticks(range(len(CLASSES)), CLASSES if named else initials)
    axes.tick_params(length=0, labelsize=6)


def _name_rows(axes, entries: Sequence[Entry]):
    """Names rows from top to bottom."""
    axes.set_yticks(range(len(entries)), [entry.name for entry in entries])
    axes.set_ylim(len(entries) - 0.4, -0.6)


def _legend_below(figure, handles):
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize="small")


def _mark(label, marker, color, face=None):
    return Line2D([], [], linestyle="", marker=marker, color=color, markerfacecolor=face or color, label=label)


def _steps(front):
    """Returns the corners of the line along a front: as good as its last point until the next one."""
    costs = np.repeat(front[:, 0], 2)[1:]
    return costs, np.repeat(front[:, 1], 2)[:-1]


def _plain_ticks(axis, values):
    """Labels a logarithmic axis with plain numbers, more of them if it spans little."""
    known = values[~np.isnan(values)]
    subs = (1, 2, 5) if known.max() > 5 * known.min() else (1, 1.5, 2, 3, 4, 5, 7)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def _wrapped(name, width=16):
    """Breaks a long name in two lines, at an underscore if there is one."""
    if len(name) <= width:
        return name
    cut = name.rfind("_", 0, width) + 1 or width
    return f"{name[:cut]}\n{name[cut:]}"
