"""Opens batches in tests."""

from __future__ import annotations

import zstandard

from runner.logs import Batch

_decompressor = zstandard.ZstdDecompressor()


def plain(batch: Batch) -> bytes:
    """Return a batch's plain block."""
    return _decompressor.decompress(batch.block)
