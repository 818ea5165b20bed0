"""Mirror a run to W&B: `python -m ups.tracking RUN [--follow]`.

Names are those that users of the first implementation know: `training/<stage>/<term>`, e.g.
`training/operator/loss` and `training/operator/L_forward`, against `training/<stage>/step`; results as
`evaluation/<problem>/<model>/<metric>`, with `/<field>` behind it where it is of one field. `L_inv_enc` and `L_inv_dec` are reserved for the inverse losses. Only terms
that a training has appear.
"""

import argparse
import json
import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

_POLL_SECONDS = 1.0
_BOOKKEEPING = {"stage", "step", "steps"}


def main() -> int:
    """Log every record of the run; with --follow until standard input closes. A word on it says that the run got to
    its end; without one it was stopped, failed or killed."""
    parser = argparse.ArgumentParser(prog="python -m ups.tracking", description=main.__doc__)
    parser.add_argument("run", type=Path, help="directory of a run")
    parser.add_argument("--follow", action="store_true", help="go on until standard input closes")
    arguments = parser.parse_args()
    configuration = yaml.safe_load((arguments.run / "config.yaml").read_text())
    tracking = configuration["tracking"]
    os.environ.setdefault("WANDB_SILENT", "true")

    import wandb  # here and nowhere else: 0.7 s, and optional

    run = wandb.init(
        project=tracking["project"],
        entity=tracking["entity"],
        name=arguments.run.name,
        config=configuration,
        dir=str(arguments.run),
        mode=tracking["wandb"],
        settings=wandb.Settings(init_timeout=60, console="off", x_disable_stats=True, x_disable_meta=True),
    )
    defined: set[str] = set()
    for record in _records(arguments.run / "metrics.jsonl", follow=arguments.follow):
        prefix = f"training/{record['stage']}"
        if prefix not in defined:
            run.define_metric(f"{prefix}/*", step_metric=f"{prefix}/step")
            defined.add(prefix)
        values = {f"{prefix}/{name}": value for name, value in record.items() if name not in _BOOKKEEPING}
        run.log(values | {f"{prefix}/step": record["step"]})
    table = arguments.run / "metrics.json"
    if table.exists():
        for row in json.loads(table.read_text()):
            name = row["metric"] if row["field"] is None else f"{row['metric']}/{row['field']}"
            run.summary[f"evaluation/{row['problem']}/{row['model']}/{name}"] = row["value"]
    finished = not arguments.follow or bool(sys.stdin.buffer.read())
    run.finish(exit_code=0 if finished else 1)
    return 0


def _records(path: Path, *, follow: bool) -> Iterator[dict[str, Any]]:
    """Records in order; with `follow`, also those to come, until standard input closes."""
    offset, last_look = 0, not follow
    while True:
        if path.exists():
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read()
            end = data.rfind(b"\n") + 1
            offset += end
            yield from (json.loads(line) for line in data[:end].splitlines())
        if last_look:
            return
        readable, _, _ = select.select([sys.stdin], [], [], _POLL_SECONDS)
        last_look = bool(readable)


if __name__ == "__main__":
    sys.exit(main())
