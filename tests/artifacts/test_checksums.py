"""The fast sum tells files apart that end with a crc32c of their own."""

import google_crc32c

from ups.artifacts.checksums import fast_checksum, file_checksums


def test_chunks_that_end_with_their_own_crc32c_have_different_sums(tmp_path):
    sums = []
    for content in (b"first chunk of a cache", b"other chunk of a cache"):
        path = tmp_path / content[:5].decode()
        path.write_bytes(content + google_crc32c.value(content).to_bytes(4, "little"))
        assert fast_checksum(path) == file_checksums(path).xxh3
        sums.append(fast_checksum(path))
    assert sums[0] != sums[1]
