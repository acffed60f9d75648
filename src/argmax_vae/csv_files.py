"""Csv files as they are read: a row at a time, as text, and refused in one line when they are not whole."""

import csv
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from argmax_vae.errors import UsageError

RESTORE = "restore the file or move it away, then run the same command again"


def csv_rows(path: Path, advice: str = RESTORE) -> Iterator[list[str]]:
    """The header and then every row of a csv file as text.

    Raises UsageError when the file is missing or empty, has a column without a name or two with the same one, a row
    with more or fewer fields than the header, a quote that is not closed, or is not in UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if not header:
                raise csv.Error("it is empty")
            if "" in header or len(set(header)) < len(header):
                raise csv.Error("its first line does not name every column once")
            yield header
            for row in reader:
                if len(row) != len(header):
                    raise csv.Error(f"line {reader.line_num} has {len(row)} fields, the first line {len(header)}")
                yield row
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; {advice}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a csv file ({' '.join(str(error).split())}); {advice}") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); {advice}") from None


@lru_cache(maxsize=2**16)
def whole(text: str) -> str:
    """A whole number without a fraction or spaces: `3` for ` 3.0`. Raises ValueError for other text."""
    value = text.strip()
    number = float(value)
    if not number.is_integer():
        raise ValueError(text)
    return value if value.isdecimal() else str(int(number))
