"""PDF files as documents."""

from __future__ import annotations

import io
import sys

import pytest

from puna.base.errors import InputError, MissingExtraError
from puna.data.readers.pdf import READER
from puna.data.readers.reader import ReadConfig

pypdf = pytest.importorskip("pypdf")


def pdf(pages: list[list[str]]) -> bytes:
    """A PDF with the given lines, written by hand: one font, one content stream a page."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for lines in pages:
        shown = " T* ".join(f"({line}) Tj" for line in lines)
        stream = f"BT /F1 12 Tf 14 TL 72 720 Td {shown} ET"
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        kids.append(f"{len(objects) + 1} 0 R")
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {len(objects)} 0 R >>"
        )
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    out = io.BytesIO(b"")
    out.write(b"%PDF-1.4\n")
    places = []
    for number, content in enumerate(objects, 1):
        places.append(out.tell())
        out.write(f"{number} 0 obj\n{content}\nendobj\n".encode())
    start = out.tell()
    out.write(f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode())
    out.write("".join(f"{place:010d} 00000 n \n" for place in places).encode())
    out.write(f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n".encode())
    return out.getvalue()


def test_pages_are_joined_and_their_starts_kept():
    document = READER.read(pdf([["First page."], ["Second page."]]), "a.pdf", ReadConfig())
    assert document.text == "First page.\n\nSecond page."
    assert [document.text[start : start + 6] for start in document.meta["pages"]] == ["First ", "Second"]


def test_a_word_that_is_parted_at_a_lines_end_is_joined():
    assert "information" in READER.read(pdf([["some infor-", "mation"]]), "a.pdf", ReadConfig()).text


@pytest.mark.parametrize("data", [b"", b"no pdf at all", pdf([["x"]])[:60]])
def test_a_damaged_file_is_refused(data: bytes):
    with pytest.raises(InputError, match=r"damaged PDF|empty"):
        READER.read(data, "a.pdf", ReadConfig())


def test_a_scan_without_text_is_empty():
    with pytest.raises(InputError, match=r"^empty$"):
        READER.read(pdf([[""]]), "a.pdf", ReadConfig())


def test_an_encrypted_file_is_refused():
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf([["secret"]])))
    writer.encrypt("password", algorithm="RC4-128")
    data = io.BytesIO()
    writer.write(data)
    with pytest.raises(InputError, match="encrypted PDF"):
        READER.read(data.getvalue(), "a.pdf", ReadConfig())


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pypdf", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'puna\[pdf\]'"):
        READER.read(b"%PDF-1.4", "a.pdf", ReadConfig())
