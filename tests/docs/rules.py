"""What the tests do with each command of the documents: the first rule that fits decides.

A command that no rule fits fails the tests. Write a rule for it: best one that runs it as it is; one with overrides that
make it small, if it would take minutes; and only if neither can be, one that parses it, with the reason.
"""

import re
from typing import Literal, NamedTuple

from ups.errors import ComparisonError

How = Literal["run", "run small", "parse", "elsewhere"]


class Rule(NamedTuple):
    """Attributes:
    pattern: of the beginning of the command.
    how: run: as it is, in `make test`. run small: with `added`, in `make test-all`. parse: by the real parser, and its
        configuration is loaded. elsewhere: another test runs it.
    why: of parse, what it would need; of elsewhere, which test.
    ends_with: exit code.
    """

    pattern: str
    how: How
    added: str = ""
    why: str = ""
    ends_with: int = 0


def trained_briefly(*stages: str) -> str:
    """Overrides that leave a training of a few small batches."""
    sets = ["data.trajectories={train: 16, validation: 4, test: 4}", "tracking.wandb=disabled"]
    sets += [
        f"training.{stage}.{key}" for stage in stages for key in ("steps=4", "warmup_steps=0", "batch_size=4")
    ]
    return "".join(f" --set '{each}'" for each in sets)


KILLED = 128 + 9  # as a shell says it
CHAIN = ("autoencoder", "operator", "diffusion", "consistency")
RULES = (
    # Of the library.
    Rule(r"ups doctor", "parse", why="ends with 3 where this machine lacks something; tests/commands run it"),
    Rule(r"ups run .*--dry", "run small"),
    Rule(r"ups sync\b", "parse", why="needs an account of W&B; tests/tracking send to a stand-in"),
    Rule(r"ups (runs|leaderboard|forecast|export)\b", "run"),
    Rule(r"ups sweep", "run small"),
    Rule(r"ups bench nightly", "run small", " --quick"),
    Rule(r"ups data generate heat1d", "elsewhere", why="tests/contributing runs it, with the example added"),
    Rule(r"ups plan .*--probe", "run small", " --set evaluation.members=2"),
    Rule(r"ups (validate|plan|report|evaluate|cache)\b", "run"),
    Rule(r"ups data (list|info|check|generate)\b|ups --help", "run"),
    Rule(r"ups data fetch", "parse", why="fetches gigabytes from PDEBench's server"),
    Rule(
        r"ups join|ups run .*execution\.nodes",
        "parse",
        why="needs two machines; tests/distributed has them on one",
    ),
    Rule(r"ups (run|stage \w+) configs/burgers_tiny\.yaml", "run"),
    Rule(r"timeout --signal=KILL \d+ ups stage operator configs/burgers_tiny\.yaml", "run", ends_with=KILLED),
    Rule(
        r"ups run configs/burgers_(demo|points)\.yaml",
        "run small",
        trained_briefly(*CHAIN) + " --set evaluation.members=2",
    ),
    Rule(
        r"ups stage operator configs/(burgers_001|advection|compressible)\.yaml",
        "run small",
        trained_briefly("autoencoder", "operator") + " --set training.operator.joint=null",
    ),
    Rule(r"ups stage operator configs/darcy\.yaml", "run small", trained_briefly("autoencoder", "operator")),
    Rule(r"ups bench (data|latents)", "run small", " --threads 1"),
    Rule(r"ups bench train", "run small", trained_briefly("operator") + " --steps 8"),
    Rule(r"ups bench frontier configs/burgers_tiny\.yaml", "run"),
    Rule(
        r"ups bench frontier",
        "parse",
        why="needs a trained run; docs/how-to/frontier.md has one of the tiny configuration",
    ),
    Rule(r"ups bench peers", "run small", trained_briefly("operator") + " --seconds 1 --seeds 1"),
    Rule(r"ups bench ablation", "run small", trained_briefly("operator") + " --seconds 1"),
    Rule(
        r"ups ab\b",
        "run small",
        trained_briefly("autoencoder", "operator") + " --seeds 2 --speed 1000",
        ends_with=ComparisonError.exit_code,  # whatever a few steps give: nothing is a thousand times as fast
    ),
    Rule(r"ups profile", "run small"),
    Rule(
        r"python -m flows\b",
        "run small",
        trained_briefly(*CHAIN) + " --set seeds=1 --set evaluation.members=2",
    ),
    Rule(r"python -m ups\.stages", "parse", why="is what the library itself starts"),
    # Of the checkout.
    Rule(
        r"python -m deployments\.rent|bash deployments/bootstrap\.sh|git clone|(pip install )?vastai",
        "parse",
        why="rents a machine",
    ),
    Rule(
        r"python -m deployments\.(serve|deploy|worker)\b",
        "parse",
        why="is what make serve and make deploy run",
    ),
    Rule(
        r"python -m deployments\.reports\b", "parse", why="stays; tests/deployments/test_reports.py asks it"
    ),
    Rule(r"pip install", "parse", why="needs a package index"),
    Rule(r"python -c .*prefect\.blocks", "parse", why="needs a server; tests/flows keep a secret on theirs"),
    Rule(r"make (soak|overhead)\b", "parse", why="takes an hour of a quiet machine"),
    Rule(
        r"make (setup|run|reference|check|lint|test|test-all|docs|clean)\b",
        "parse",
        why="is what starts these tests, or hours",
    ),
    Rule(
        r"make (serve|deploy)\b",
        "parse",
        why="stays, or needs a server; tests/docs/test_under_prefect.py runs both",
    ),
    # Of others.
    Rule(
        r"prefect (--no-prompt )?\S+", "parse", why="is Prefect's; tests/flows deploy, run, retry and cancel"
    ),
    Rule(r"(export \w+=|\. \.venv/bin/activate$|ls runs)", "run"),
)


