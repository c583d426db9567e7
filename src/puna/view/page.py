"""An HTML page in one file: what is put in is escaped, what is drawn is inline, and nothing is fetched.

`Page` collects sections of ready markup; the functions below make markup from plain values. Reports are composed
elsewhere: this module knows no run and no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from typing import Any

from puna.base.progress import format_value


@dataclass(slots=True)
class Page:
    """A page under construction.

    Attributes:
        title: of the page.
        subtitle: one line beneath it.
        sections: (heading, markup) pairs.
    """

    title: str
    subtitle: str = ""
    sections: list[tuple[str, str]] = field(default_factory=list)

    def add(self, heading: str, *markup: str) -> None:
        self.sections.append((heading, "\n".join(markup)))

    def render(self) -> str:
        """The whole document."""
        style = resources.files("puna.view").joinpath("assets/page.css").read_text(encoding="utf-8")
        anchors = [f"s{i}" for i in range(len(self.sections))]
        links = "".join(
            f'<a href="#{anchor}">{escape(heading)}</a>'
            for anchor, (heading, _) in zip(anchors, self.sections, strict=True)
            if heading
        )
        body = "".join(
            f'<section id="{anchor}">{f"<h2>{escape(heading)}</h2>" if heading else ""}{markup}</section>'
            for anchor, (heading, markup) in zip(anchors, self.sections, strict=True)
        )
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(self.title)}</title>'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>'
            f'<body><header><h1>{escape(self.title)}</h1><p class="faint">{escape(self.subtitle)}</p>'
            f"<nav>{links}</nav></header><main>{body}</main></body></html>\n"
        )


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def tiles(values: Iterable[tuple[str, str, str]]) -> str:
    """Figures at a glance: (label, figure, remark)."""
    made = (
        f'<div class="tile"><span class="faint">{escape(label)}</span><strong>{escape(figure)}</strong>'
        f'<span class="faint">{escape(remark)}</span></div>'
        for label, figure, remark in values
    )
    return f'<div class="tiles">{"".join(made)}</div>'


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table; numbers are formatted and set to the right."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f'<td class="number">{escape(format_value(value))}</td>'
    return f"<td>{escape(str(value))}</td>"


def details(summary: str, markup: str) -> str:
    """Markup that opens on a click."""
    return f"<details><summary>{escape(summary)}</summary>{markup}</details>"


def code(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


def figure(caption: str, svg: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>"


def definitions(values: Mapping[str, Any]) -> str:
    rows = "".join(f"<dt>{escape(key)}</dt><dd>{escape(format_value(value))}</dd>" for key, value in values.items())
    return f"<dl>{rows}</dl>"
