"""One style for every HTML report: a file of its own that asks no other host, in light and dark, wide and narrow."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

# Okabe and Ito's colours, told apart by everybody, as variables: each is a little lighter on a dark page.
_STYLE = """
:root { color-scheme: light dark;
  --page: #fff; --text: #1c2126; --soft: #5d6771; --line: #d9dee3; --band: #f4f6f8;
  --c0: #0067a8; --c1: #c4500a; --c2: #00805f; --c3: #a8487f; --c4: #8a6500; --c5: #2b8fc4; --c6: #5b5bb0;
  --c7: #1c2126; --c8: #7b858e; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --page: #14181c; --text: #e6e9ec; --soft: #9aa5af; --line: #333b43;
  --band: #1d2329;
  --c0: #5fb4f0; --c1: #f2894a; --c2: #3cc79b; --c3: #e295c2; --c4: #e0b33c; --c5: #8fd0f5; --c6: #a9a9f0;
  --c7: #e6e9ec; --c8: #8f9aa4; --bad: #ff8a80; } }
body { margin: 0 auto; max-width: 76rem; padding: 2rem 1.25rem 4rem; background: var(--page); color: var(--text);
  font: 1rem/1.55 system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .75rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
p, ul { max-width: 46rem; }
.answer { font-size: 1.15rem; border-left: 4px solid var(--c0); padding: .25rem 0 .25rem 1rem; margin: 1rem 0 1.5rem; }
.soft, figcaption, caption { color: var(--soft); font-size: .88rem; }
.scroll { overflow-x: auto; margin: .5rem 0 1rem; }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 0 0 .4rem; }
th, td { padding: .3rem .55rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { font-weight: 600; vertical-align: bottom; }
th:first-child, td:first-child, .left { text-align: left; }
tr.strong td { font-weight: 600; background: var(--band); }
tr.faint td { color: var(--soft); }
.bad { color: var(--bad); font-weight: 600; }
pre { overflow-x: auto; font-size: .8rem; }
figure { margin: 1rem 0; } figure svg { max-width: 100%; height: auto; display: block; }
code { font-size: .9em; background: var(--band); padding: .05rem .3rem; border-radius: 3px; }
@media print { body { max-width: none; padding: 0; } .scroll { overflow: visible; } }
"""


def page(title: str, parts: Sequence[str]) -> str:
    """A whole document. parts: HTML, in order."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str = "",
    strong: Sequence[int] = (),
    faint: Sequence[int] = (),
) -> str:
    """Text cells, escaped here. strong, faint: numbers of rows to lift out or to mute."""
    shown = f"<caption>{escape(caption)}</caption>" if caption else ""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    lines = []
    for number, row in enumerate(rows):
        kind = ' class="strong"' if number in strong else ' class="faint"' if number in faint else ""
        lines.append(f"<tr{kind}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>")
    return (
        f'<div class="scroll" tabindex="0"><table>{shown}<thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def paragraph(text: str, *, kind: str = "") -> str:
    """Text, escaped here."""
    return f'<p class="{kind}">{inline(text)}</p>' if kind else f"<p>{inline(text)}</p>"


def inline(text: str) -> str:
    """Text, escaped here; what stands between backticks is shown as code."""
    pieces = escape(text).split("`")
    return "".join(piece if i % 2 == 0 else f"<code>{piece}</code>" for i, piece in enumerate(pieces))
