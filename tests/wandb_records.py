"""What wandb wrote of a run, read from its directories."""

import json
import struct
from pathlib import Path
from typing import Any

from argmax_vae.runs import wandb_access
from argmax_vae.runs.directory import RunDirectory


def records_of(log: Path) -> list[Any]:
    """The records of an offline run: protocol buffers in a LevelDB log (32 KiB blocks) after 7 bytes of header.

    Each piece has a checksum (4 bytes), a length (2) and a type (1): whole, first, middle or last.
    """
    from wandb.proto import wandb_internal_pb2

    content, position, pieces, records = log.read_bytes(), 7, b"", []
    assert content[:4] == b":W&B"
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack("<HB", content[position + 4 : position + 7])
        pieces += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(pieces)
            records.append(record)
            pieces = b""
    return records


def items_of(items: Any) -> dict[str, Any]:
    """Names and values of a line of the history or the summary."""
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def wandb_of(run: RunDirectory) -> tuple[list[int], int, dict[str, Any]]:
    """Steps of the curves, exit code and summary of the directory that `sync` uploads."""
    import wandb

    wandb.teardown()
    (last,) = [path for path in wandb_access.offline_runs(run.path.parent) if path.parents[1] == run.path]
    (log,) = last.glob("*.wandb")
    records = records_of(log)
    lines = [items_of(record.history.item) for record in records if record.WhichOneof("record_type") == "history"]
    (code,) = [record.exit.exit_code for record in records if record.WhichOneof("record_type") == "exit"]
    summary = [items_of(record.summary.update) for record in records if record.WhichOneof("record_type") == "summary"]
    logged = [line for line in lines if "validation_bound" in line]
    assert [line["epoch"] for line in logged] == [line["_step"] for line in logged]
    final = {name: value for each in summary for name, value in each.items() if name.startswith(("final/", "outcome"))}
    return [line["epoch"] for line in logged], code, final
