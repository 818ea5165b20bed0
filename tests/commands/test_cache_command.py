"""`ups cache`: what it prints for people and for programs, and its exit codes."""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from command_line import TINY, ups
from sealing import FILES, sealed, sealed_parts, write_output

from ups.artifacts import Artifact, Store
from ups.artifacts.files import write_json
from ups.artifacts.identity import digest_of
from ups.artifacts.manifest import MANIFEST
from ups.artifacts.pins import pin, pins
from ups.commands.cache import _age, _size
from ups.commands.main import main
from ups.config import load_configuration
from ups.config.schema import STAGES
from ups.pipeline.plan import derive

A, B, C, D = (f"{letter}{letter}11" + letter * 60 for letter in "abcd")
ACTIONS = ["ls", "show", "verify", "gc", "why", "pin", "unpin"]
NOW = datetime.now(UTC).replace(microsecond=0)

Answer = Callable[..., tuple[int, str, str]]


@pytest.fixture
def answer(capsys, tmp_path) -> Answer:
    """Run `ups cache` on the store in tmp_path, in this process: exit code, output, errors."""

    def run(action: str, *arguments: str | Path) -> tuple[int, str, str]:
        try:
            code = main(["cache", action, "--root", str(tmp_path), *map(str, arguments)])
        except SystemExit as leaving:
            code = leaving.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def point(store: Store, run: str, *artifacts: Artifact) -> None:
    directory = store.root / "runs" / run
    directory.mkdir(parents=True, exist_ok=True)
    pointers = {
        each.stage: {"digest": each.digest, "hit": False, "path": os.path.relpath(each.path, directory)}
        for each in artifacts
    }
    (directory / "artifacts.json").write_text(json.dumps(pointers))


def age(artifact: Artifact, days: float) -> Artifact:
    """Let it have been sealed some days ago."""
    created = (NOW - timedelta(days=days)).isoformat(timespec="seconds")
    manifest = replace(artifact.manifest, created=created)
    write_json(artifact.path / MANIFEST, manifest.to_json())
    return Artifact(artifact.path, manifest)


def size(artifact: Artifact) -> int:
    return sum(path.stat().st_size for path in artifact.path.rglob("*") if path.is_file())


@pytest.fixture
def store(tmp_path) -> Store:
    """Two runs, "old" (40 days ago: download A, operator B of 3 MB) and "new" (4 days ago: evaluate C of 1 MB).

    Of neither: evaluate D, unfinished work of diffusion A, and download D in quarantine.
    """
    store = Store(tmp_path)
    download = age(
        sealed(store, "download", A, summary={"name": "burgers1d nu=0.01", "version": "generated"}), 50
    )
    operator = age(
        sealed(store, "operator", B, FILES | {"more.bin": b"x" * 3_000_000}, {"download": download}), 40
    )
    evaluate = age(sealed(store, "evaluate", C, FILES | {"more.bin": b"x" * 1_000_000}), 5)
    age(sealed(store, "evaluate", D), 1)
    point(store, f"{NOW - timedelta(days=40):%Y%m%dT%H%M%SZ}-old-00000000", download, operator)
    point(store, f"{NOW - timedelta(days=4):%Y%m%dT%H%M%SZ}-new-00000000", evaluate)
    sealed(store, "download", D)
    store.quarantine("download", D, reason="model.bin is missing")
    write_output(store, "diffusion", A)
    return store


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_has_help_with_an_example_root_and_json(answer, action):
    code, text, _ = answer(action, "--help")
    assert code == 0
    assert text.startswith(f"usage: ups cache {action} ")
    assert "--root ROOT" in text
    assert "--json" in text
    assert f"examples:\n  ups cache {action}" in text


def test_the_help_of_the_cache_names_every_action():
    text = ups("cache", "--help").stdout
    assert all(re.search(rf"^    {action} ", text, re.MULTILINE) for action in ACTIONS)


@pytest.mark.parametrize(
    "arguments",
    [
        ["show"], ["pin"], ["unpin"], ["why"], ["ls", "--sort", "name"], ["gc", "--older-than", "30"],
        ["gc", "--older-than", "-1d"], ["gc", "--quota", "20"], ["gc", "--quota", "20kB"], ["why", TINY, "training"],
    ],
)  # fmt: skip
def test_wrong_arguments_are_2(answer, arguments):
    code, _, text = answer(*arguments)
    assert code == 2
    assert "usage: ups cache" in text


