"""The site says what the code says: every public name has a place, and messages are quoted as they are printed."""

import re
from pathlib import Path

from words.test_api import public

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_every_name_has_a_place_on_the_site():
    pages = "\n".join(page.read_text() for page in (DOCS / "api").glob("*.rst"))
    shown = set(re.findall(r"^\.\. auto(?:function|class|module|data):: ([\w.]+)", pages, flags=re.MULTILINE))
    taken_over = {"ebm.Density", "ebm.normal", "ebm.uniform"}  # flowmcmc's own
    assert shown == set(public()) - taken_over
    assert all(name in pages for name in taken_over)


def test_pages_are_in_the_table_of_contents_and_what_they_take_from_the_readme_is_there():
    listed = re.findall(r"^[\w/]+$", (DOCS / "index.md").read_text(), flags=re.MULTILINE)
    pages = {str(page.relative_to(DOCS).with_suffix("")) for page in DOCS.rglob("*") if page.suffix in (".md", ".rst")}
    assert pages - {"index"} == set(listed)
    readme = (ROOT / "README.md").read_text()
    for page in DOCS.glob("*.md"):
        for marker in re.findall(r'^:(?:start-after|end-before): "(.*)"$', page.read_text(), flags=re.MULTILINE):
            assert readme.count(marker) == 1, (page.name, marker)


def test_quoted_messages_are_those_of_the_code():
    """What stands between numbers and dots; the words of an f-string are on one line here."""
    code = "".join(path.read_text() for package in ("flowmcmc", "ebm") for path in (ROOT / package).rglob("*.py"))
    code = re.sub(r'"\n\s*f?"', "", code)
    quotes = re.findall(r'^\| "(.*?)" \|', (DOCS / "remedies.md").read_text(), flags=re.MULTILINE)
    assert len(quotes) > 20
    for quote in quotes:
        for words in re.split(r"\.\.\.|\d[\d.]*|max_evaluations", quote):
            assert words.strip(" .%():[]") in code, (quote, words)
