"""Reading HDF5 files that nobody has vouched for.

A file may be cut off, an error page, flipped in a bit, or made to do harm, and the HDF5 library believes what
a header says. So before a value is read or memory is taken for it, what is declared is held against what is
there: datasets lie in this file and not behind a link, values are IEEE float32 in this file's own bytes, and
the declared extent fits the file's real size. Whatever the library still raises becomes a typed error here;
nobody else in the library calls h5py to read.

What the library itself survives was measured (HDF5 2.0; files of all four problems, contiguous, chunked and
compressed, with old and new headers): of 120,000 random mutations of headers none crashed it, none took more than
50 MB, and only those of heaps with variable-length text hung it. Such text is read without it
(`ups.data.hdf5_attributes`).

Rejected: parsing the format ourselves (it has three generations of headers and five kinds of storage); trusting
the library (it returns zeros for values beyond the end of the file and for those never written, and crashes on
some chunks, see `ups.data.hdf5_chunks`); probing each file in a child process (0.3 s a file, and with these
checks there was nothing left to catch).
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ups.artifacts.files import storage_error
from ups.data.hdf5_attributes import is_variable_text, read_attribute
from ups.data.hdf5_chunks import check_chunking, check_chunks
from ups.data.layout import place
from ups.errors import DataError

_TEXT_LENGTH = 1024


@dataclass(frozen=True, eq=False)
class CheckedArray:
    """A dataset whose storage was checked; its values were not."""

    where: str
    shape: tuple[int, ...]
    _dataset: h5py.Dataset
    _path: Path
    _file_bytes: int

    def read(self, selection: tuple[slice, ...] = ()) -> NDArray[Any]:
        """The values of some slices without steps, all by default.

        Raises:
            DataError: they do not decode.
            StorageError: the operating system failed to read.
        """
        with _typed_errors(self._path, self.where):
            if self._dataset.chunks is not None:
                check_chunks(self._dataset, selection, self._file_bytes, self.where)
            return self._dataset[selection]


class CheckedFile:
    """An open file whose datasets and attributes are checked before they are handed out."""

    def __init__(self, file: h5py.File, path: Path) -> None:
        self.path = path
        self._file = file
        self._bytes = path.stat().st_size

    def array(self, name: str, dtypes: tuple[str, ...] = ("float32",)) -> CheckedArray:
        """A dataset of one of these types ("float32", "float64", "int64"; little-endian).

        Raises:
            DataError: there is none, it lies behind a link or in another file, has another type, is empty, or
                its declared extent does not fit the file.
            StorageError: the operating system failed to read.
        """
        where = place(self.path, name)
        with _typed_errors(self.path, where):
            dataset = self._dataset(name)
            _check_type(dataset, dtypes, where)
            shape = dataset.shape
            if not shape or 0 in shape:
                raise DataError(f"is empty: {shape}", where=where, fix="download the file again")
            self._check_storage(dataset, where)
        return CheckedArray(where, tuple(int(length) for length in shape), dataset, self.path, self._bytes)

    def has(self, name: str) -> bool:
        """Whether there is anything of this name."""
        with _typed_errors(self.path, str(self.path)):
            return name in self._file

    def number(self, attribute: str) -> float | None:
        """A numeric attribute of the file, None where it is absent.

        Raises:
            DataError: it is not one number.
        """
        with _typed_errors(self.path, str(self.path)):
            if attribute not in self._file.attrs:
                return None
            stored = self._file.attrs.get_id(attribute)
            one = stored.shape is not None and math.prod(stored.shape) == 1
            if not one or stored.dtype.kind not in "fiu":
                raise self._not(attribute, stored, "one number")
            return float(np.asarray(self._attribute(attribute)).item())

    def text(self, attribute: str) -> str | None:
        """A text attribute of the file, of fixed or variable length, None where it is absent.

        Raises:
            DataError: it is not one short text.
        """
        with _typed_errors(self.path, str(self.path)):
            if attribute not in self._file.attrs:
                return None
            stored = self._file.attrs.get_id(attribute)
            fixed = stored.dtype.kind == "S" and stored.shape == ()
            if not (fixed or is_variable_text(stored)):
                raise self._not(attribute, stored, "one text")
            value = self._attribute(attribute)
            text = np.asarray(value).item().decode() if fixed else value
            if len(text) > _TEXT_LENGTH:
                raise self._not(attribute, stored, f"a text of at most {_TEXT_LENGTH} letters")
            return text

    def _attribute(self, name: str) -> Any:
        with self.path.open("rb") as stream:
            return read_attribute(self._file, name, stream)

    def _not(self, attribute: str, stored: h5py.h5a.AttrID, wanted: str) -> DataError:
        return DataError(
            f"attribute {attribute} is {stored.dtype} of shape {stored.shape}, not {wanted}",
            where=str(self.path),
            fix="correct the attribute",
        )

    def _dataset(self, name: str) -> h5py.Dataset:
        link = self._file.get(name, getlink=True)
        if link is None:
            instead = ""
        elif not isinstance(link, h5py.HardLink):
            instead = ", only a link of that name to elsewhere"
        elif self._file.get(name, getclass=True) is not h5py.Dataset:
            instead = ", only another object of that name"
        else:
            dataset = self._file[name]
            assert isinstance(dataset, h5py.Dataset)
            return dataset
        raise DataError(
            f"has no dataset {name}{instead}; there are: {', '.join(sorted(map(_printable, self._file))) or 'none'}",
            where=str(self.path),
            fix="check that the file belongs to the problem",
        )

    def _check_storage(self, dataset: h5py.Dataset, where: str) -> None:
        creation = dataset.id.get_create_plist()
        layout = creation.get_layout()
        declared = math.prod(dataset.shape) * dataset.dtype.itemsize
        stored = dataset.id.get_storage_size()
        if layout == h5py.h5d.VIRTUAL or creation.get_external_count():
            raise DataError("keeps its values in other files", where=where, fix="copy them into one file")
        if stored == 0:
            # HDF5 reserves the space of a dataset at the first write and reads zeros until then.
            raise DataError("was announced but never written", where=where, fix="make the file again")
        if layout == h5py.h5d.CHUNKED:
            check_chunking(dataset, self._bytes, where)
            return
        begin = 0 if layout == h5py.h5d.COMPACT else dataset.id.get_offset()
        if begin is None or stored != declared or begin + declared > self._bytes:
            raise DataError(
                f"declares {declared} bytes of values for {dataset.shape}, and the file of {self._bytes} bytes "
                "does not hold them",
                where=where,
                fix="download it again and compare its MD5 with the published one",
            )


@contextlib.contextmanager
def open_checked(path: Path) -> Iterator[CheckedFile]:
    """Open a file for reading.

    Raises:
        DataError: it is absent, may not be read, is no HDF5 file, or is cut off.
        StorageError: the operating system failed to read.
    """
    if not path.is_file():
        raise DataError("there is no such file", where=str(path), fix="check the path, or download the file")
    try:
        file = h5py.File(path, "r")
    except PermissionError as error:
        raise DataError("may not be read", where=str(path), fix="check the file's permissions") from error
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise storage_error(error, path) from error
        # HDF5 compares the length of the file with the one in its header, so truncation ends here.
        raise DataError(
            f"is not a complete HDF5 file ({error})",
            where=str(path),
            fix="download it again and compare its MD5 with the published one",
        ) from error
    with file:
        yield CheckedFile(file, path)


@contextlib.contextmanager
def _typed_errors(path: Path, where: str) -> Iterator[None]:
    """Turn what h5py raises into ours: with an error number it was the system, without one the file."""
    try:
        yield
    except DataError:
        raise
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise storage_error(error, path) from error
        raise DataError(
            f"is malformed ({error})",
            where=where,
            fix="download it again and compare its MD5 with the published one",
        ) from error


def _check_type(dataset: h5py.Dataset, dtypes: tuple[str, ...], where: str) -> None:
    stored = dataset.id.get_type()
    exact = {"float32": h5py.h5t.IEEE_F32LE, "float64": h5py.h5t.IEEE_F64LE, "int64": h5py.h5t.STD_I64LE}
    if not any(stored.equal(exact[dtype]) for dtype in dtypes):
        raise DataError(
            f"values are {dataset.dtype}, the layout has {' or '.join(dtypes)} (little-endian)",
            where=where,
            fix="convert the file, or check that it is a PDEBench file",
        )


def _printable(name: str | bytes) -> str:
    """A name from the file; what is not UTF-8 h5py hands out as bytes."""
    return ascii(name)[1:-1] if isinstance(name, str) else ascii(name)
