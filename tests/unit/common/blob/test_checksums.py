from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_common.blob.checksums import Manifest, ManifestBuilder, RangeChecker
from shoal_common.errors import DataLoss, InvalidRequest

sections = st.lists(st.binary(max_size=20), min_size=1, max_size=6)


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def build(parts: list[bytes], chunk: int = 7) -> Manifest:
    builder = ManifestBuilder("k", [len(part) for part in parts])
    for piece in cut(b"".join(parts), chunk):
        builder.feed(piece)
    return builder.finish()


@given(sections, st.integers(1, 30))
def test_every_section_has_its_own_sum_however_it_was_cut(parts: list[bytes], chunk: int) -> None:
    manifest = build(parts, chunk)
    assert manifest.sizes == [len(part) for part in parts]
    assert manifest.sums == [zlib.crc32(part) for part in parts]
    assert manifest.total == zlib.crc32(b"".join(parts))


def test_without_sections_the_blob_is_one() -> None:
    builder = ManifestBuilder("k", [])
    for piece in (b"ab", b"c"):
        builder.feed(piece)
    assert builder.finish() == Manifest([3], [zlib.crc32(b"abc")], zlib.crc32(b"abc"))


def test_a_blob_longer_or_shorter_than_its_sections_is_refused() -> None:
    builder = ManifestBuilder("k", [2, 2])
    with pytest.raises(InvalidRequest, match="longer than its sections"):
        builder.feed(b"abcde")
    builder = ManifestBuilder("k", [2, 2])
    builder.feed(b"abc")
    with pytest.raises(InvalidRequest, match="ended after 3 bytes, but its sections have 4"):
        builder.finish()


@given(sections, st.integers(1, 30), st.data())
def test_every_range_of_an_intact_blob_passes(parts: list[bytes], chunk: int, data: st.DataObject) -> None:
    blob = b"".join(parts)
    start = data.draw(st.integers(0, len(blob)))
    end = data.draw(st.integers(start, len(blob)))
    checker = RangeChecker("k", build(parts).parts(start, end - start))
    for piece in cut(blob[start:end], chunk):
        checker.feed(piece)


@given(sections.filter(any), st.integers(1, 30), st.data())
def test_a_changed_byte_is_found_exactly_where_its_section_is_read_whole(
    parts: list[bytes], chunk: int, data: st.DataObject
) -> None:
    manifest, blob = build(parts), bytearray(b"".join(parts))
    damaged = data.draw(st.integers(0, len(blob) - 1))
    blob[damaged] ^= 0x40
    start = data.draw(st.integers(0, damaged))
    end = data.draw(st.integers(damaged + 1, len(blob)))
    at, whole = 0, False
    for size in manifest.sizes:
        whole |= at <= damaged < at + size and start <= at and at + size <= end
        at += size
    checker = RangeChecker("k", manifest.parts(start, end - start))
    try:
        for piece in cut(bytes(blob[start:end]), chunk):
            checker.feed(piece)
        found = False
    except DataLoss:
        found = True
    assert found == whole
