"""Where the data that several projects share lies: recorded webhooks, language cases.

`TAILRACE_SHARED` names the folder (default: `shared` beside the checkout). A test that needs it
fails when it is absent, so that nobody believes to have run it; `none` says that this is known,
and skips it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_DEFAULT = Path(__file__).parents[3] / "shared"


def shared_folder(*parts: str) -> Path:
    """Return a folder or file of the shared data; fails or skips the test when it is not there."""
    named = os.environ.get("TAILRACE_SHARED") or str(_DEFAULT)
    if named == "none":
        pytest.skip("TAILRACE_SHARED is none: this test needs the shared data")
    found = Path(named).joinpath(*parts)
    if not found.exists():
        pytest.fail(f"{found} is missing: set TAILRACE_SHARED to the data's folder, or to none")
    return found