def rule_for(command: str) -> Rule | None:
    """The first rule that fits a command in which the reader's own words are put in."""
    text = " ".join(filled_in(command).split()).removeprefix(".venv/bin/")
    return next((rule for rule in RULES if re.match(rule.pattern, text)), None)


PLACEHOLDERS = {
    r" \[RUN \.\.\.\]": "",
    r"(?<=\s)\[([^]]+)\]": r"\1",  # what may be left out
    r"\ba\.b=c\b": "evaluation.members=4",
    r"\bCONFIG CHANGES\b": "configs/burgers_demo.yaml configs/ablations/burgers_demo.yaml",
    r"\bCONFIG\b": "configs/burgers_tiny.yaml",
    r"\bBASELINE OPTIMISED\b": "configs/burgers_demo_adamw.yaml configs/burgers_demo.yaml",
    r"\bRUN\b": '"$(ls runs | head -n 1)"',
    r"\b(profile|stage) (STAGE|NAME)\b": r"\1 operator",
    r"\bseed=N\b": "seed=1",
    r"\b(retry|cancel) ID\b": r"\1 00000000-0000-0000-0000-000000000000",
    r"--seconds S\b": "--seconds 1",
    r"\S*\.\.\.\S*hdf5|\bFILE\.hdf5|\bfirst_frames\.hdf5|(?<=check )FILE\b": "rows.hdf5",
}
"""Words in capitals that stand for something of the reader's, and what the tests put there."""


def filled_in(command: str) -> str:
    """A command with the reader's own words put in."""
    for pattern, replacement in PLACEHOLDERS.items():
        command = re.sub(pattern, replacement, command)
    return command


def shrunken(command: str, rule: Rule) -> str:
    """A command as the tests run it: what is added comes before a comment."""
    text, hash_sign, comment = filled_in(command).partition(" #")
    return f"{text.rstrip()}{rule.added}{hash_sign}{comment}"
