"""Tables of a study as Markdown, CSV, LaTeX and HTML."""

import dataclasses
import html
import math
from collections.abc import Sequence
from pathlib import Path

from fume_jax.runtime.files import replace_text
from launch.scored import write_rows
from launch.study.gather import Study
from launch.study.published import NOTE, PUBLISHED


@dataclasses.dataclass(frozen=True)
class Column:
    """A column: its key, its heading, the factor and the digits of its numbers."""

    key: str
    heading: str
    factor: float = 1.0
    digits: int = 3


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text, its title, and the sentences below it."""

    name: str
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


SEGMENTATION = (
    Column("mean_iou", "mIoU"),
    Column("mean_dice", "Dice"),
    Column("iou_gas", "gas IoU"),
    Column("co2/iou_gas", "CO2 gas IoU"),
    Column("ch4/iou_gas", "CH4 gas IoU"),
    Column("hd95", "HD95 (px)", digits=1),
    Column("asd", "ASSD (px)", digits=2),
)
CLASSIFICATION = (
    Column("accuracy", "accuracy"),
    Column("balanced_accuracy", "balanced accuracy"),
    Column("macro_f1", "macro F1"),
    Column("Transitional_f1", "Transitional F1"),
    Column("recording/balanced_accuracy", "balanced accuracy, recordings"),
    Column("recording/macro_f1", "macro F1, recordings"),
    Column("recording/Transitional_f1", "Transitional F1, recordings"),
)
COST = (
    Column("parameters", "parameters (M)", 1e-6, 2),
    Column("macs", "GMAC", 1e-9, 2),
    Column("milliseconds", "ms a pair", 1, 2),
    Column("fps", "pairs a second", 1, 0),
)
COLUMNS = SEGMENTATION + CLASSIFICATION + COST
DELTAS = ("mean_iou", "iou_gas", "balanced_accuracy", "recording/balanced_accuracy")


def create_tables(study: Study) -> list[Table]:
    """Creates the tables of a study: of segmentation, classification, cost, and comparisons with the main entry."""
    groups = len(next(iter(study.main.pooled.by_group.values())))
    scope = f"Test examples: {len(study.main.pooled.examples):,} pairs of {groups} independent groups of recordings."
    spread = "Mean over seeds ± standard deviation over runs, where there are several."
    timed = f"Time of one pair on {study.device}; frames of {study.size}." if study.device else "Speed is not measured."
    tables = [
        _scores_table(study, "segmentation", "Segmentation of the plumes", SEGMENTATION, (scope, spread, NOTE)),
        _scores_table(study, "classification", "Classification of the pH state", CLASSIFICATION, (scope, spread, NOTE)),
        _scores_table(study, "cost", "Size and speed", COST, (timed, NOTE)),
    ]
    return tables + [_deltas_table(study)] * (len(study.entries) > 1)


def write_tables(folder: Path, study: Study, tables: Sequence[Table]) -> None:
    """Writes `tables.md`, `tables.tex` and `scores.csv`, which has every metric of every entry and intervals."""
    replace_text(folder / "tables.md", "\n\n".join(map(to_markdown, tables)) + "\n")
    replace_text(folder / "tables.tex", "\n\n".join(map(to_latex, tables)) + "\n")
    rows = [row for entry in study.entries for row in entry.scores.values()]
    for entry in study.entries:
        own = {"parameters": entry.cost.parameters, "macs": entry.cost.macs, "milliseconds": entry.cost.milliseconds}
        rows += [{"run": entry.name, "metric": name, "pooled": value} for name, value in own.items()]
    rows += [
        {"run": f"{name} (published, other data)", "metric": key, "pooled": value}
        for name, values in PUBLISHED.items()
        for key, value in values.items()
    ]
    write_rows(folder / "scores.csv", rows)


def to_markdown(table: Table) -> str:
    """Formats a table as Markdown."""
    lines = [table.head, ["---"] + ["---:"] * (len(table.head) - 1), *table.rows]
    body = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"## {table.title}\n\n{body}\n\n" + "\n".join(f"{note}  " for note in table.notes)


def to_latex(table: Table) -> str:
    """Formats a table as LaTeX for the packages booktabs and graphicx, which shrinks it to the width of the text."""
    lines = [" & ".join(map(_latex, cells)) + r" \\" for cells in (table.head, *table.rows)]
    columns = "l" + "r" * (len(table.head) - 1)
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{_latex(' '.join([table.title + '.', *table.notes]))}}}",
            rf"  \label{{tab:{table.name}}}",
            r"  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"  \begin{{tabular}}{{{columns}}}",
            r"    \toprule",
            f"    {lines[0]}",
            r"    \midrule",
            *(f"    {line}" for line in lines[1:]),
            r"    \bottomrule",
            r"  \end{tabular}}",
            r"\end{table}",
        ]
    )


def to_html(table: Table) -> str:
    """Formats a table as HTML that scrolls sideways where it does not fit."""
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in table.head)
    rows = "".join(
        f'<tr{" class=published" if name.endswith("*") else ""}><th scope="row">{html.escape(name)}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        + "</tr>\n"
        for name, *cells in table.rows
    )
    notes = "".join(f"<p class=note>{html.escape(note)}</p>" for note in table.notes)
    title = html.escape(table.title)
    grid = f"<table><thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table>"
    return (
        f'<section id="table-{table.name}"><h3>{title}</h3>\n'
        f'<div class=wide tabindex=0 role=region aria-label="{title}">{grid}</div>{notes}</section>'
    )


def _scores_table(study, name, title, columns, notes):
    """Returns a table of the columns that some entry has, with the published rows that have some of them."""
    columns = [column for column in columns if any(not math.isnan(_value(e, column.key)) for e in study.entries)]
    rows = [[entry.name, *(_cell(entry, column) for column in columns)] for entry in study.entries]
    for published, values in PUBLISHED.items():
        values = values | {"fps": 1e3 / values["milliseconds"]}
        if any(column.key in values for column in columns):
            rows.append([f"{published} *", *(_number(values.get(c.key, math.nan), c) for c in columns)])
    return Table(name, title, ["model", *(column.heading for column in columns)], rows, notes)


def _deltas_table(study):
    """Returns the table of differences from the main entry, with their intervals and corrected p-values."""
    headings, rows = {column.key: column.heading for column in COLUMNS}, []
    head = ["model", "metric", "difference", "95 % interval", "p", "p (Holm)", "d_z"]
    for entry in study.entries[1:]:
        for row in (row for row in study.metric_rows if row.run == entry.name and row.metric in DELTAS):
            interval = "-" if math.isnan(row.low) else f"{-row.high:+.3f} to {-row.low:+.3f}"
            effect = "-" if math.isnan(row.effect) else f"{-row.effect:+.2f}"
            numbers = f"{-row.difference:+.3f}", interval, _p_value(row.p), _p_value(row.p_holm), effect
            rows.append([entry.name, headings[row.metric], *numbers])
    notes = [f"Less the score of {study.main.name}: negative is worse than it. Paired bootstrap over recordings."]
    return Table("differences", f"Differences from {study.main.name}", head, rows, [*notes, *study.caveats])


def _value(entry, key):
    """Returns a score or a cost of an entry; NaN if it has none."""
    costs = dataclasses.asdict(entry.cost) | {"fps": 1e3 / entry.cost.milliseconds}
    return costs[key] if key in costs else entry.score(key)


def _cell(entry, column):
    text, spread = _number(_value(entry, column.key), column), entry.scores.get(column.key, {}).get("sd", math.nan)
    return text if math.isnan(spread) or text == "-" else f"{text} ± {spread:.{column.digits}f}"


def _number(value, column):
    return "-" if math.isnan(value) else f"{value * column.factor:.{column.digits}f}"


def _p_value(value):
    return "-" if math.isnan(value) else f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _latex(text):
    for character in "\\&%$#_{}":
        text = text.replace(character, "\\textbackslash " if character == "\\" else f"\\{character}")
    for character, word in {"±": r"$\pm$", "<": "$<$", "CO2": "CO$_2$", "CH4": "CH$_4$"}.items():
        text = text.replace(character, word)
    return text
