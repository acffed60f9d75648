"""Puts the rows of results/NAME.md into the blocks of README.md marked `<!-- NAME: … -->`: no number is typed."""

import re
import sys
from pathlib import Path

TOP = Path(__file__).parents[1]
BLOCK = re.compile(r"(<!-- (\w+): written by [^>]*-->\n).*?(<!-- end -->)", re.DOTALL)


def updated(readme: str, results: Path) -> str:
    """The README with the rows of each table between its markers."""

    def block(found: re.Match[str]) -> str:
        table = (results / f"{found[2]}.md").read_text(encoding="utf-8")
        rows = "".join(line for line in table.splitlines(keepends=True) if line.startswith("|"))
        return f"{found[1]}{rows}{found[3]}"

    return BLOCK.sub(block, readme)


def main() -> int:
    """Rewrite README.md; with --check only tell (exit code 1) whether it would change."""
    path = TOP / "README.md"
    before = path.read_text(encoding="utf-8")
    after = updated(before, TOP / "results")
    if "--check" in sys.argv[1:]:
        return int(before != after)
    path.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
