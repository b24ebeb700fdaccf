"""Every relative link of our Markdown files leads somewhere; README stays short, and pages in plain words."""

import re
from pathlib import Path

import pytest

from .markdown import ALL_PAGES, PAGES, ROOT, anchors, blocks, links

MOST_LINES, MOST_WORDS = 120, 900  # of README


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links(page: Path) -> None:
    for link in links(page):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{page.name}: {link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}: no such heading"


def test_readme_leads_to_every_page() -> None:
    assert {f"docs/{page.name}" for page in PAGES[1:]} <= set(links(PAGES[0]))


def test_readme_is_short() -> None:
    text = PAGES[0].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    assert len(text.split()) <= MOST_WORDS


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_pages_begin_with_an_example(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert blocks(page)
    assert len(text[: text.index("```")].split()) <= 45  # a title and at most two lines come before it


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_plain_english(page: Path) -> None:
    """Words that said something else to us than to readers."""
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"(?i)\b(?:mend\w*|papers|workshops?|houses?|rooms?)\b", text)
