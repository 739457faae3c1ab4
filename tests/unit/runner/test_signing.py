"""What a boot signs: every part counts, and a request counts once."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.gateway.nonces import Nonces, Verdict
from runner.signing import Asking, BootKey, Proof, verifies

ASKING = Asking("POST", "/v1/secrets?x=1", b'{"names": ["A"]}', '{"job_id": "run.j"}')
NOW_MS = 1_750_000_000_000


def proof_of(key: BootKey, asking: Asking = ASKING) -> Proof:
    """Return a proof of now."""
    return key.prove(asking, epoch="e1", time_ms=NOW_MS, nonce=b"n" * 16)


def test_what_was_signed_verifies_after_its_way_through_the_header() -> None:
    """Nothing is lost in the header's form."""
    key = BootKey()
    proof = proof_of(key)

    assert Proof.from_header(proof.to_header()) == proof
    assert verifies(key.public, ASKING, proof)


@pytest.mark.parametrize(
    "changed",
    [
        {"method": "PUT"},
        {"path": "/v1/secrets"},
        {"path": "/v1/payloads/x"},
        {"body": b'{"names": ["B"]}'},
        {"attempt": '{"job_id": "run.k"}'},
    ],
    ids=str,
)
def test_a_change_of_any_part_of_the_request_breaks_the_signature(
    changed: dict[str, str | bytes],
) -> None:
    """Method, path with its query, body and the attempt's fencing token are all signed."""
    key = BootKey()

    assert not verifies(key.public, dataclasses.replace(ASKING, **changed), proof_of(key))  # type: ignore[arg-type]


@pytest.mark.parametrize("changed", [{"epoch": "e2"}, {"time_ms": NOW_MS + 1}, {"nonce": "m" * 22}])
def test_a_change_of_the_proof_breaks_the_signature(changed: dict[str, str | int]) -> None:
    """Nobody gives an old signature a new time, nonce or gateway."""
    key = BootKey()
    proof = dataclasses.replace(proof_of(key), **changed)  # type: ignore[arg-type]

    assert not verifies(key.public, ASKING, proof)


def test_another_boots_key_verifies_nothing() -> None:
    """Every start of a runner has its own."""
    assert not verifies(BootKey().public, ASKING, proof_of(BootKey()))


@pytest.mark.parametrize("public", ["", "AAAA", "not base64!", "A" * 43 + "="])
def test_a_damaged_public_key_verifies_nothing(public: str) -> None:
    """Whatever stands in the event, nothing breaks."""
    assert not verifies(public, ASKING, proof_of(BootKey()))


@given(st.text(max_size=200))
def test_a_header_of_any_text_is_read_or_refused(text: str) -> None:
    """A stranger's header is no exception."""
    found = Proof.from_header(text)
    assert found is None or Proof.from_header(found.to_header()) == found


def test_the_private_key_is_in_no_representation() -> None:
    """What ends up in a log line tells nothing."""
    key = BootKey()

    assert "PRIVATE" not in repr(key)
    assert not hasattr(key, "__dict__")


# --------------------------------------------------------------------------- nonces


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 4_000), st.integers(-1_500, 1_500)), max_size=60
    )
)
def test_no_request_is_fresh_twice_however_the_clock_is_set(
    steps: list[tuple[int, int, int]],
) -> None:
    """Nonces come again at any later time, while the wall clock is moved about."""
    lifetime_ms = 2_000
    nonces = Nonces(lifetime_ms, entries_max=1_000)
    signed: dict[int, int] = {}
    fresh: set[int] = set()
    steady_ms, wall_ms = 0, NOW_MS
    for number, pause_ms, set_by_ms in steps:
        steady_ms += pause_ms
        wall_ms += pause_ms + set_by_ms
        time_ms = signed.setdefault(number, wall_ms)
        verdict = nonces.take(bytes([number]), time_ms, steady_ms=steady_ms)
        assert not (verdict is Verdict.FRESH and number in fresh)
        if verdict is Verdict.FRESH:
            fresh.add(number)


def test_memory_is_bounded_and_full_means_refused() -> None:
    """Nothing that may still be repeated is dropped to make room; time makes it."""
    nonces = Nonces(1_000, entries_max=3)

    first = [nonces.take(bytes([n]), NOW_MS, steady_ms=0) for n in range(5)]
    later = nonces.take(b"x", NOW_MS + 2_500, steady_ms=2_500)

    assert first == [Verdict.FRESH] * 3 + [Verdict.FULL] * 2
    assert later is Verdict.FRESH
    assert len(nonces) == 1


def test_a_nonce_is_remembered_for_its_whole_lifetime() -> None:
    """One generation is dropped only when everything in it is older."""
    nonces = Nonces(1_000)
    nonces.take(b"early", NOW_MS, steady_ms=0)
    nonces.take(b"late", NOW_MS + 999, steady_ms=999)

    assert nonces.take(b"late", NOW_MS + 999, steady_ms=1_998) is Verdict.SEEN
    assert nonces.take(b"early", NOW_MS, steady_ms=3_100) is Verdict.TOO_OLD
