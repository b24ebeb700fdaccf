"""Result files: what was measured, on what, with what; `report.py` reads them."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from robustscanner.output import check_output, replacing


def begin_result(kind: str, what: str | None, output: Path | None) -> dict[str, Any]:
    """The head of a result, after a look whether it can be written: minutes of work follow.

    Raises:
        OutputError: it cannot.
    """
    if output:
        check_output(output, force=True)
    return {"kind": kind, "what": what, "machine": describe()}


def report_progress(what: str) -> None:
    """One line on stderr, before something that takes a while."""
    print(f"… {what}", file=sys.stderr, flush=True)


def write_result(output: Path | None, result: Mapping[str, Any]) -> None:
    """Writes it, where that was asked for; raises `OutputError` as `robustscanner.output.replacing` does."""
    if output:
        with replacing(output, force=True) as temporary:
            temporary.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