def test_ages_and_sizes():
    assert [_age(text) for text in ("36h", "1.5d", "2w")] == [
        timedelta(hours=36), timedelta(hours=36), timedelta(days=14),
    ]  # fmt: skip
    assert [_size(text) for text in ("20GB", "20gb", "1.5 TiB", "3MiB", "2TB", "7MB", "1GiB")] == [
        20 * 10**9, 20 * 10**9, 3 * 2**39, 3 * 2**20, 2 * 10**12, 7 * 10**6, 2**30,
    ]  # fmt: skip


def test_an_empty_root(answer):
    assert answer("ls")[1].startswith("0 artifacts, 0.0 MB; in ")
    assert json.loads(answer("ls", "--json")[1]) == []
    assert answer("verify")[0] == 0
    assert json.loads(answer("gc", "--json", "--quota", "1MB")[1])["quota_reached"]
    assert answer("show", "abcd")[0] == 2


def test_ls_accounts_for_the_disk(answer, store, tmp_path):
    pin(store, "operator", B, note="figure 3")
    code, text, _ = answer("ls")
    assert code == 0
    rows = json.loads(answer("ls", "--json")[1])
    on_disk = sum(
        path.stat().st_size
        for path in (tmp_path / "artifacts").rglob("*")
        if path.is_file() and not {".locks", ".pins", ".verified"} & set(path.parts)
    )
    assert sum(row["bytes"] for row in rows) == on_disk
    assert [row["kind"] for row in rows] == ["artifact"] * 4 + ["work", "quarantine"]
    by_digest = {
        row["digest"]: row for row in rows if row["stage"] != "evaluate" and row["kind"] == "artifact"
    }
    assert by_digest[B]["pinned"]
    assert by_digest[B]["note"] == "figure 3"
    assert not by_digest[A]["pinned"]
    assert by_digest[A]["created"] < by_digest[A]["used"]
    assert by_digest[A]["used"] == (NOW - timedelta(days=40)).isoformat()
    assert re.search(r"^operator +bb11bbbbbbbb +3\.0 .* figure 3", text, re.MULTILINE)
    assert re.search(r"^unfinished work +diffusion +aa11aaaaaaaa ", text, re.MULTILINE)
    assert re.search(r"^quarantine +download +dd11dddddddd .* model\.bin is missing", text, re.MULTILINE)
    total = text.splitlines()[-1]
    assert total.startswith(
        "4 artifacts, 4.0 MB (pinned: 1, 3.0 MB); unfinished work: 1, 0.0 MB; quarantine: 1, "
    )


def test_ls_sorts(answer, store):
    def order(*arguments: str) -> list[str]:
        rows = json.loads(answer("ls", "--json", *arguments)[1])
        return [f"{row['stage']} {row['digest'][0]}" for row in rows if row["kind"] == "artifact"]

    assert order() == ["download a", "evaluate c", "evaluate d", "operator b"]
    assert order("--sort", "stage") == order()
    assert order("--sort", "size")[:2] == ["operator b", "evaluate c"]
    assert order("--sort", "age") == ["download a", "operator b", "evaluate c", "evaluate d"]


def test_show_tells_what_an_artifact_is(answer, store):
    pin(store, "operator", B, note="figure 3")
    code, text, _ = answer("show", "bb11")
    assert code == 0
    for pattern in (
        rf"^digest +{B}$",
        rf"^path +{re.escape(str(store.path('operator', B)))}$",
        r"^pinned +\S+  figure 3$",
        r"^runs +\d+T\d+Z-old-00000000$",
        r"^  download/aa11aaaaaaaa  content \w{12}  present and equal$",
        r"^  burgers1d nu=0.01, generated  \(download/aa11aaaaaaaa\)$",
        r"^more\.bin +3000000 +\w{16} +\w{64} *$",
    ):
        assert re.search(pattern, text, re.MULTILINE), pattern
    assert answer("show", f"operator/{B}")[1] == text
    described = json.loads(answer("show", "operator/bb11", "--json")[1])
    assert described["digest"] == B
    assert described["derivation"] == {"stage": "operator"}
    assert len(described["files"]) == 4


