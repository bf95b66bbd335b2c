"""Write tables of results into the pages: python benchmarks/write_results.py [--check | --pictures].

A page holds `<!-- results: NAME -->` and `<!-- end -->`; what stands between is written from `results/`.
`--check` only tells which pages differ. `--pictures` draws their pictures too.
"""

import re
import sys
from pathlib import Path

from result_data import ROOT
from result_tables import TABLES

__all__ = ["filled", "main", "pages"]

_BLOCK = re.compile(r"(<!-- results: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def pages() -> list[Path]:
    """All pages that may hold tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def filled(text: str) -> str:
    """A page with its tables as the results have them."""
    return _BLOCK.sub(lambda block: f"{block[1]}{TABLES[block[2]]()}\n{block[3]}", text)


def main(arguments: list[str]) -> int:
    """Write, or with `--check` only tell which pages differ."""
    stale = 0
    for page in pages():
        text = page.read_text("utf-8")
        if (new := filled(text)) != text:
            print(page.relative_to(ROOT))
            stale += 1
            if "--check" not in arguments:
                page.write_text(new, "utf-8")
    if "--pictures" in arguments:
        from result_pictures import PICTURES

        for name, draw in PICTURES.items():
            draw(ROOT / "docs" / "results" / name)
            print(f"docs/results/{name}")
    return int("--check" in arguments and stale > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
