"""Writes the report on a study: tables, figures, and one page of all of them that needs no other file."""

import base64
import dataclasses
import html
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from fume_jax.config import abstract_model
from fume_jax.models.structure import structure
from fume_jax.runtime.byproducts import ByProducts
from fume_jax.runtime.files import replace_text
from launch.study import charts, style, tables
from launch.study.architecture import architecture_figure
from launch.study.gather import Study
from launch.study.panel import predictions_figure


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure: the name of its files, its title, the sentences below it, and what draws it, None if it has nothing."""

    name: str
    title: str
    caption: str
    draw: Callable[[], Figure | None]


def write_report(output: Path, study: Study, data: str | None, by_products: ByProducts) -> None:
    """Writes `report.html`, `figures/`, `tables.md`, `tables.tex` and `scores.csv` to a folder.

    Figures that cannot be drawn are told and left out of the page. `data` is the folder of the dataset, if it has
    moved.
    """
    figures = output / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    found = tables.create_tables(study)
    tables.write_tables(output, study, found)
    drawn = []
    for picture in list_pictures(study, data):
        with by_products.attempt("figures", picture.title), style.styled():
            figure = picture.draw()
            if figure is not None:
                style.save(figure, figures, picture.name)
                drawn.append(picture)
    replace_text(output / "report.html", create_page(study, found, drawn, figures))


def list_pictures(study: Study, data: str | None) -> list[Picture]:
    """Lists the figures of a report in their order."""
    main, size = study.main, study.main.config.data
    run = study.folder / main.pooled.runs[0].name
    intervals = "Lines are 95 % intervals over groups of recordings."
    return [
        Picture(
            "architecture",
            f"Architecture of {main.name}",
            f"Read from the computation on a pair of {size.width}x{size.height} pixels. Each part has its class, the "
            "shape of its output and its trained values. The modality mask, which every part reads, is not drawn.",
            lambda: architecture_figure(structure(abstract_model(main.config), size.height, size.width)),
        ),
        Picture(
            "predictions",
            f"Predictions of {run.name}",
            "The test pair of median loss of each class. Blue is tube, orange is gas in CO2 frames, green in CH4 "
            "frames. Attention is in units of an even spread.",
            lambda: predictions_figure(run, data),
        ),
        Picture("scores", "Scores", f"{intervals} Dots are single runs.", lambda: charts.scores_figure(study)),
        Picture(
            "classes",
            "Scores by class",
            "F1 of each pH state, counted over pairs, and IoU of gas and tube in the frames of each gas.",
            lambda: charts.classes_figure(study),
        ),
        Picture(
            "confusions",
            "Confusion of pH states",
            "Truth in rows, prediction in columns: Healthy, Transitional, Acidotic. Mean number over seeds, and "
            "share of the row.",
            lambda: charts.confusions_figure(study),
        ),
        Picture(
            "differences",
            f"What each change does to {main.name}",
            "Each score less that of the main entry, with the 95 % interval of the paired bootstrap over groups of "
            "recordings. Filled marks have a p-value below 0.05 after Holm's correction.",
            lambda: charts.deltas_figure(study),
        ),
        Picture(
            "tradeoff",
            "Accuracy over speed and size",
            f"{intervals} The grey line joins models that no other one beats in both. "
            + (f"Time of one pair on {study.device}; frames of {study.size}." if study.device else ""),
            lambda: charts.tradeoff_figure(study),
        ),
        Picture(
            "training",
            "Training",
            "Means over the runs of an entry; the band spans the runs of the main one.",
            lambda: charts.curves_figure(study),
        ),
    ]


def create_page(study: Study, found: Sequence[tables.Table], pictures: Sequence[Picture], figures: Path) -> str:
    """Returns the page, HTML with its style and its pictures in it."""
    title = f"Report on {study.folder.absolute().name}"
    links = [(f"table-{table.name}", table.title) for table in found]
    links += [(f"figure-{picture.name}", picture.title) for picture in pictures]
    contents = "".join(f'<li><a href="#{name}">{html.escape(words)}</a></li>' for name, words in links)
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in (*study.caveats, *study.left_out))
    body = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{_introduction(study)}</p>",
        f"<h2>Limits</h2><ul class=limits>{notes}</ul>" if notes else "",
        f"<nav aria-label=Contents><ul>{contents}</ul></nav>",
        "<h2>Tables</h2>",
        *map(tables.to_html, found),
        "<h2>Figures</h2>",
        *(_figure(number, picture, figures) for number, picture in enumerate(pictures, 1)),
    ]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>"
    )
    lines = "\n".join(body)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><main>\n{lines}\n</main></body></html>\n'


def _introduction(study):
    runs = sum(len(entry.pooled.runs) for entry in study.entries)
    pairs, main = f"{len(study.main.pooled.examples):,}", html.escape(study.main.name)
    groups = len(next(iter(study.main.pooled.by_group.values())))
    others = len(study.entries) - 1
    compared = f" {main} is compared with {others} other{'s' * (others > 1)}." if others else ""
    return f"{runs} runs, scored on the same {pairs} test pairs of {groups} independent groups of recordings.{compared}"


def _figure(number, picture, figures):
    """Returns a figure with its caption; photographs as PNG, drawings as SVG."""
    kind, mime = ("png", "image/png") if picture.name == "predictions" else ("svg", "image/svg+xml")
    data = base64.b64encode((figures / f"{picture.name}.{kind}").read_bytes()).decode()
    title, caption = html.escape(picture.title), html.escape(picture.caption)
    image = f'<img alt="{title}" src="data:{mime};base64,{data}">'
    return (
        f'<figure id="figure-{picture.name}"><div class=wide tabindex=0 role=region aria-label="{title}">{image}</div>'
        f"<figcaption><b>Figure {number}. {title}.</b> {caption}</figcaption></figure>"
    )


STYLE = """
:root { color-scheme: light; --ink: #1b1f24; --faint: #5b6570; --line: #d5dbe1; --shade: #f4f7f9; --link: #0b5c94; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: .5rem 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .75rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
h3 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
a { color: var(--link); }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: .75rem 1rem; margin: 1.5rem 0;
  background: var(--shade); border-radius: .5rem; font-size: .92rem; }
.limits { font-size: .92rem; padding-left: 1.25rem; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: .5rem; }
.wide:focus-visible { outline: 2px solid var(--link); }
table { border-collapse: collapse; width: 100%; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .75rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
thead th { background: var(--shade); vertical-align: bottom; white-space: normal; min-width: 5.5rem; }
th:first-child { text-align: left; position: sticky; left: 0; background: #fff; font-weight: 600; }
thead th:first-child { background: var(--shade); }
tbody tr:last-child > * { border-bottom: 0; }
tr.published > * { color: var(--faint); font-style: italic; }
.note, figcaption { color: var(--faint); font-size: .88rem; margin: .4rem 0; }
figcaption b { color: var(--ink); }
figure { margin: 2rem 0; scroll-margin-top: 1rem; }
figure .wide { background: #fff; padding: .5rem; }
img { display: block; width: 100%; min-width: 40rem; height: auto; }
@media print { .wide { overflow: visible; border: 0; } img { min-width: 0; } figure { break-inside: avoid; } }
"""
