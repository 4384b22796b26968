# SPDX-License-Identifier: Apache-2.0
"""One self-contained HTML page from text, tables and pictures; reach for it to report on runs.

Everything that these functions are given as text is escaped; what they return is HTML. The page
loads nothing from anywhere, is readable on a phone, and prints.
"""

import base64
import html
from collections.abc import Iterable, Sequence

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.2rem; background: #fff; color: #1f2937;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { margin: 0; font-size: 1.6rem; overflow-wrap: anywhere; }
h2 { margin: 2rem 0 .6rem; padding-bottom: .2rem; border-bottom: 1px solid #e5e7eb;
  font-size: 1.15rem; }
p { margin: .4rem 0; overflow-wrap: anywhere; }
.quiet { color: #4b5563; }
.warning { padding: .5rem .8rem; border-left: 4px solid #D55E00; background: #fff7ed; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr));
  gap: .6rem; margin: 1rem 0; }
.tile { display: flex; flex-direction: column; justify-content: space-between; padding: .5rem .8rem;
  border: 1px solid #e5e7eb; border-radius: .4rem; }
.tile b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(21rem, 100%), 1fr));
  gap: 1.2rem; }
figure { margin: 0; break-inside: avoid; }
figcaption { font-weight: 600; }
img { width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; }
th, td { padding: .25rem 1rem .25rem 0; border-bottom: 1px solid #e5e7eb; text-align: left;
  vertical-align: top; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
thead th { border-bottom: 1px solid #9ca3af; }
tbody th { font-weight: 500; color: #4b5563; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  .pictures { grid-template-columns: 1fr 1fr; }
  .scroll { overflow: visible; }
  h2 { break-after: avoid; }
  tr { break-inside: avoid; }
}
"""


def document(title: str, body: Iterable[str]) -> str:
    """A whole page: `title` is text, `body` the pieces of HTML that make it up."""
    safe = html.escape(title)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{safe}</title>\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{safe}</h1>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def heading(text: str) -> str:
    return f"<h2>{html.escape(text)}</h2>"


def paragraph(text: str, *, kind: str = "") -> str:
    """A paragraph; `kind` is "", "quiet" or "warning"."""
    return f'<p class="{kind}">{html.escape(text)}</p>' if kind else f"<p>{html.escape(text)}</p>"


def link(text: str, address: str) -> str:
    return f'<a href="{html.escape(address)}">{html.escape(text)}</a>'


def tiles(values: Iterable[tuple[str, str]]) -> str:
    """A row of big numbers, each (name, value)."""
    inside = (f'<div class="tile">{html.escape(n)}<b>{html.escape(v)}</b></div>' for n, v in values)
    return f'<div class="tiles">{"".join(inside)}</div>'


def picture(caption: str, png: bytes, description: str) -> str:
    """A picture inside the page; `description` is for those who cannot see it."""
    data = base64.b64encode(png).decode("ascii")
    return (
        f"<figure><figcaption>{html.escape(caption)}</figcaption>"
        f'<img alt="{html.escape(description)}" src="data:image/png;base64,{data}"></figure>'
    )


def pictures(figures: Iterable[str]) -> str:
    """Pictures side by side where the screen is wide enough."""
    return f'<div class="pictures">{"".join(figures)}</div>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of text whose first column names the rows; an empty header leaves its row out."""
    parts = ['<div class="scroll"><table>']
    if header:
        cells = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in header)
        parts.append(f"<thead><tr>{cells}</tr></thead>")
    parts.append("<tbody>")
    for name, *cells in rows:
        inside = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        parts.append(f'<tr><th scope="row">{html.escape(name)}</th>{inside}</tr>')
    return "".join([*parts, "</tbody></table></div>"])
