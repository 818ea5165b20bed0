"""A pin belongs to a digest, is durable, and keeps what it names."""

import subprocess
import sys
import time

import pytest
from sealing import FILES, sealed

from ups.artifacts import Store
from ups.artifacts.collection import collect, entries
from ups.artifacts.pins import is_pinned, pin, pins, unpin
from ups.errors import ConfigurationError, IntegrityError

A, B = "a" * 64, "b" * 64


def test_pins_are_kept_and_removed(tmp_path):
    store = Store(tmp_path)
    sealed(store, "download", A)
    sealed(store, "operator", A)
    made = pin(store, "download", A, note="figure 3")
    assert pins(Store(tmp_path)) == {("download", A): made}
    assert is_pinned(store, "download", A)
    assert not is_pinned(store, "operator", A), "digests are per stage"
    assert [entry.pin for entry in entries(store)] == [made, None]
    assert pin(store, "download", A, note="and 4").note == "and 4"
    assert len(pins(store)) == 1
    assert unpin(store, "download", A)
    assert not unpin(store, "download", A)
    assert pins(store) == {}


def test_a_pin_survives_quarantine_and_rebuild(tmp_path):
    store = Store(tmp_path)
    sealed(store, "download", A)
    pin(store, "download", A)
    store.quarantine("download", A, reason="test")
    assert list(pins(store)) == [("download", A)]
    assert entries(store) == []
    sealed(store, "download", A, FILES | {"model.bin": b"other"})
    assert entries(store)[0].pin is not None
    removals = {removal.path.parent.name: removal.kept for removal in collect(store, dry_run=False)}
    assert removals == {"download": "pinned", ".quarantine": None}


def test_what_is_not_there_is_not_pinned(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(ConfigurationError, match="download/aaaaaaaaaaaa: no such artifact"):
        pin(store, "download", A)
    assert pins(store) == {}


def test_pinning_waits_for_a_gc_that_looks_at_the_artifact(tmp_path):
    """Else the artifact could go between the look whether it is there and the pin."""
    store = Store(tmp_path)
    sealed(store, "download", A)
    program = (
        "import sys; from pathlib import Path; from ups.artifacts import Store; from ups.artifacts.pins import pin;"
        f"print('started', flush=True); pin(Store(Path(sys.argv[1])), 'download', '{A}')"
    )
    with store.exclusive("download", A):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        time.sleep(0.3)
        assert process.poll() is None, "it waits"
        store.remove(store.path("download", A))
    _, errors = process.communicate(timeout=60)
    assert "no such artifact" in errors
    assert pins(store) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ('{"stage": "download"}', "is no pin"),
        ("[]", "is no pin"),
        (f'{{"stage": "operator", "digest": "{A}", "note": "", "created": ""}}', "names operator aaaaaaaaaaaa"),
    ],
)  # fmt: skip
def test_a_damaged_pin_still_keeps_and_is_reported(tmp_path, content, message):
    store = Store(tmp_path)
    sealed(store, "download", A)
    sealed(store, "download", B)
    pin(store, "download", A)
    (path,) = (store.artifacts / ".pins").iterdir()
    path.write_text(content)
    assert is_pinned(store, "download", A)
    with pytest.raises(IntegrityError, match=message):
        list(collect(store, dry_run=False))
    assert len(list(store)) == 2
    assert unpin(store, "download", A), "what is damaged can be removed by its name"


def test_what_a_killed_pinning_left_is_passed_over(tmp_path):
    store = Store(tmp_path)
    sealed(store, "download", A)
    pin(store, "download", A)
    (path,) = (store.artifacts / ".pins").iterdir()
    path.rename(path.with_name(f".{path.name}.123.json"))
    assert pins(store) == {}
