"""Output comes out as the lines that were printed, however the pipe cuts it."""

from __future__ import annotations

import hashlib
import itertools

from hypothesis import given
from hypothesis import strategies as st

from runner.logs import Batch, LogPacker, StreamSplitter, collapse
from runner.masking import Masker
from schemas import loglines
from tests.property.runner.packed import plain

LINES = st.lists(
    st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=30),
    max_size=20,
)


@given(lines=LINES, places=st.lists(st.integers(0, 700), max_size=15), ended=st.booleans())
def test_lines_come_out_as_printed_across_any_cut(
    lines: list[str], places: list[int], *, ended: bool
) -> None:
    """Cuts within lines and within characters change nothing; count and sha256 agree."""
    data = "\n".join(lines).encode() + (b"\n" if ended and lines else b"")
    batches: list[Batch] = []
    packer = LogPacker(Masker(), batches.append)
    splitter = StreamSplitter(packer, "o", 7, lambda line: line)
    edges = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    for number, (a, b) in enumerate(itertools.pairwise(edges)):
        splitter.feed(number, data[a:b])
        if number % 3 == 0:
            packer.flush(number)
    splitter.close(99)
    packer.flush(99)

    expected = data.decode().split("\n")
    expected = expected[:-1] if expected[-1] == "" else expected
    read = [line for batch in batches for line in loglines.lines(plain(batch), batch.first_line)]
    assert [line.text for line in read] == expected
    assert [line.number for line in read] == list(range(len(expected)))
    assert {(line.step, line.stream) for line in read} <= {(7, "o")}
    whole = "".join(f"{text}\n" for text in expected).encode()
    assert packer.digest.hexdigest() == hashlib.sha256(whole).hexdigest()
    assert (packer.lines, sum(batch.lines for batch in batches)) == (len(expected),) * 2


@given(
    runs=st.lists(
        st.builds(
            lambda t_ms, stream, step, texts, more: loglines.Run(
                t_ms, stream, step, len(texts), b"".join(t + b"\n" for t in texts), more
            ),
            st.integers(0, 1 << 45), st.sampled_from("oes"), st.integers(0, 500),
            st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\n", b"")), min_size=1,
                     max_size=5),
            st.booleans(),
        ),
        max_size=8,
    )
)  # fmt: skip
def test_runs_survive_encoding(runs: list[loglines.Run]) -> None:
    """A block is exactly its runs, whatever bytes the texts hold; the digest is of the texts."""
    block = b"".join(map(loglines.encode_run, runs))
    digest = loglines.LogDigest()
    digest.add_block(block)

    assert list(loglines.runs(block)) == runs
    assert digest.lines == sum(run.lines for run in runs)
    payload = b"".join(run.payload for run in runs)
    assert digest.hexdigest() == hashlib.sha256(payload).hexdigest()
    assert loglines.payload(block) == payload


@given(data=st.binary(max_size=200), garbage=st.binary(min_size=1, max_size=30))
def test_damaged_blocks_are_refused_or_read(data: bytes, garbage: bytes) -> None:
    """Whatever bytes come: runs, or the error of this module, and nothing else."""
    good = loglines.encode_run(loglines.Run(1, "o", 1, 1, b"text\n"))
    for block in (data, good + garbage, good[:-1]):
        try:
            list(loglines.runs(block))
        except loglines.LogLinesError:
            continue


@given(parts=st.lists(st.sampled_from(["10%", "20%", "\r", "\n", "\r\n", "x"]), max_size=30))
def test_what_a_carriage_return_overwrote_is_gone(parts: list[str]) -> None:
    r"""A line is what follows its last `\r`; `\r\n` is an end of line."""
    data = "".join(parts) + "\n"

    shown = collapse(data.encode()).decode()

    expected = [line.rstrip("\r").rpartition("\r")[2] for line in data.split("\n")]
    assert shown.split("\n") == expected
