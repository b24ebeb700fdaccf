"""Tables, for a page and for a README."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Table:
    """Texts; the first column names the row, the others hold figures."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def to_markdown(self) -> str:
        """Of GitHub's flavour."""
        lines = [self.header, ["---", *["---:"] * (len(self.header) - 1)], *self.rows]
        return "".join(f"| {' | '.join(cell.replace('|', '∣') for cell in line)} |\n" for line in lines)

    def to_html(self) -> str:
        """Scrolls sideways by itself where a screen is narrow."""
        head = "".join(f"<th>{escape(cell)}</th>" for cell in self.header)
        body = "".join(_html_row(row) for row in self.rows)
        return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>\n'


def number(value: float | None, digits: int = 1) -> str:
    """Rounded to `digits` decimal places; a dash for what was not measured."""
    return "–" if value is None else f"{value:,.{digits}f}".replace(",", " ")


def _html_row(row: Sequence[str]) -> str:
    first, *others = map(escape, row)
    return f"<tr><th>{first}</th>{''.join(f'<td>{_stacked(cell)}</td>' for cell in others)}</tr>"


def _stacked(cell: str) -> str:
    """What stands in brackets goes below, smaller: phones are narrow."""
    figure, bracket, rest = cell.partition(" (")
    return f"{figure}<small>{rest.removesuffix(')')}</small>" if bracket else cell
