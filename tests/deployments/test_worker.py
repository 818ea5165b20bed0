"""What a worker leaves behind when it ends: nothing, and no finish hook is cut off."""

import json
import subprocess
import sys
from pathlib import Path

# In a process of its own, for it ends all children that it has.
ENDS = """
import subprocess, sys
from deployments import worker
from ups.prctl import adopt_orphans

worker.GRACE_SECONDS = 0.2
adopt_orphans()
other = subprocess.Popen(["sleep", "60"])
hooks = subprocess.Popen([sys.executable, "-m", "ups.pipeline.run_hooks", sys.argv[1]], stdin=subprocess.DEVNULL)
worker._end_the_rest()
"""


def test_finish_hooks_outlast_what_is_killed(tmp_path: Path):
    done = tmp_path / "done"
    commands = {"always": f"sleep 1; echo $UPS_STATE > {done}"}
    request = {"commands": commands, "seconds": 60, "name": "a", "log": str(tmp_path / "hooks.log")}
    subprocess.run([sys.executable, "-c", ENDS, json.dumps(request)], check=True, timeout=40)
    assert done.read_text() == "failed\n"
