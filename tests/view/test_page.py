from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.view import page
from puna.view.page import Page
from puna.view.plot import Series, bar_chart, graph, line_chart

HOSTILE = "<script src='http://x'>alert(1)</script><img src=x onerror=y> \"&amp;\" </style></pre>"
EMPTY = {"meta", "line", "rect", "path", "polyline", "circle", "br"}


class Reader(HTMLParser):
    """Reads a page strictly: every tag is closed, in order. Keeps its tags, attributes and texts."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(markup)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert len({name for name, _ in attrs}) == len(attrs)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in EMPTY
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def full_page(text: str) -> Page:
    made = Page(text, text)
    made.add("", page.tiles([(text, text, text)]))
    made.add(text, page.paragraph(text), page.paragraph(text, "faint"), page.code(text))
    made.add("Tables", page.table([text, "b"], [(text, 1), (2.5, None)]), page.definitions({text: text}))
    charts = line_chart([Series(text, [(0, 1), (1, 2)])], text, text), bar_chart([(text, 1.0)], text)
    made.add("Charts", *(page.figure(text, chart) for chart in (*charts, graph({text: [text]}, []))))
    made.add("More", page.details(text, page.code(text)))
    return made


def test_a_page_is_well_formed_and_holds_what_was_put_in():
    read = Reader(full_page("plain").render())
    assert read.tags[:3] == ["html", "head", "meta"]
    assert read.tags.count("section") == 5
    assert read.texts.count("plain") > 15


def test_a_heading_is_a_link_to_its_section():
    markup = full_page("plain").render()
    links = dict(re.findall(r'<a href="#(\w+)">([^<]+)</a>', markup))
    assert list(links.values()) == ["plain", "Tables", "Charts", "More"]
    for anchor, heading in links.items():
        assert f'<section id="{anchor}"><h2>{heading}</h2>' in markup


@pytest.mark.parametrize("text", [HOSTILE, "&", '"', "'", "<!--", "]]>", "&lt;b&gt;", "a < b > c"])
def test_what_comes_from_outside_stays_text(text: str):
    plain, read = Reader(full_page("plain").render()), Reader(full_page(text).render())
    assert read.tags == plain.tags
    assert [name for name, _ in read.attributes] == [name for name, _ in plain.attributes]
    assert read.texts.count(text) > 10


@given(st.text(min_size=1, max_size=30))
def test_any_text_leaves_the_page_well_formed(text: str):
    assert Reader(full_page(text).render()).tags == Reader(full_page("plain").render()).tags


def test_a_page_fetches_nothing():
    """Not even what a hostile text asks for: references stand in attributes and styles, and there are none."""
    read = Reader(full_page(HOSTILE).render())
    for name, value in read.attributes:
        assert name not in ("src", "srcset", "action", "data", "xlink:href", "style"), (name, value)
        assert name != "href" or value.startswith("#")
        assert not name.startswith("on")
    markup = full_page("plain").render()
    for reference in ("http:", "https:", "url(", "@import", "src=", "<link", "<script", "<iframe"):
        assert reference not in markup, reference


def test_numbers_in_a_table_are_formatted_and_marked():
    markup = page.table(["a"], [(1234567,), (0.123456,), (True,), ("7",)])
    assert re.findall(r"<td[^>]*>[^<]*</td>", markup) == [
        '<td class="number">1,234,567</td>', '<td class="number">0.1235</td>', "<td>True</td>", "<td>7</td>"
    ]  # fmt: skip


def test_an_empty_page_is_a_page():
    assert Reader(Page("Empty").render()).texts.count("Empty") == 2