@pytest.mark.parametrize("action", ["show", "verify", "pin", "unpin"])
def test_a_name_that_means_none_or_several_is_2_and_lists_them(answer, store, action):
    code, output, text = answer(action, "dd1")
    assert (code, output) == (2, "")
    assert "'dd1' is too short for a digest\n  fix: give 4 characters or more" in text
    sealed(store, "operator", D)
    code, _, text = answer(action, "dd11")
    assert code == 2
    assert f"dd11: is ambiguous:\n    evaluate/{D}\n    operator/{D}\n  fix: " in text
    code, _, text = answer(action, "operator/ffff")
    assert code == 2
    assert f"no artifact has this digest; there are:\n    operator/{B}\n    operator/{D}\n" in text


def test_show_of_a_damaged_manifest_is_5(answer, store):
    (store.path("operator", B) / MANIFEST).write_text("{")
    code, _, text = answer("show", "bb11")
    assert code == 5
    assert "cannot be shown: " in text


def test_verify_checks_what_was_asked_for(answer, store):
    (store.path("operator", B) / "sub" / "part.bin").write_bytes(b"tarp")
    assert answer("verify", "aa11", "cc11")[0] == 0
    for arguments in ([], ["--fast"], ["aa11", "bb11"]):
        code, text, errors = answer("verify", *arguments)
        assert code == 5
        assert text.count("intact") == (1 if len(arguments) == 2 else 3)
        assert "sub/part.bin has other content than was sealed" in text
        assert "1 artifact is damaged" in errors
    code, text, errors = answer("verify", "--json")
    assert code == 5
    problems = {row["digest"]: row["problem"] for row in json.loads(text)}
    assert [digest for digest, problem in problems.items() if problem] == [B]
    assert "intact" in errors, "progress goes to standard error"


def test_gc_leaves_what_runs_point_to_and_says_what_it_did(answer, store):
    code, text, _ = answer("gc", "--dry-run", "--json")
    would = json.loads(text)
    assert code == 0
    assert would["dry_run"]
    code, text, errors = answer("gc", "--json")
    done = json.loads(text)
    assert done | {"dry_run": True} == would
    assert [Path(row["path"]).name[:5] for row in done["removed"]] == [D[:5], A[:5], "downl"]
    assert {Path(row["path"]).name for row in done["kept"]} == {A, B, C}
    assert done["runs"] == {}
    assert f"removed evaluate/{D}  0.0 MB" in errors
    assert len(list(store)) == 3


def test_gc_with_a_quota_tells_which_runs_lose_what(answer, store):
    whole = sum(size(artifact) for artifact in found(store))
    pin(store, "operator", B, note="figure 3")
    code, text, errors = answer("gc", "--quota", "3.5MB")
    assert code == 0, errors
    assert re.search(rf"^kept operator/{B}  3\.0 MB: pinned \(figure 3\)$", text, re.MULTILINE)
    assert re.search(rf"^removed download/{A}  .*, last used \d.* by \d\w+-old-00000000$", text, re.MULTILINE)
    assert re.search(r"^run \w+-old-00000000 has lost download$", text, re.MULTILINE)
    assert re.search(r"^run \w+-new-00000000 has lost evaluate$", text, re.MULTILINE)
    assert whole > 4_000_000
    assert [path.name for path in store] == [B]


def found(store: Store) -> list[Artifact]:
    return [artifact for path in store if (artifact := store.find(path.parent.name, path.name))]


def test_a_quota_that_cannot_be_reached_is_3_and_says_why(answer, store):
    pin(store, "operator", B)
    with Store(store.root).lease("evaluate", C):
        code, _, errors = answer("gc", "--quota", "2MB", "--dry-run")
        assert code == 3
        assert (
            "the quota of 2.0 MB would not be reached, 4.0 MB must be kept (3.0 MB: pinned; 1.0 MB: a running"
            in errors
        )
        assert len(list(store)) == 4
        process = ups("cache", "gc", "--quota", "2MB", "--json", "--root", store.root)
    assert process.returncode == 3
    assert "the quota of 2.0 MB is not reached" in process.stderr
    done = json.loads(process.stdout)
    assert not done["quota_reached"]
    assert {Path(row["path"]).name: row["kept"] for row in done["kept"]} == {
        B: "pinned", C: "a running process uses it",
    }  # fmt: skip
    assert len(list(store)) == 2


