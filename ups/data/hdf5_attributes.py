"""Attributes of HDF5 files that nobody has vouched for.

Numbers and text of fixed length lie in an object's header, and the HDF5 library reads them. Text of variable length,
which is what `attrs["boundary"] = "periodic"` writes, lies on a heap, and there the library believes all it reads: by
one wrong byte it goes round in circles, takes gigabytes, or crashes (HDF5 2.0, measured). So the library is only asked
what an attribute is; its bytes are taken from header and heap here, each size held against what is there.

Rejected: to refuse such text (half of all files of users have it); the library behind a stream that checks the heap
(the length of a text stands elsewhere, and gigabytes were still taken for it); a child process with limits (0.3 s each
time that a file is opened, and it cannot read what is still remote).

Source: the HDF5 file format specification, version 3.0 (sections III.E, IV.A).
"""

import io
import math
from collections.abc import Iterator
from typing import Any

import h5py
from h5py import h5o  # pyright: ignore[reportAttributeAccessIssue]  its types lack it

Bytes = io.BufferedIOBase | io.RawIOBase

_LARGEST = 1 << 16  # bytes of an attribute: what a header can hold, and of a text far more than any of ours
_LARGEST_BLOCK = 1 << 20  # of a header or heap; the library makes them of kilobytes
_MOST_BLOCKS = 64  # of a header; one that leads back to itself must end
_ATTRIBUTE, _CONTINUATION = 0x0C, 0x10  # kinds of messages in a header


def read_attribute(owner: h5py.HLObject, name: str, stream: Bytes) -> Any:
    """A number, an array of numbers, or a text: as h5py gives them.

    Args:
        owner: has the attribute.
        stream: the bytes of its file, which this moves in.

    Raises:
        ValueError: it is something else, too large, or damaged.
        OSError, RuntimeError, KeyError: the library or the system failed to read it.
    """
    stored = owner.attrs.get_id(name)
    if is_variable_text(stored):
        address = h5o.get_info(owner.id).addr
        return _variable_text(stream, owner.file, address, name.encode()).decode()
    if stored.dtype.kind not in "biufS":
        raise ValueError(f"attribute {name} is {stored.dtype}, neither numbers nor one text")
    if stored.shape is not None and math.prod(stored.shape) * stored.dtype.itemsize > _LARGEST:
        raise ValueError(f"attribute {name} of shape {stored.shape} is larger than {_LARGEST} bytes")
    return owner.attrs[name]


def is_variable_text(stored: h5py.h5a.AttrID) -> bool:
    """Whether an attribute is one text of variable length."""
    kind = stored.get_type()
    return stored.shape == () and isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str()


def _variable_text(stream: Bytes, file: h5py.File, address: int, name: bytes) -> bytes:
    creation = file.id.get_create_plist()
    if creation.get_sizes() != (8, 8) or creation.get_userblock():
        raise ValueError(
            "text of variable length is read from files with addresses of 8 bytes from their start only"
        )
    for kind, message in _messages(stream, address):
        if kind == _ATTRIBUTE and (found := _named(message, name)) is not None:
            length, heap, index = _number(found[:4]), _number(found[4:12]), _number(found[12:16])
            return _on_heap(stream, heap, index, length).rstrip(b"\0") if length else b""
    raise ValueError(
        f"attribute {name.decode()} is not in the header of its object, for there are many: write it as numpy.bytes_"
    )


def _messages(stream: Bytes, address: int) -> Iterator[tuple[int, bytes]]:
    """Kinds and contents of the messages of an object's header, of the old format or the new one."""
    head = _read(stream, address, 16)
    new = head.startswith(b"OHDR")
    if new:
        flags = head[5]
        prefix = 6 if flags & 4 else 4
        # Four times of 4 bytes and two numbers of 2, where they are stored.
        at = address + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        blocks = [(at + width, _number(_read(stream, at, width)))]
    else:
        blocks, prefix = [(address + 16, _number(head[8:12]))], 8
    for begin, size in blocks:
        block, at = _read(stream, begin, size), 0
        while at + prefix <= len(block):
            kind = block[at] if new else _number(block[at : at + 2])
            length = _number(block[at + 1 : at + 3] if new else block[at + 2 : at + 4])
            message = block[at + prefix : at + prefix + length]
            if kind == _CONTINUATION:
                following, long = _number(message[:8]), _number(message[8:16])
                # A new block stands between its signature and its sum, of 4 bytes each.
                blocks.append((following + 4, long - 8) if new else (following, long))
                if len(blocks) > _MOST_BLOCKS:
                    raise ValueError("the header of an object leads back to itself")
            yield kind, message
            at += prefix + length


def _named(message: bytes, name: bytes) -> bytes | None:
    """The value of an attribute's message, if it has this name."""
    version = _number(message[:1])
    start = 9 if version == 3 else 8
    sizes = [_number(message[at : at + 2]) for at in (2, 4, 6)]  # name, type, extent
    if message[start : start + sizes[0]].rstrip(b"\0") != name:
        return None
    # The first version fills all three up to eight bytes.
    return message[start + sum(_filled(size) if version == 1 else size for size in sizes) :]


def _on_heap(stream: Bytes, address: int, wanted: int, length: int) -> bytes:
    """The first bytes of an object of a global heap."""
    head = _read(stream, address, 16)
    heap = _read(stream, address, _number(head[8:16])) if head.startswith(b"GCOL") else b""
    at = 16
    while at + 16 <= len(heap):
        index, size = _number(heap[at : at + 2]), _number(heap[at + 8 : at + 16])
        if index == wanted and length <= min(size, _LARGEST) and at + 16 + size <= len(heap):
            return heap[at + 16 : at + 16 + length]
        if index in {0, wanted}:  # 0: what follows is free
            break
        at += 16 + _filled(size)
    raise ValueError("a text of variable length is not where its attribute says: the file is damaged")


def _read(stream: Bytes, begin: int, count: int) -> bytes:
    if not 0 <= count <= _LARGEST_BLOCK or begin >= 1 << 63:
        raise ValueError(f"{count} bytes are declared at {begin}: the file is damaged")
    stream.seek(begin)
    content = bytearray(count)
    if (
        here := stream.readinto(content)
    ) != count:  # as h5py reads, so that a remote file knows what is asked for
        raise ValueError(f"{count} bytes are declared at {begin}, and the file has {here}: it is damaged")
    return bytes(content)


def _number(content: bytes) -> int:
    return int.from_bytes(content, "little")


def _filled(size: int) -> int:
    return (size + 7) // 8 * 8
