"""Files that are sound HDF5 and not the layout: other objects, types, shapes, values of attributes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
from malformed_bases import Case, problem_of
from malformed_storage import extent_cases, storage_cases

from ups.problems import PROBLEMS


def dataset_cases(base: str) -> Iterator[Case]:
    problem = problem_of(base)
    coordinates = [problem.coordinate_key(axis) for axis in problem.axes]
    times = [problem.time_key] if problem.time_key else []
    for array in problem.arrays:
        yield from _object_cases(base, array.key)
        yield from _type_cases(base, array.key, ("f2", "f8", ">f4", "i4", "u1", "?", "c8", "S4"))
        yield from _shape_cases(base, array.key)
        yield from storage_cases(base, array.key)
        yield from extent_cases(base, array.key)
    for key in (*coordinates, *times):
        yield from _object_cases(base, key)
        yield from _type_cases(base, key, ("f2", ">f4", "i8", "?", "S4"))
        yield from extent_cases(base, key)
    for key in coordinates:
        for name, change in _COORDINATES.items():
            yield Case(f"{base}-{key}-{name}", base, _changed(key, change), "error", about=key)
        yield Case(f"{base}-{key}-float64", base, _changed(key, lambda x: x, "f8"), "equal")
    for key in times:
        for name, change in _TIMES.items():
            yield Case(f"{base}-{key}-{name}", base, _changed(key, change), "error", about=key)
        yield Case(f"{base}-{key}-without-surplus", base, _changed(key, lambda t: t[:-1]), "equal")
    for name, change in _ORIGINAL_ROWS.items():
        yield Case(
            f"{base}-original-rows-{name}",
            base,
            _changed("original-rows", change, None),
            "error",
            about="original-rows",
        )
    yield Case(f"{base}-unknown-objects", base, _add_unknown, "equal")


_COORDINATES: dict[str, Callable] = {
    "reversed": lambda x: x[::-1],
    "shifted": lambda x: x + (x[1] - x[0]),
    "other-domain": lambda x: 3 * x + 1,
    "nan": lambda x: np.where(x == x[3], np.nan, x),
    "infinite": lambda x: np.where(x == x[3], np.inf, x),
    "absurd": lambda x: x * 1e30,
    "swapped": lambda x: x[[1, 0, *range(2, len(x))]],
    "repeated": lambda x: x[[0, 0, *range(2, len(x))]],
    "short": lambda x: x[:-1],
    "long": lambda x: np.append(x, 2 * x[-1] - x[-2]),
    "matrix": lambda x: x[:, None],
    "scalar": lambda x: x[0],
    "none": lambda x: x[:0],
}
_TIMES: dict[str, Callable] = {
    "backwards": lambda t: t[::-1],
    "not-monotonic": lambda t: t[[0, 2, 1, *range(3, len(t))]],
    "constant": lambda t: 0 * t,
    "uneven": lambda t: t**2,
    "nan": lambda t: t * np.nan,
    "nan-inside": lambda t: np.where(t == t[2], np.nan, t),
    "infinite-end": lambda t: np.where(t >= t[-2], np.inf, t),
    "short": lambda t: t[:-2],
    "long": lambda t: np.append(t, [9.0, 10.0]),
    "matrix": lambda t: t[None],
    "none": lambda t: t[:0],
}
_ORIGINAL_ROWS: dict[str, Callable] = {
    "negative": lambda rows: rows - 200,
    "repeated": lambda rows: 0 * rows,
    "short": lambda rows: rows[:-1],
    "matrix": lambda rows: rows[None],
    "floats": lambda rows: rows.astype(np.float64),
    "int32": lambda rows: rows.astype(np.int32),
    "none": lambda rows: rows[:0],
}


def _add_unknown(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["notes"] = ["free text"]
        file["nan"] = np.full(3, np.nan)
        file.create_group("deeper").attrs["u"] = 1
        file["nowhere"] = h5py.SoftLink("/nothing")
        file.attrs["comment"] = "x" * 10_000


def _changed(key: str, change: Callable, dtype: str | None = "f4") -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            values = file[key][:]
            del file[key]
            with np.errstate(all="ignore"):
                changed = change(values)
                file[key] = changed if dtype is None else np.asarray(changed, dtype=dtype)

    return spoil


def _object_cases(base: str, key: str) -> Iterator[Case]:
    def without(put: Callable[[h5py.File, h5py.Dataset], object]) -> Callable[[Path], None]:
        def spoil(path: Path) -> None:
            with h5py.File(path, "r+") as file:
                file.move(key, "moved")
                put(file, file["moved"])

        return spoil

    puts: dict[str, Callable] = {
        "renamed": lambda file, moved: None,
        "other-case": lambda file, moved: file.move("moved", key.upper() if key.islower() else key.lower()),
        "group": lambda file, moved: file.create_group(key),
        "named-type": lambda file, moved: file.__setitem__(key, np.dtype("f4")),
        "soft-link": lambda file, moved: file.__setitem__(key, h5py.SoftLink("/moved")),
        "circular-link": lambda file, moved: file.__setitem__(key, h5py.SoftLink(f"/{key}")),
        "external-link": lambda file, moved: file.__setitem__(key, h5py.ExternalLink(file.filename, "moved")),
        "link-to-device": lambda file, moved: file.__setitem__(key, h5py.ExternalLink("/dev/zero", key)),
    }
    for name, put in puts.items():
        yield Case(f"{base}-{key}-{name}", base, without(put), "error", about=key)


def _type_cases(base: str, key: str, types: tuple[str, ...]) -> Iterator[Case]:
    for dtype in types:
        spoil = _changed(key, lambda values, dtype=dtype: np.nan_to_num(values).astype(dtype), None)
        yield Case(f"{base}-{key}-of-{dtype}", base, spoil, "error", about=key)

    def compound(values: np.ndarray) -> np.ndarray:
        pairs = np.zeros(values.shape, dtype=[("re", "f4"), ("im", "f4")])
        pairs["re"] = values
        return pairs

    def as_dtype(dtype: object) -> Callable[[Path], None]:
        def spoil(path: Path) -> None:
            with h5py.File(path, "r+") as file:
                shape = file[key].shape
                del file[key]
                file.create_dataset(key, shape, dtype=dtype)

        return spoil

    yield Case(f"{base}-{key}-compound", base, _changed(key, compound, None), "error", about=key)
    special = {
        "object": h5py.string_dtype(),
        "ragged": h5py.vlen_dtype("f4"),
        "reference": h5py.ref_dtype,
        "enumeration": h5py.enum_dtype({"a": 1}),
        "array": np.dtype("(3,)f4"),
    }
    for name, dtype in special.items():
        yield Case(f"{base}-{key}-{name}", base, as_dtype(dtype), "error", about=key)


def _shape_cases(base: str, key: str) -> Iterator[Case]:
    changes: dict[str, Callable] = {
        "flat": lambda values: values.ravel(),
        "scalar": lambda values: values.ravel()[0],
        "one-axis-more": lambda values: values[..., None],
        "one-axis-less": lambda values: values[0],
        "point-less": lambda values: values[..., :-1],
        "no-rows": lambda values: values[:0],
        "no-points": lambda values: values[..., :0],
        "turned": lambda values: values.swapaxes(0, -1),
    }
    for name, change in changes.items():
        yield Case(f"{base}-{key}-{name}", base, _changed(key, change), "error")

    def null(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            del file[key]
            file[key] = h5py.Empty("f4")

    yield Case(f"{base}-{key}-null", base, null, "error", about=key)


# Attributes


def attribute_cases(base: str) -> Iterator[Case]:
    problem = problem_of(base)

    def put(attribute: str, value: object) -> Callable[[Path], None]:
        def spoil(path: Path) -> None:
            with h5py.File(path, "r+") as file:
                del file.attrs[attribute]
                if value is not None:
                    file.attrs[attribute] = value

        return spoil

    numbers = {
        "absent": None,
        "negative": -0.01,
        "nan": np.nan,
        "infinite": np.inf,
        "text": "0.01",
        "bytes": np.bytes_("0.01"),
        "pair": [0.01, 0.02],
        "none": h5py.Empty("f8"),
        "complex": 0.01 + 1j,
        "list-of-text": ["0.01"],
        "many": np.zeros(8000),
    }
    for parameter in problem.parameters:
        for name, value in numbers.items():
            yield Case(
                f"{base}-{parameter.attribute}-{name}",
                base,
                put(parameter.attribute, value),
                "error",
                about=parameter.attribute,
            )
        yield Case(
            f"{base}-{parameter.attribute}-in-brackets", base, put(parameter.attribute, [0.01]), "either"
        )
    texts = {
        "unknown": np.bytes_("heat9d"),
        "empty-text": np.bytes_(" "),
        "variable-length": "no such text",
        "number": 1.0,
        "pair": np.array([b"a", b"b"]),
        "not-utf8": np.bytes_(b"\xff\xfe"),
        "long": np.bytes_("periodic" * 1000),
        "none": h5py.Empty("f8"),
    }
    for attribute in ("boundary", "problem"):
        for name, value in texts.items():
            yield Case(f"{base}-{attribute}-{name}", base, put(attribute, value), "error", about="")
    other = next(name for name in PROBLEMS if name != problem.name)
    yield Case(f"{base}-of-{other}", base, put("problem", np.bytes_(other)), "error", about=other)
