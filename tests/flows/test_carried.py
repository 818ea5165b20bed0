"""What tasks get and return is plain data, which a task runner of other machines could carry."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from orchestra import CHECKOUT, Orchestra

from ups.config.schema import STAGES


@pytest.mark.slow
def test_every_argument_and_every_result_of_every_task_survives_json(built: Orchestra):
    """Of two seeds, of which one is sealed and one is not."""
    done = subprocess.run(
        [sys.executable, Path(__file__).parent / "carried.py"],
        cwd=CHECKOUT,
        env=built.environment | {"PYTHONPATH": str(CHECKOUT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == (
        "carried: autoencoder cache_encode consistency diffusion download evaluate judge operator preflight publish "
        "publish_seeds"
    )
    *_, sealed, new = sorted((built.root / "runs").iterdir())
    for run, hit in ((sealed, True), (new, False)):
        assert (run / "report.html").is_file()
        pointers = json.loads((run / "artifacts.json").read_text())
        assert {stage: row["hit"] for stage, row in pointers.items() if stage != "download"} == dict.fromkeys(
            [stage for stage in STAGES if stage != "download"], hit
        )
