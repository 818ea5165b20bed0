"""Generate a file in PDEBench's layout: the process behind `ups data generate`.

No stage of the chain. Its request: {"data" (a `generated` data section), "rows", "split" (null: of all
in turn), "output", "device", "threads"}.
"""

import hashlib
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from ups.artifacts.checksums import file_checksums
from ups.artifacts.files import canonical_json
from ups.config.data import OneProblem
from ups.data.splits import generated_rows
from ups.errors import DataError
from ups.problems.generated import Generated
from ups.tools.generation import generate_file
from ups.tools.tool_main import tool_main


def generate_rows(request: dict[str, Any]) -> dict[str, Any]:
    """Solve and write."""
    output = Path(request["output"])
    if output.exists():
        raise DataError("exists already", where=str(output), fix="choose another name, or remove it first")
    data = TypeAdapter(OneProblem).validate_python(request["data"])
    assert isinstance(data, Generated)
    # Named by what is solved: the same call goes on where a killed one was, and no other call reads its blocks.
    digest = hashlib.sha256(canonical_json([request["data"], request["rows"], request["split"]])).hexdigest()
    blocks = output.with_name(f".{output.name}.{digest[:12]}.blocks")
    count, split = request["rows"], request["split"]
    rows = np.arange(count) if split is None else generated_rows(split, count)
    generated = generate_file(
        data, rows, output, blocks, device=request["device"], threads=request["threads"]
    )
    shutil.rmtree(blocks)
    return {
        "path": str(output),
        "problem": data.problem.name,
        "parameters": generated.parameters,
        "rows": count,
        "grid": list(data.stored_grid),
        "bytes": output.stat().st_size,
        "sha256": file_checksums(output).sha256,
    }


if __name__ == "__main__":
    sys.exit(tool_main("ups.tools.generate_file", generate_rows))