def test_gc_by_age(answer, store):
    code, _, errors = answer("gc", "--include-runs")
    assert code == 2
    assert "--include-runs: would remove what every run points to\n  fix: say from which age on" in errors
    code, text, _ = answer("gc", "--older-than", "30d")
    assert code == 0
    assert "kept evaluate/dd11" in text
    assert re.search(r"^kept .quarantine/download-.*: written too recently \(", text, re.MULTILINE)
    assert len(list(store)) == 4
    code, text, _ = answer("gc", "--older-than", "30d", "--include-runs")
    assert code == 0
    assert re.search(r"^run \w+-old-00000000 has lost download, operator$", text, re.MULTILINE)
    assert {path.name for path in store} == {C, D}


def test_pins_come_and_go(answer, store):
    code, text, _ = answer("pin", "bb11", "--note", "figure 3")
    assert (code, text) == (0, "pinned operator/bb11bbbbbbbb figure 3\n")
    assert pins(store)["operator", B].note == "figure 3"
    assert json.loads(answer("pin", "aa11", "--json")[1])["digest"] == A
    shutil.rmtree(store.path("operator", B))
    assert "pinned and not there: operator/bb11bbbbbbbb figure 3\n" in answer("ls")[1]
    assert json.loads(answer("ls", "--json")[1])[-1]["kind"] == "pin"
    assert answer("unpin", "operator/bb11")[:2] == (0, "unpinned operator/bb11bbbbbbbb\n")
    assert json.loads(answer("unpin", "aa11", "--json")[1]) == {
        "stage": "download",
        "digest": A,
        "pinned": False,
    }
    code, _, errors = answer("unpin", "aa11")
    assert code == 2
    assert "download/aa11aaaaaaaa: is not pinned" in errors
    assert pins(store) == {}


def test_why_in_a_process_of_its_own(tmp_path):
    """Digests are those of any other process; torch is not needed to compare derivations."""
    store = Store(tmp_path)
    configuration = load_configuration(TINY, {"execution.device": "cpu", "data.nu": 0.02})
    built: dict[str, Artifact] = {}
    for name, stage in STAGES.items():
        inputs = {i: built[i] for i in stage.inputs}
        derivation = derive(name, configuration, inputs, store)
        summary = {"problems": {"burgers1d": {"frames": 9, "grid": [32]}}}
        parts = sealed_parts(store, configuration) if name == "download" else {}
        built[name] = sealed(
            store, name, digest_of(derivation), FILES, inputs, summary, parts, derivation=derivation
        )
    options = ("--root", tmp_path, "--set", "execution.device=cpu")
    done = ups("cache", "why", TINY, "autoencoder", *options, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0, done.stderr
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "ups.pipeline.explanation" in loaded
    assert not loaded & {"torch", "numpy", "zarr"}
    everything = ups("cache", "why", TINY, "--json", *options)
    rows = json.loads(everything.stdout)
    assert [row["stage"] for row in rows] == list(STAGES)
    assert {row["verdict"] for row in rows} == {"MISS"}
    (difference,) = rows[0]["differences"]
    assert difference == difference | {"before": 0.02, "after": 0.01}
    assert re.fullmatch(r"data\.(.+\.)?nu", difference["key"])
    assert done.stdout == "autoencoder: MISS: after download\n"
    first = ups("cache", "why", TINY, "download", *options)
    day = built["download"].manifest.created[:10]
    assert first.stdout.splitlines()[1:] == [
        f"  {built['download'].digest[:12]} of {day} differs in",
        f"    {difference['key']}: 0.02 -> 0.01",
    ]


def test_a_finished_run_is_a_hit_and_its_latent_cache_is_described(finished_root):
    root, run = finished_root
    done = ups("cache", "why", TINY, "--root", root)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^\w+: HIT \w{12}: sealed ", done.stdout, re.MULTILINE)) == len(STAGES)
    pointer = json.loads((run / "artifacts.json").read_text())["cache_encode"]
    described = json.loads(ups("cache", "show", pointer["digest"][:8], "--root", root, "--json").stdout)
    arrays = {array["path"].rpartition("/")[2]: array for array in described["arrays"]}
    assert set(arrays) == {"latents", "u", "time", "x"}
    assert arrays["latents"]["dtype"] == "float16"
    assert all(array["chunk_files"] == array["chunk_files_expected"] for array in arrays.values())
    assert any(group["splits"].get("train") == 16 for group in described["groups"])
    text = ups("cache", "show", pointer["digest"][:8], "--root", root)
    assert text.returncode == 0, text.stderr
    assert run.name in text.stdout
