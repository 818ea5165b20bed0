"""`python -m ups.tools.torch_report`: what torch finds on this machine, as JSON on standard output.

{"cuda": version that torch was built for, or null; "driver": version, or null; "problem": why there are no devices, or null;
"devices": [{"name", "total_bytes", "free_bytes", "problem": why it cannot compute, or null}]}.
"""

import json
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

_DRIVER = Path("/proc/driver/nvidia/version")


def main() -> None:
    """A device that is found is made to compute: a build may lack kernels for it."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = torch.cuda.is_available()
        devices = [_device(number) for number in range(torch.cuda.device_count())] if found else []
    problem = None
    if not found:
        problem = " ".join(str(warning.message) for warning in said) or "torch finds none"
    sys.stdout.write(
        json.dumps({"cuda": torch.version.cuda, "driver": _driver(), "problem": problem, "devices": devices})
    )


def _device(number: int) -> dict[str, Any]:
    free, total = torch.cuda.mem_get_info(number)
    problem = None
    try:
        ones = torch.ones(64, 64, device=f"cuda:{number}")
        if (ones @ ones).sum().item() != 64**3:
            problem = "computes a wrong product"
    except RuntimeError as error:
        problem = str(error).splitlines()[0]
    return {
        "name": torch.cuda.get_device_name(number),
        "total_bytes": total,
        "free_bytes": free,
        "problem": problem,
    }


def _driver() -> str | None:
    if not _DRIVER.exists():
        return None
    found = re.search(r"Kernel Module[^\d]*([\d.]+)", _DRIVER.read_text())
    return found.group(1) if found else "unknown"


if __name__ == "__main__":
    main()
