"""Write the surrogate of a finished run as one file: for `ups.load`, or as a program of torch that needs no library of ours.

No stage of the chain: it seals nothing. `python -m ups.tools.export_surrogate --work DIR` reads DIR/request.json
{"run", "out", "kind", "problem", "steps"} and ends with DIR/outcome.json.
"""

import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import ups
from ups.artifacts.files import publish, storage_error
from ups.evaluation.predictor import Predictor
from ups.evaluation.surrogate_file import write_surrogate
from ups.evaluation.trained_run import TrainedRun
from ups.models.codec import Codec
from ups.models.evolution import forecast
from ups.tools.tool_main import tool_main


class ExportedForecast(nn.Module):
    """The operator's forecast of one problem: first frames [n, *grid, C] and scalars [S] to [n, steps, *grid, C].

    Physical units; scalars are the natural logarithms of the equation's dimensionless numbers, which the file names.
    """

    codec: Codec
    elapsed: Tensor

    def __init__(self, predictor: Predictor, problem: str, steps: int) -> None:
        super().__init__()
        usage = predictor.usages[problem]
        self.steps, self.parameters_of_equation = steps, usage.parameters
        self.operator, self.codec = predictor.surrogate.operator, predictor.surrogate.codec
        self.problem = problem
        given = [field in usage.given for field in usage.fields]
        self.known = None if all(given) else torch.tensor(given)
        self.register_buffer("elapsed", usage.time_step * torch.arange(1, steps + 1))

    def forward(self, first: Tensor, scalars: Tensor) -> Tensor:
        codec, count = self.codec.of(self.problem), first.shape[0]
        frame = codec.frame(first, self.parameters_of_equation)
        known = None if self.known is None else self.known.expand(count, 1, -1)
        start = codec.encode(first.unsqueeze(1), torch.zeros(1), frame, known)[:, 0]
        latents = forecast(self.operator, codec, start, frame.conditioning(scalars), self.steps).mean
        fields = codec.decode(latents, self.elapsed.expand(count, -1), frame)
        return fields.unflatten(-2, codec.shape.grid)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Write the file, and say how large it is."""
    run, out = Path(request["run"]), Path(request["out"])
    if request["kind"] == "torch":
        _write_program(ups.load(run, device="cpu"), out, request["problem"], request["steps"])
    else:
        with ExitStack() as leases:
            trained = TrainedRun.open(run, leases)
            write_surrogate(out, trained.paths, trained.load("cpu"))
    return {"bytes": out.stat().st_size}


def _write_program(predictor: Predictor, out: Path, problem: str | None, steps: int | None) -> None:
    """The operator, its codec and frames, traced for any number of first frames by torch.export."""
    usage = predictor.usage(problem)
    name = next(name for name, one in predictor.usages.items() if one is usage)
    count = usage.steps(steps, None)[-1]
    module = ExportedForecast(predictor, name, count).eval().requires_grad_(False)
    example = torch.rand(3, *usage.grid, len(usage.fields)) + 0.5
    scalars = torch.tensor(usage.scalars(usage.parameters), dtype=torch.float32)
    anything = ({0: torch.export.Dim("n", min=1)}, None)
    with torch.no_grad():
        program = torch.export.export(module, (example, scalars), dynamic_shapes=anything)
    about = {
        "takes": f"first frames [n, {', '.join(map(str, usage.grid))}, {len(usage.fields)}] of "
        f"{', '.join(field.name for field in usage.fields)}, and scalars [{len(scalars)}]",
        "gives": f"the {count} frames after them, every {usage.time_step:g}",
        "scalars": {
            json.dumps(dict(number), sort_keys=True): value
            for number, value in zip(usage.problem.numbers, usage.scalars(usage.parameters), strict=True)
        },
        "parameters": usage.parameters,
        "provenance": predictor.provenance,
    }
    temporary = out.with_name(f".{out.name}.{os.getpid()}.pt2")
    try:
        torch.export.save(program, temporary, extra_files={"about.json": json.dumps(about, indent=2)})
        publish(temporary, out)
    except OSError as error:
        raise storage_error(error, out) from error
    finally:
        temporary.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(tool_main("ups.tools.export_surrogate", answer))
