"""What the documentation says is so: generated pages are fresh, links lead somewhere, examples parse and run."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
from pathlib import Path

import click
import pytest

import predis
from scripts import reference

ROOT = Path(reference.__file__).parents[1]
PACKAGE = Path(predis.__file__).parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)[^)]*\)")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return _FENCE.sub("", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """What `#...` may name in a page: its headings, as GitHub spells them."""
    headings = re.findall(r"^#+ +(.+?) *$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    broken = []
    for link in _LINK.findall(prose(page)):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z][a-z+.-]*:", link):
            continue
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    return broken


def test_reference_pages_are_fresh() -> None:
    stale = [name_of(page) for page in reference.stale(reference.render())]
    assert stale == [], "`make docs` writes them anew"


def test_check_tells_by_its_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reference, "FOLDER", tmp_path / "docs" / "reference")
    monkeypatch.setattr(reference, "PAGES", {"events.md": reference.events_page})
    assert reference.main(["--check"]) == 1
    assert capsys.readouterr().out.startswith("docs/reference/events.md is stale")
    assert reference.main([]) == 0
    assert reference.main(["--check"]) == 0


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_examples_parse(page: Path) -> None:
    for language, example in _FENCE.findall(page.read_text("utf-8")):
        if language == "python":
            ast.parse(example)


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_readme_names_the_commands(command: str) -> None:
    assert command in (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("command", [path for path, _ in reference.commands(reference.cli, "predis")])
def test_every_command_and_option_says_what_it_is(command: str) -> None:
    found = dict(reference.commands(reference.cli, "predis"))[command]
    assert found.help
    assert [o.name for o in found.params if isinstance(o, click.Option) and not o.help] == []


@pytest.mark.parametrize("kind", predis.events.all_events(), ids=lambda kind: kind.__name__)
def test_every_event_says_what_it_is(kind: type) -> None:
    assert not reference.first_paragraph(kind).startswith(f"{kind.__name__}(")


@pytest.mark.parametrize(
    "file",
    [file for file in sorted(PACKAGE.rglob("*.py")) if ">>> " in file.read_text("utf-8")],
    ids=lambda file: str(file.relative_to(PACKAGE)),
)
def test_examples_in_docstrings_run(file: Path) -> None:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    module = importlib.import_module(".".join(part for part in parts if part != "__init__"))
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_broken_links_are_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One: two\n[a](page.md#one-two) [b](gone.md) [c](#nowhere) [d](https://example.org/x)\n"
        "```text\n[e](in-code.md)\n```\n"
    )
    assert broken_links(page) == ["gone.md", "#nowhere"]
