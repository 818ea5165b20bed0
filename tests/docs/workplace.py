"""A directory in which commands of the documents are run as a reader would: in a checkout, with its environment."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from command_line import clean_environment
from documents import CHECKOUT

LEFT_OUT = {".git", ".venv", "artifacts", "runs", "downloads", "comparisons", "site", "tests", "configs"}
ACTIVATE = 'export PATH="$PWD/.venv/bin:$PATH"\n'
PROGRAM = """#!/bin/sh
exec "{python}" {module} "$@"
"""


class Workplace:
    """Links to the files of the checkout, and an environment of the programs that documents call."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for path in CHECKOUT.iterdir():
            if path.name not in LEFT_OUT:
                (directory / path.name).symlink_to(path)
        # Paths in a configuration are relative to it, wherever a link to it leads.
        shutil.copytree(CHECKOUT / "configs", directory / "configs")
        programs = directory / ".venv" / "bin"
        programs.mkdir(parents=True)
        (programs / "activate").write_text(ACTIVATE)
        (directory / ".venv" / ".ready").touch()  # for make
        for name, module in {"ups": "-m ups", "python": "", "prefect": "-m prefect"}.items():
            (programs / name).write_text(PROGRAM.format(python=sys.executable, module=module))
            (programs / name).chmod(0o755)
        kept = {name: value for name, value in clean_environment().items() if not name.startswith("PREFECT_")}
        self.environment = kept | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(CHECKOUT),
            "PREFECT_HOME": str(directory / ".prefect"),
        }

    def run(self, text: str) -> subprocess.CompletedProcess[str]:
        """A command in the directory."""
        return subprocess.run(
            ["bash", "-c", f"{text}\nexit $?"],
            cwd=self.directory, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            check=False,
        )  # fmt: skip

    def must(self, text: str, ends_with: int = 0) -> str:
        """Output of a command that has to end with an exit code."""
        done = self.run(text)
        assert done.returncode == ends_with, f"{text}\nended with {done.returncode}\n{done.stdout}"
        return done.stdout


Followed = tuple[Workplace, list[tuple[str, str]]]
"""Where a document was followed, and in their order its commands and what they printed."""
