"""Word files, written by hand from their parts."""

from __future__ import annotations

import io
import zipfile

import pytest

from puna.base.errors import InputError
from puna.data.readers.docx import READER
from puna.data.readers.reader import ReadConfig
from puna.knowledge.chunk import chunk
from puna.knowledge.structure.outline import outline

OLD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
STRICT = "http://purl.oclc.org/ooxml/wordprocessingml/main"
STYLES = """
<w:style w:styleId="Ttl"><w:name w:val="Title"/></w:style>
<w:style w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>
<w:style w:styleId="H2"><w:name w:val="Kapitel"/><w:pPr><w:outlineLvl w:val="1"/></w:pPr></w:style>
<w:style w:styleId="Mine"><w:name w:val="Mine"/><w:basedOn w:val="H2"/></w:style>
<w:style w:styleId="A"><w:name w:val="A"/><w:basedOn w:val="B"/></w:style>
<w:style w:styleId="B"><w:name w:val="B"/><w:basedOn w:val="A"/></w:style>
"""


def docx(body: str, space: str = OLD, styles: str | None = STYLES, head: str = "") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        mc = 'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
        archive.writestr(
            "word/document.xml", f'{head}<w:document xmlns:w="{space}" {mc}><w:body>{body}</w:body></w:document>'
        )
        if styles is not None:
            archive.writestr("word/styles.xml", f'<w:styles xmlns:w="{space}">{styles}</w:styles>')
    return file.getvalue()


def p(text: str, settings: str = "") -> str:
    return f"<w:p><w:pPr>{settings}</w:pPr><w:r><w:t xml:space='preserve'>{text}</w:t></w:r></w:p>"


def style(name: str) -> str:
    return f'<w:pStyle w:val="{name}"/>'


def blocks(data: bytes) -> list[tuple[str, int, str]]:
    document = READER.read(data, "a.docx", ReadConfig())
    return [(block.kind, block.level, document.text[block.start : block.end]) for block in outline(document)]


BODY = (
    p("Birds", style("Ttl"))
    + p("Parrots", style("berschrift1"))
    + p("The kea  is a parrot.")
    + p("")
    + p("Food", style("Mine"))
    + p("Roots", '<w:numPr><w:ilvl w:val="0"/><w:numId w:val="3"/></w:numPr>')
    + p("Old ones", '<w:numPr><w:ilvl w:val="1"/><w:numId w:val="3"/></w:numPr>')
    + "<w:tbl><w:tr><w:tc>" + p("Bird") + "</w:tc><w:tc>" + p("Size") + "</w:tc></w:tr>"
    + "<w:tr><w:tc>" + p("Kea") + "</w:tc><w:tc>" + p("48") + p("cm") + "</w:tc></w:tr></w:tbl>"
)  # fmt: skip


@pytest.mark.parametrize("space", [OLD, STRICT])
def test_headings_paragraphs_lists_and_tables(space: str):
    assert blocks(docx(BODY, space)) == [
        ("heading", 1, "Birds"),
        ("heading", 1, "Parrots"),
        ("paragraph", 0, "The kea is a parrot."),
        ("heading", 2, "Food"),
        ("item", 0, "Roots"),
        ("item", 1, "Old ones"),
        ("row", 1, "Bird | Size"),
        ("row", 0, "Kea | 48 cm"),
    ]


def test_passages_know_their_headings():
    document = READER.read(docx(BODY), "a.docx", ReadConfig())
    assert document.meta["kind"] == "docx"
    assert [passage.heading for passage in chunk(document, 60) if "Roots" in passage.text] == ["Parrots > Food"]


def test_a_level_of_the_paragraph_itself_wins():
    assert blocks(docx(p("X", style("H2") + '<w:outlineLvl w:val="0"/>')))[0][:2] == ("heading", 1)
    assert blocks(docx(p("X", style("H2") + '<w:outlineLvl w:val="9"/>')))[0][0] == "paragraph"


def test_styles_that_go_in_circles_or_are_not_there_are_no_headings():
    assert blocks(docx(p("X", style("A"))))[0][0] == "paragraph"
    assert blocks(docx(p("X", style("Ttl")), styles=None))[0][0] == "paragraph"


def test_what_was_deleted_is_left_out_and_what_was_inserted_stays():
    changed = (
        "<w:p><w:r><w:t>Keep </w:t></w:r><w:del><w:r><w:delText>gone </w:delText></w:r></w:del>"
        "<w:ins><w:r><w:t>new</w:t></w:r></w:ins><w:moveFrom><w:r><w:t> moved</w:t></w:r></w:moveFrom></w:p>"
    )
    assert blocks(docx(changed)) == [("paragraph", 0, "Keep new")]


def test_breaks_tabs_links_and_boxes():
    body = (
        "<w:p><w:hyperlink><w:r><w:t>a</w:t><w:tab/><w:t>b</w:t><w:br/><w:t>c</w:t><w:noBreakHyphen/><w:t>d</w:t></w:r>"
        "</w:hyperlink><w:r><mc:AlternateContent><mc:Choice><w:txbxContent>"
        + p("in a box")
        + "</w:txbxContent></mc:Choice>"
        "<mc:Fallback><w:txbxContent>"
        + p("in a box")
        + "</w:txbxContent></mc:Fallback></mc:AlternateContent></w:r></w:p>"
    )
    assert blocks(docx(body)) == [("paragraph", 0, "a b\nc-d"), ("paragraph", 0, "in a box")]


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"no archive", docx(BODY)[:300]])
def test_what_is_no_word_file_is_refused(data: bytes):
    with pytest.raises(InputError, match="damaged Word file"):
        READER.read(data, "a.docx", ReadConfig())


def test_an_archive_without_a_text_and_broken_xml_are_refused():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("other.txt", "x")
    for data in (file.getvalue(), docx("<w:p>")):
        with pytest.raises(InputError, match="damaged Word file"):
            READER.read(data, "a.docx", ReadConfig())


def test_entities_and_bombs_are_refused():
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
    with pytest.raises(InputError, match="entities"):
        READER.read(docx(p("&b;"), head=bomb), "a.docx", ReadConfig())
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", " " * (65 << 20))
    with pytest.raises(InputError, match="unpacks to very much"):
        READER.read(file.getvalue(), "a.docx", ReadConfig())


def test_an_empty_file_is_refused():
    with pytest.raises(InputError, match="empty"):
        READER.read(docx(""), "a.docx", ReadConfig())


def test_deep_nesting_is_read():
    assert blocks(docx("<w:sdt>" * 3000 + p("deep") + "</w:sdt>" * 3000)) == [("paragraph", 0, "deep")]
