"""A report as one HTML page that needs nothing else."""

import base64
import io
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

from rfm.command_line.report_content import Report, Section

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """\
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; margin: 0.8rem 0; } td, th { padding: 0.15rem 1.2rem 0.15rem 0; text-align: right; }
td:first-child, th:first-child { text-align: left; } th { border-bottom: 1px solid #999; font-weight: 600; }
table.list td { text-align: left; overflow-wrap: anywhere; }
table.list td:first-child { color: #666; white-space: nowrap; }
img { max-width: 100%; height: auto; } p { margin: 0.4rem 0; } li { margin: 0.3rem 0; }
@media print { h2 { break-after: avoid; } img, table { break-inside: avoid; } }
"""


def page(report: Report, pictures: Mapping[str, str]) -> str:
    """Return a report as HTML.

    Args:
        report: what it says.
        pictures: HTML to put after a section, by the section's name.
    """
    sections = "\n".join(_section(section, pictures.get(section.name, "")) for section in report.sections)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(report.title)}</title>\n'
        f"<style>\n{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(report.title)}</h1>\n{sections}\n</body>\n</html>\n"
    )


def image(figure: "Figure", description: str, dots_per_inch: int = 100) -> str:
    """Return a figure as an HTML element that holds its pixels."""
    file = io.BytesIO()
    # A density is smooth: a fifth of the bytes of a PNG.
    figure.savefig(file, format="webp", dpi=dots_per_inch, pil_kwargs={"quality": 92})
    data = base64.b64encode(file.getvalue()).decode()
    return f'<p><img alt="{escape(description)}" src="data:image/webp;base64,{data}"></p>'


def _section(section: Section, picture: str) -> str:
    parts = [f'<section id="{section.name}">\n<h2>{escape(section.title)}</h2>']
    if section.rows:
        head = "".join(f"<th>{escape(cell)}</th>" for cell in section.header)
        body = "\n".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in section.rows)
        kind = "" if section.header else ' class="list"'
        parts.append(f"<table{kind}>\n{f'<tr>{head}</tr>' if head else ''}\n{body}\n</table>")
    if section.name == "caveats":
        items = "\n".join(f"<li>{escape(sentence)}</li>" for sentence in section.sentences)
        parts.append(f"<ul>\n{items}\n</ul>")
    else:
        parts += [f"<p>{escape(sentence)}</p>" for sentence in section.sentences]
    return "\n".join([*parts, picture, "</section>"])
