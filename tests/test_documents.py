"""What the documents refer to is there: files, headings, tests; and every record of a decision can be found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
MADE = {"tests/fuzz/found/"}
"""What is there only when it was made."""

DOCUMENTS = sorted(
    path
    for folder, pattern in ((CHECKOUT, "*.md"), (CHECKOUT / "docs", "**/*.md"), (CHECKOUT / "tests", "**/*.md"))
    for path in folder.glob(pattern)
)
RECORDS = sorted((CHECKOUT / "docs" / "adr").glob("[0-9]*.md"))


def name_of(path):
    return path.relative_to(CHECKOUT).as_posix()


def prose(path):
    """Returns a document without its blocks of code."""
    return re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(path):
    """Returns the names that a page of Markdown gives to its headings, as GitHub makes them."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE):
        base = (
            re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()).strip().replace(" ", "-")
        )
        number = 0
        while (name := f"{base}-{number}" if number else base) in found:
            number += 1
        found.add(name)
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document):
    """Every relative link is to a file that is there, and to a heading that it has."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        to = (document.parent / path).resolve() if path else document
        assert to.exists(), f"{target} leads nowhere"
        assert not anchor or anchor in anchors(to), f"{target}: no such heading"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_files_that_are_named_are_there(document):
    """Paths in the text, of tests above all: a claim whose test is gone is an empty one."""
    for name in re.findall(r"`((?:tests|docs|benches|src)/[\w./*-]+)`", prose(document)):
        if name in MADE:
            continue
        pattern = name.rstrip("/").replace("NAME-what-it-is", "*").replace("NAME", "*")
        assert (CHECKOUT / pattern).exists() or (CHECKOUT / f"{pattern}.py").exists() or any(CHECKOUT.glob(pattern)), (
            f"{name} is not there"
        )


def test_every_record_of_a_decision_is_listed():
    """By its number, under its own title, in docs/adr/README.md; no number is given twice."""
    listed = dict(
        re.findall(r"^- \[\d+\]\(([^)]+)\): (.*)$", (RECORDS[0].parent / "README.md").read_text("utf-8"), re.MULTILINE)
    )
    titles = {path.name: path.read_text("utf-8").partition("\n")[0].partition(". ")[2] for path in RECORDS}
    assert listed == titles
    assert len({name[:4] for name in titles}) == len(titles)


@pytest.mark.parametrize("document", ["docs/format.md", "docs/security.md", "tests/hostile/README.md"])
def test_test_that_a_claim_names_is_there(document):
    """What a table names as tried by is the name of a test or of a scenario, or a part of one."""
    tests = "\n".join(path.read_text("utf-8") for path in (CHECKOUT / "tests").rglob("*.py"))
    defined = set(re.findall(r"^\s*def (\w+)\(", tests, re.MULTILINE)) | set(re.findall(r'"(\w+)"', tests))
    source = "\n".join(path.read_text("utf-8") for path in (CHECKOUT / "src").rglob("*.py"))
    for name in re.findall(r"`(…?\w+)`", prose(CHECKOUT / document)):
        if name.count("_") < 2 or re.search(rf"\b{name}\b", source):
            continue
        assert any(name.strip("…_") in whole for whole in defined), f"there is no {name}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_tables_are_tables(document):
    """Every run of rows has a line below its heads; a row that a blank line cuts off would be shown as text."""
    rows = [line.startswith("|") for line in prose(document).splitlines()]
    lines = prose(document).splitlines()
    for number, line in enumerate(lines[:-1]):
        if rows[number] and not (number and rows[number - 1]):
            assert re.fullmatch(r"\|( ?:?-+:? ?\|)+", lines[number + 1]), f"no table begins with: {line[:60]}"
