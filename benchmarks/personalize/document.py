"""docs/personalization.md: what people wrote in `text.md`, with the figures put in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import machine
from benchmarks.personalize import words
from benchmarks.personalize.answer import Answer, cells

TEXT = Path(__file__).with_name("text.md")


def write(answer: Answer, path: Path) -> None:
    path.write_text(document(answer))


def document(answer: Answer) -> str:
    """The whole text."""
    text = TEXT.read_text()
    for name, found in _parts(answer).items():
        text = text.replace(f"{{{name}}}", found)
    return text


def _parts(answer: Answer) -> dict[str, str]:
    here = machine()
    tables = [
        f"### {title}\n\n" + _table(words.HEADER, [cells(one) for one in found])
        for title, found in words.blocks(answer)
    ]
    left_out = ", ".join(f"{Path(data).stem}: {count}" for data, count in answer.left_out.items())
    return {
        "verdict": words.verdict(answer),
        "harm": words.harm(answer),
        "overall": _table(*words.overall_rows(answer.overall)),
        "tables": "\n\n".join(tables),
        "goals": _table(*words.goals(answer)),
        "costs": _table(*words.costs(answer)),
        "measured": words.measured(answer),
        "chosen": _table(*words.chosen(answer)),
        "fewer_errors": _table(*words.fewer_errors(answer)),
        "left_out": f"over all seeds: {left_out}",
        "seeds": words.seeds(answer),
        "machine": f"{here['cores']} cores of an {here['arch']} machine, Python {here['python']}",
    }


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "Nothing was measured."
    lines = [" | ".join(header), " | ".join(["---", *["--:"] * (len(header) - 1)])]
    return "\n".join(f"| {line} |" for line in [*lines, *(" | ".join(row) for row in rows)])
