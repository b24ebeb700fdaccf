"""Tables of the report inside other documents: between `<!-- report: TITLE -->` and `<!-- end -->`."""

import re
from collections.abc import Iterable

from benchmarks.sections import Section
from robustscanner.labels import DataError

_BLOCK = re.compile(r"(<!-- report: (.+) -->\n)(?s:.*?)(<!-- end -->)")


def fill(document: str, sections: Iterable[Section]) -> str:
    """The document with the report's newest tables; of a section without a table, its points.

    Raises:
        DataError: the report has no section of that title.
    """
    bodies = {section.title: _body(section) for section in reversed(list(sections))}  # of two with one title, the first

    def filled(block: re.Match[str]) -> str:
        begin, title, end = block.groups()
        if title not in bodies:
            raise DataError(f"the report has no section «{title}»; it has {', '.join(bodies)}")
        return begin + bodies[title] + end

    return _BLOCK.sub(filled, document)


def _body(section: Section) -> str:
    return section.table.to_markdown() if section.table else "".join(f"- {point}\n" for point in section.points)
