"""The planner's cache of its fold on disk: a hint that may be lost, old or absent.

Without it the planner folds `events` from the beginning and comes to the same state.
"""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path

from infra.sealing import write_private
from ingest.planner.ledger import Ledger
from schemas.codec import EVENTS, CodecError
from schemas.events import RepositoryConfigured

logger = logging.getLogger(__name__)

FORMAT = 1


def save(path: Path, ledger: Ledger, log_id: str) -> None:
    """Write the fold's state as of its restart positions; whole or not at all."""
    content = {
        "format": FORMAT,
        "log": log_id,
        "positions": {str(cell): offset for cell, offset in ledger.positions().items()},
        "repositories": [
            base64.b64encode(EVENTS.encode(event)).decode()
            for event in ledger.repositories.values()
        ],
        "agreed": sorted(ledger.agreed),
    }
    write_private(path, json.dumps(content).encode())


def load(path: Path, log_id: str) -> Ledger:
    """Return the saved state, or an empty one when there is none for this log."""
    ledger = Ledger()
    try:
        content = json.loads(path.read_bytes())
        if content["format"] != FORMAT or content["log"] != log_id:
            return ledger
        for text in content["repositories"]:
            event = EVENTS.decode(base64.b64decode(text))
            if isinstance(event, RepositoryConfigured):
                ledger.repositories[event.repository] = event
        ledger.agreed = set(content.get("agreed", ()))
        ledger.next_offsets = {int(cell): at for cell, at in content["positions"].items()}
    except FileNotFoundError:
        return ledger
    except (OSError, ValueError, KeyError, TypeError, CodecError) as error:
        logger.warning("%s is not used, folding from the beginning: %s", path, error)
        return Ledger()
    return ledger
