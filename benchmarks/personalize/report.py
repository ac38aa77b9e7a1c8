"""The report as a page that a person would want to read: the question, the answer, the curves, the tables, the
method."""

from __future__ import annotations

from html import escape
from pathlib import Path

from benchmarks.figures import machine
from benchmarks.figures import table as figure_table
from benchmarks.personalize import curves, words
from benchmarks.personalize.answer import QUESTION, Answer, cells, https_cells
from benchmarks.personalize.document import TEXT
from demo import page


def write(answer: Answer, path: Path) -> None:
    path.write_text(page.page(QUESTION, _parts(answer)))


def _parts(answer: Answer) -> list[str]:
    drawn = curves.svgs(answer.rows, answer.summary)
    gains = drawn.pop("gains")
    here = machine()
    overall_header, overall = words.overall_rows(answer.overall)
    chosen_header, chosen = words.chosen(answer)
    return [
        f"<h1>{QUESTION}</h1>",
        page.paragraph(
            "Boards with a handful of labelled samples each; every recipe on the same users, with the product's own "
            "functions, paired by user.",
            kind="soft",
        ),
        page.paragraph(words.verdict(answer), kind="answer"),
        page.paragraph(words.harm(answer)),
        *_goals(answer),
        "<h2>All data sets together</h2>",
        page.table(
            overall_header,
            overall,
            caption="Mean over data sets and shots, in points, with the 95 % interval over users",
            strong=[i for i, one in enumerate(answer.overall) if one.recipe == "auto"],
            faint=[i for i, one in enumerate(answer.overall) if one.oracle],
        ),
        "<h2>How accuracy grows with samples</h2>",
        *(f"<figure>{svg}</figure>" for svg in drawn.values()),
        "<h2>Gain over <code>local</code></h2>",
        f"<figure>{gains}</figure>",
        "<h2>Every figure</h2>",
        *_tables(answer),
        "<h2>What <code>auto</code> chose</h2>",
        page.table(chosen_header, chosen, caption="Share of boards and seeds"),
        *_errors(answer),
        *_https(answer),
        "<h2>How it was measured</h2>",
        *_method(answer),
        f"<details><summary>Goals and costs</summary><pre>{escape(figure_table(answer.figures))}</pre></details>",
        page.paragraph(
            f"{here['cores']} cores of an {here['arch']} machine, Python {here['python']}. Made by "
            "`python -m benchmarks.personalize`.",
            kind="soft",
        ),
    ]


def _tables(answer: Answer) -> list[str]:
    return [
        page.table(
            words.HEADER,
            [cells(one) for one in found],
            caption=title,
            strong=[i for i, one in enumerate(found) if one.recipe == "auto"],
            faint=[i for i, one in enumerate(found) if one.oracle],
        )
        for title, found in words.blocks(answer)
    ]


def _goals(answer: Answer) -> list[str]:
    header, rows = words.goals(answer)
    caption = "Goals of auto, in points or percent, and what the oracle would have"
    return ["<h2>Goals</h2>", page.table(header, [_plain(row) for row in rows], caption=caption)] if rows else []


def _plain(row: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(cell.replace("**", "") for cell in row)


def _errors(answer: Answer) -> list[str]:
    header, rows = words.fewer_errors(answer)
    if not rows:
        return []
    caption = "Percent of the errors of local, with the 95 % interval over users; positive is better"
    return ["<h2>Fewer errors than <code>local</code></h2>", page.table(header, rows, caption=caption)]


def _https(answer: Answer) -> list[str]:
    if not answer.pairs:
        return []
    header = ("data", "board", "shots", "recipe", "through HTTPS", "functions", "")
    caption = "Accuracy in % through a real service and the commands, and by calling the functions"
    return [
        "<h2>The same through HTTPS</h2>",
        page.table(header, [https_cells(p) for p in answer.pairs], caption=caption),
    ]


def _method(answer: Answer) -> list[str]:
    """The list under the method's heading in `text.md`."""
    text = TEXT.read_text().split("## How it was measured\n")[1].split("\n## What it took")[0]
    left_out = ", ".join(f"{Path(data).stem}: {count}" for data, count in answer.left_out.items())
    text = text.replace("{left_out}", f"over all seeds: {left_out}").replace("{seeds}", words.seeds(answer))
    text = text.replace("{measured}", words.measured(answer))
    items = [" ".join(item.split()) for item in text.strip().removeprefix("- ").split("\n- ")]
    return ["<ul>", *(f"<li>{_inline(item)}</li>" for item in items), "</ul>"]


def _inline(text: str) -> str:
    """The little of Markdown that the list uses."""
    shown = page.inline(text)
    for mark, tag in (("**", "strong"), ("*", "em")):
        pieces = shown.split(mark)
        shown = "".join(piece if i % 2 == 0 else f"<{tag}>{piece}</{tag}>" for i, piece in enumerate(pieces))
    return shown
