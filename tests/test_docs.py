"""The README and the docs: links resolve, and every command in them parses against the real flags."""

import re
import shlex

import pytest

from fume_jax.__main__ import COMMANDS
from tests.commands import ROOT, run

PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("*/*/README.md")])
OURS = ("fume_jax", "datasets", "launch", "benchmarks")


def text_of(page):
    return page.read_text(encoding="utf-8")


def anchors(page):
    """Anchors of a page as GitHub makes them of headings, and those written as HTML."""
    headings = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a name="([^"]+)"', text_of(page)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"https?:|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def code_of(page):
    """Lines of the indented and fenced code blocks of a page, continuations joined."""
    text = re.sub(r"\\\n\s*", "", text_of(page))
    fenced = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return "\n".join(fenced).splitlines() + re.findall(r"^    +(\S.*)$", text, re.MULTILINE)


def commands(page):
    """Command lines of a page, comments cut, placeholders for numbers filled in."""
    for line in code_of(page):
        if not re.match(r"(fume|make|pip|python) ", line):
            continue
        for part in line.split("&&"):
            words = shlex.split(re.sub(r"=N\b", "=1", part), comments=True)
            if words[:1] in (["fume"], ["make"]) or words[:2] == ["python", "-m"]:
                yield words


PARSED = sorted({tuple(words) for page in PAGES for words in commands(page)})


def test_there_are_commands():
    assert len(PARSED) > 30
    assert {words[1] for words in PARSED if words[0] == "fume"} == set(COMMANDS)


@pytest.mark.parametrize("words", PARSED, ids=" ".join)
def test_a_command_parses(words):
    program, *rest = words
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(rest) <= set(targets)
        return
    module, arguments = (COMMANDS[rest[0]][0], rest[1:]) if program == "fume" else (rest[1], rest[2:])
    if module.split(".")[0] not in OURS:
        return
    if "--" in arguments:  # what follows is for `fume predict`
        end = arguments.index("--")
        passed = run("tests.parse_command", "fume_jax.predict", "--output=x", *arguments[end + 1 :])
        assert passed.returncode == 0, passed.stderr
        arguments = arguments[:end]
    result = run("tests.parse_command", module, *arguments)
    assert result.returncode == 0, result.stderr


def test_the_readme_is_one_page():
    assert len(text_of(ROOT / "README.md").splitlines()) <= 140


def tables_of(text):
    """The tables of a page in Markdown, each a list of rows, which are dicts by heading."""
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        head, _, *rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in block.splitlines()]
        yield [dict(zip(head, row, strict=True)) for row in rows]


def test_the_results_of_the_study_are_those_of_its_report():
    reported = {}
    for row in (row for table in tables_of(text_of(ROOT / "docs/study/tables.md")) for row in table):
        reported.setdefault((row["model"], row.get("metric")), {}).update(row)
    quoted = [row for table in tables_of(text_of(ROOT / "docs/study.md")) for row in table if "model" in row]
    assert {row["model"] for row in quoted} == {name for name, _ in reported if not name.endswith("*")}
    for row in quoted:
        report = reported[row["model"], row.get("metric")]
        assert {heading: report[heading] for heading in row} == row
