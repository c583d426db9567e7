"""Web pages: what is the page's own, as readable text, and where its parts stand."""

from __future__ import annotations

import pytest

from puna.base.errors import InputError
from puna.core.document import Document
from puna.data.readers.html import READER
from puna.data.readers.reader import ReadConfig

MENU = "<ul>" + "".join(f'<li><a href="/{i}">Page {i}</a></li>' for i in range(8)) + "</ul>"


def page(body: str, head: str = "") -> Document:
    return READER.read(f"<html><head>{head}</head><body>{body}</body></html>".encode(), "a.html", ReadConfig())


def seen(document: Document) -> list[tuple[str, str]]:
    return [(kind, document.text[start:end]) for kind, start, end, _ in document.meta["blocks"]]


def test_structure_is_beside_the_text_and_not_in_it():
    document = page(
        "<h1>Top</h1><p>One\n <b>two</b>&amp;<i>three</i>.</p><ul><li>a<ul><li>b</li></ul></li></ul>"
        "<ol start=3><li>c</li><li>d</li></ol><dl><dt>t</dt><dd>def</dd></dl><blockquote>said</blockquote>"
        "<pre>x\n  y</pre>",
        "<title> The  page </title>",
    )
    assert document.text == (
        "Top\n\nOne two&three.\n\n- a\n  - b\n\n3. c\n4. d\n\nt\ndef\n\nsaid\n\nx\n  y\n".replace("b\n\n3", "b\n3")
    )
    assert seen(document) == [
        ("heading", "Top"), ("paragraph", "One two&three."), ("item", "a"), ("item", "b"), ("step", "c"), ("step", "d"),
        ("term", "t"), ("definition", "def"), ("quote", "said"), ("code", "x\n  y"),
    ]  # fmt: skip
    assert document.meta["title"] == "The page"


def test_tables_are_rows_and_a_layout_table_is_not():
    document = page("<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td><p>2</p></td></tr></table>")
    assert document.text == "a | b\n1 | 2\n"
    assert [row[3] for row in document.meta["blocks"]] == [1, 0]
    document = page("<table><tr><td><h2>H</h2><p>text</p></td></tr></table>")
    assert [kind for kind, _ in seen(document)] == ["heading", "paragraph"]


def test_furniture_goes_and_content_stays():
    document = page(
        f'<nav>Home About</nav><div class="sidebar">side</div><div role="banner">ban</div>{MENU}'
        "<script>var x;</script><style>p{}</style><p>Content of the page.</p><p hidden>no</p><footer>foot</footer>"
    )
    assert document.text == "Content of the page.\n"


def test_main_is_taken_where_there_is_one():
    assert page("<p>around</p><main><p>inside</p></main><p>after</p>").text == "inside\n"


def test_a_list_of_links_with_explanations_is_content():
    items = "".join(
        f'<li><a href="/{i}">Page {i}</a> explains at length what number {i} is about.</li>' for i in range(6)
    )
    assert page(f"<ul>{items}</ul>").text.count("explains at length") == 6


def test_a_page_that_the_rules_misjudge_is_read_whole():
    assert "the whole article" in page('<div class="sidebar"><p>the whole article ' + "word " * 80 + "</p></div>").text


def test_alt_texts_breaks_math_and_anchors():
    document = page(
        '<h2>Title<a class="headerlink" href="#t">¶</a></h2><p>a<br>b <img alt="a chart" src=x>'
        '<math alttext="x^2"><mi>x</mi></math></p>'
    )
    assert document.text == "Title\n\na\nb a chart x^2\n"


def test_a_declared_charset_is_obeyed():
    data = '<html><head><meta charset="windows-1251"></head><body><p>Привет мир</p></body></html>'.encode("cp1251")
    assert READER.read(data, "a.html", ReadConfig()).text == "Привет мир\n"


def test_deep_nesting_does_not_exhaust_the_stack():
    assert page("<div>" * 3000 + "deep" + "</div>" * 3000).text == "deep\n"


@pytest.mark.parametrize("body", ["", "<script>x</script>", "<img src=a>"])
def test_a_page_without_text_is_empty(body: str):
    with pytest.raises(InputError, match=r"^empty$"):
        page(body)


def test_the_declaration_of_human_rights_in_many_languages(shared_data):
    files = sorted((shared_data / "udhr").glob("*.html"))
    assert files
    for file in files:
        document = READER.read(file.read_bytes(), file.name, ReadConfig())
        headings = [text for kind, text in seen(document) if kind == "heading"]
        assert len(document.text) > 2000
        assert len(headings) >= 25, file.name
