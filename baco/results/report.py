"""One page with everything: tables that can be sorted and the figures, in a single file without outside parts."""

from __future__ import annotations

import base64
import html

from baco.results.figures import Picture, as_bytes
from baco.results.render import prose, to_html
from baco.results.tables import Document

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 80rem; padding: 1rem; color: #222; }
h1, h2 { border-bottom: 1px solid #ccc; padding-bottom: .2rem; }
nav a { margin-right: 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; white-space: nowrap; }
th { cursor: pointer; border-top: 2px solid #222; border-bottom: 1px solid #222; text-align: left; user-select: none; }
th[aria-sort=ascending]::after { content: " \\2191"; }
th[aria-sort=descending]::after { content: " \\2193"; }
tbody tr:last-child td { border-bottom: 2px solid #222; }
tbody tr:hover { background: #eef4fa; }
th, td { padding: .15rem .5rem; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
ul { font-size: 13px; color: #444; }
figure { margin: 1rem 0; }
figure img { max-width: 100%; }
figcaption { font-size: 13px; color: #444; }
"""

SCRIPT = """
function value(cell) {
  const text = cell.textContent.trim().replace(/,/g, "").replace("\\u2212", "-");
  const number = parseFloat(text);
  return Number.isNaN(number) ? text.toLowerCase() : number;
}
for (const head of document.querySelectorAll("th")) {
  head.addEventListener("click", () => {
    const table = head.closest("table"), column = head.cellIndex;
    const descending = head.getAttribute("aria-sort") !== "descending";
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows];
    const missing = (row) => row.cells[column].textContent.trim() === "\\u2014";
    rows.sort((one, two) => {
      if (missing(one) || missing(two)) return missing(one) - missing(two);
      const a = value(one.cells[column]), b = value(two.cells[column]);
      const order = typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
      return descending ? -order : order;
    });
    table.tBodies[0].append(...rows);
  });
}
"""


def report(documents: list[Document], pictures: list[Picture]) -> str:
    """The page. A click on a column's head sorts by it, missing values last."""
    links = " ".join(
        f'<a href="#{name}">{html.escape(title)}</a>'
        for name, title in [*((document.name, document.title) for document in documents), ("figures", "Figures")]
    )
    sections = [
        f'<h2 id="{document.name}">{html.escape(document.title)}</h2>\n<p>{prose(document.about)}</p>\n'
        + "\n".join(map(to_html, document.tables))
        for document in documents
    ]
    shown = "\n".join(map(_figure, pictures))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>baco: results</title>
<style>{STYLE}</style>
</head>
<body>
<h1>baco: results</h1>
<p>Made from results/records by <code>make report</code>. Click on the head of a column to sort by it.</p>
<nav>{links}</nav>
{"".join(f"<section>{section}</section>" for section in sections)}
<section><h2 id="figures">Figures</h2>
{shown}
</section>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _figure(picture: Picture) -> str:
    caption = html.escape(picture.caption)
    if picture.figure is None:
        return f"<p>{caption} Nothing is recorded yet; <code>{picture.command}</code> runs it.</p>"
    data = base64.b64encode(as_bytes(picture.figure, "png")).decode()
    image = f'<img src="data:image/png;base64,{data}" alt="{caption}">'
    return f'<figure id="{picture.name}">{image}<figcaption>{caption}</figcaption></figure>'
