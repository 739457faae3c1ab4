"""No secret passes the masker, however it is written and wherever the output is cut."""

from __future__ import annotations

import base64
import itertools
import json
import shlex
import string
from urllib.parse import quote, quote_plus

from hypothesis import example, given
from hypothesis import strategies as st

from runner.logs import LogPacker, StreamSplitter
from runner.masking import Masker, patterns_of
from schemas import loglines
from tests.property.runner.packed import plain

#: A `*` could put a secret together again out of masks; nobody's secret is made of asterisks.
ALPHABET = string.ascii_letters + string.digits + " \"'\\$&+/=%é√\t"
SECRETS = st.text(ALPHABET, min_size=6, max_size=40).filter(lambda text: len(text.strip()) >= 6)
AROUND = st.binary(max_size=30).filter(lambda data: b"*" not in data)
ENCODINGS = (
    lambda data: data,
    base64.b64encode,
    base64.urlsafe_b64encode,
    lambda data: base64.b64encode(base64.b64encode(data)),
    lambda data: data.hex().encode(),
    lambda data: data.hex().upper().encode(),
    lambda data: quote(data).encode(),
    lambda data: quote(data, safe="").encode(),
    lambda data: quote_plus(data).encode(),
    lambda data: json.dumps(data.decode())[1:-1].encode(),
    lambda data: json.dumps(data.decode(), ensure_ascii=False)[1:-1].encode(),
    lambda data: shlex.quote(data.decode()).encode(),
)


def shipped(masker: Masker, chunks: list[bytes]) -> bytes:
    """Return everything that leaves the runner when a step prints these chunks."""
    sent: list[bytes] = []
    packer = LogPacker(masker, lambda batch: sent.append(plain(batch)))
    splitter = StreamSplitter(packer, "o", 1, lambda line: line)
    for chunk in chunks:
        splitter.feed(0, chunk)
    splitter.close(0)
    packer.flush(0)
    return b"".join(loglines.payload(block) for block in sent)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Return the data in pieces."""
    edges = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(
    secrets=st.lists(SECRETS, min_size=1, max_size=4),
    encoding=st.sampled_from(ENCODINGS),
    before=AROUND,
    after=AROUND,
    places=st.lists(st.integers(0, 500), max_size=12),
)
def test_no_encoding_of_a_secret_leaves_across_any_cut(
    secrets: list[str], encoding: object, before: bytes, after: bytes, places: list[int]
) -> None:
    """Printed in any usual form, between anything, in any pieces: it does not come out."""
    assert callable(encoding)
    masker = Masker(secrets)
    for secret in secrets:
        written = encoding(secret.encode())
        out = shipped(masker, cut(before + written + after + b"\n", places))

        assert written not in out


@given(secret=SECRETS, prefix=st.binary(max_size=7), suffix=st.binary(max_size=7))
def test_base64_of_a_text_around_a_secret_hides_its_core(
    secret: str, prefix: bytes, suffix: bytes
) -> None:
    """At each of the three shifts: what the secret alone determines is never whole."""
    encoded = base64.b64encode(prefix + secret.encode() + suffix)
    shift = len(prefix) % 3
    start = (len(prefix) * 8 + 5) // 6
    end = (len(prefix) + len(secret.encode())) * 8 // 6

    out = shipped(Masker([secret]), [encoded + b"\n"])

    assert shift in (0, 1, 2)
    assert encoded[start:end] not in out


@given(
    lines=st.lists(
        st.text(ALPHABET.replace("\t", ""), min_size=4, max_size=20), min_size=2, max_size=5
    ),
    places=st.lists(st.integers(0, 200), max_size=6),
)
def test_every_line_of_a_multi_line_secret_is_masked(lines: list[str], places: list[int]) -> None:
    """A key file printed as it is shows none of its lines of 4 bytes and more."""
    lines = [line for line in lines if len(line.strip()) >= 4] or ["abcd"]
    secret = "\n".join(lines)

    out = shipped(Masker([secret]), cut(secret.encode() + b"\n", places))

    for line in lines:
        assert line.encode() not in out


@given(
    secrets=st.lists(st.text("ab", min_size=3, max_size=8), min_size=1, max_size=4),
    data=st.text("abc", max_size=80),
    places=st.lists(st.integers(0, 80), max_size=8),
)
@example(secrets=["aba", "bab"], data="ababab", places=[2, 4])
def test_overlapping_secrets_hide_each_other(
    secrets: list[str], data: str, places: list[int]
) -> None:
    """Secrets that share bytes are all hidden, not only the first to match."""
    out = shipped(Masker(secrets), cut(data.encode() + b"\n", places))

    for secret in secrets:
        assert secret.encode() not in out


@given(secret=st.text("xyz", min_size=6, max_size=30), at=st.integers(60_000, 140_000))
def test_a_secret_in_a_very_long_line_is_masked_where_the_line_is_cut(secret: str, at: int) -> None:
    """A line over 64 KiB is continued, and never cut within a secret."""
    data = b"." * at + secret.encode() + b"." * 70_000 + b"\n"

    out = shipped(Masker([secret]), cut(data, [30_000, 65_536, 90_000, 131_072]))

    assert secret.encode() not in out.replace(b"\n", b"")
    assert out.replace(b"\n", b"").replace(b"***", b"") == data.replace(
        secret.encode(), b""
    ).replace(b"\n", b"")


@given(secret=SECRETS)
def test_patterns_never_span_lines(secret: str) -> None:
    """Lines are masked by themselves, so no pattern may hold a newline, and none may be empty."""
    for pattern in patterns_of(secret + "\n" + secret):
        assert pattern
        assert b"\n" not in pattern
