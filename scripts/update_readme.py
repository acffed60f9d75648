"""Puts the rows of results/figure2.md into README.md, so that no number there is typed."""

import re
import sys
from pathlib import Path

TOP = Path(__file__).parents[1]
BLOCK = re.compile(r"(<!-- figure2: [^>]*-->\n).*?(<!-- end -->)", re.DOTALL)


def updated(readme: str, table: str) -> str:
    """The README with the table's rows between its markers."""
    rows = "".join(line for line in table.splitlines(keepends=True) if line.startswith("|"))
    return BLOCK.sub(lambda found: f"{found[1]}{rows}{found[2]}", readme)


def main() -> int:
    """Rewrite README.md; with --check only tell (exit code 1) whether it would change."""
    path = TOP / "README.md"
    before = path.read_text(encoding="utf-8")
    after = updated(before, (TOP / "results" / "figure2.md").read_text(encoding="utf-8"))
    if "--check" in sys.argv[1:]:
        return int(before != after)
    path.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
