"""Mirror a run to W&B: `python -m ups.tracking RUN`, with `--follow SECONDS` for `ups.pipeline.mirror`.

Names are those that users of the first implementation know: `training/<stage>/<term>`, e.g.
`training/operator/loss` and `training/operator/L_forward`, against `training/<stage>/step`; results as
`evaluation/<problem>/<model>/<metric>`, with `/<field>` behind it where it is of one field. `L_inv_enc` and `L_inv_dec` are reserved for the inverse losses. Only terms
that a training has appear.

A configuration with the same code and data is one run of W&B below one root, however often it is tried again. What is built
again because somebody asked for it is another: W&B takes no row twice.
"""

import argparse
import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from ups.config.schema import CHANGE_NO_RESULT, Tracking

_POLL_SECONDS = 1.0
SENT_SUFFIX = ".wandb.synced"
"""`wandb sync` marks by it what it has sent."""
_BOOKKEEPING = {"stage", "step", "steps"}


def main() -> int:
    """Log every record of the run; with --follow until standard input closes. A word on it says that the run got to
    its end; without one it was stopped, failed or killed. This process group ends SECONDS later at the latest."""
    parser = argparse.ArgumentParser(prog="python -m ups.tracking", description=main.__doc__)
    parser.add_argument("run", type=Path, help="directory of a run")
    parser.add_argument("--offline", action="store_true", help="into a file, whatever tracking.wandb says")
    parser.add_argument("--follow", metavar="SECONDS", type=float, help="go on until standard input closes")
    arguments = parser.parse_args()
    run_is_over = None if arguments.follow is None else _Watch(arguments.follow)
    configuration = yaml.safe_load((arguments.run / "config.yaml").read_text())
    tracking = Tracking.model_validate(configuration["tracking"])
    mode = "offline" if arguments.offline else tracking.wandb
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_DATA_DIR", str(arguments.run / "wandb"))  # else copies go to the user's home

    import wandb  # here and nowhere else: 0.7 s, and optional

    run = wandb.init(
        project=tracking.project,
        entity=tracking.entity,
        id=_identity(arguments.run, configuration),
        resume="allow" if mode == "online" else None,
        name=arguments.run.name,
        group=tracking.group or configuration["name"],
        tags=list(tracking.tags),
        config=configuration,
        dir=str(arguments.run),
        mode=mode,
        settings=wandb.Settings(init_timeout=60, console="off", x_disable_stats=True, x_disable_meta=True),
    )
    sent = dict(run.summary)  # by an earlier attempt at the same run
    defined: set[str] = set()
    for record in _records(arguments.run / "metrics.jsonl", run_is_over=run_is_over):
        prefix = f"training/{record['stage']}"
        if prefix not in defined:
            run.define_metric(f"{prefix}/*", step_metric=f"{prefix}/step")
            defined.add(prefix)
        if record["step"] < sent.get(f"{prefix}/step", 0):
            continue
        values = {f"{prefix}/{name}": value for name, value in record.items() if name not in _BOOKKEEPING}
        run.log(values | {f"{prefix}/step": record["step"]})
    table = arguments.run / "metrics.json"
    if table.exists():
        for row in json.loads(table.read_text()):
            name = row["metric"] if row["field"] is None else f"{row['metric']}/{row['field']}"
            run.summary[f"evaluation/{row['problem']}/{row['model']}/{name}"] = row["value"]
        for artifact in _artifacts(wandb, arguments.run, tracking.upload):
            run.log_artifact(artifact)
    run.finish(exit_code=0 if run_is_over is None or run_is_over.word else 1)
    if mode == "online":
        for file in arguments.run.glob("wandb/run-*/*.wandb"):
            file.with_suffix(SENT_SUFFIX).touch()
    return 0


def _identity(run: Path, configuration: dict[str, Any]) -> str:
    """Of what a run does and where it lies: what changes no result is no part of it.

    All that changes rows is, for rows up to the last step that W&B has are not sent again. Rejected: the commit, which
    stays the same when a file is edited, and changes with files that no stage reads.
    """
    does = {key: value for key, value in configuration.items() if key not in CHANGE_NO_RESULT}
    environment = json.loads((run / "env.json").read_text())
    # Runs of an earlier version have not noted these two.
    made_by = environment.get("code"), environment.get("rebuild")
    [data] = [
        row["digest"] for row in json.loads((run / "plan.json").read_text()) if row["stage"] == "download"
    ]
    text = json.dumps([str(run.resolve().parents[1]), does, made_by, data], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _artifacts(wandb: Any, run: Path, wanted: Collection[str]) -> Iterator[Any]:
    """The report and the weights of each training, as files that nobody will change."""
    if "report" in wanted and (run / "report.html").exists():
        report = wandb.Artifact(f"{run.name}-report", "report")
        report.add_file(str(run / "report.html"))
        yield report
    if "models" in wanted:
        for stage, row in json.loads((run / "artifacts.json").read_text()).items():
            weights = sorted((run / row["path"]).resolve().glob("*.safetensors"))
            if weights and stage != "download":
                model = wandb.Artifact(f"{run.name}-{stage}", "model", metadata={"digest": row["digest"]})
                for file in weights:
                    model.add_file(str(file), policy="immutable")
                yield model


class _Watch:
    """Whether the run is over. Its process has the other end of our standard input, which the kernel closes when it is
    killed; nobody else is left then to end this process, and those that W&B started, if W&B hangs."""

    def __init__(self, last_records_seconds: float) -> None:
        self.word = b""
        self._last_records_seconds = last_records_seconds
        self._over = threading.Event()
        threading.Thread(target=self._wait, daemon=True).start()

    def wait(self, seconds: float) -> bool:
        return self._over.wait(seconds)

    def _wait(self) -> None:
        # Not sys.stdin: a thread that waits in it makes the interpreter's end fail.
        while word := os.read(0, 64):
            self.word += word
        self._over.set()
        time.sleep(self._last_records_seconds)
        os.killpg(0, signal.SIGKILL)


def _records(path: Path, *, run_is_over: _Watch | None) -> Iterator[dict[str, Any]]:
    """Records in order, and those to come, until the run is over."""
    offset, last_look = 0, False
    while True:
        if path.exists():
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read()
            end = data.rfind(b"\n") + 1
            offset += end
            yield from (json.loads(line) for line in data[:end].splitlines())
        if run_is_over is None or last_look:
            return
        last_look = run_is_over.wait(_POLL_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
