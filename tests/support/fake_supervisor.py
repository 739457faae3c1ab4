"""The real supervisor with two small services instead of the product's: for tests of it."""

from __future__ import annotations

import sys

from infra.embedded.services import Service
from infra.embedded.supervisor import main

SERVICES = tuple(
    Service(
        name=name, module="tests.support.fake_service", port_setting="fake_port", port=0, copy=2
    )
    for name in ("one", "two")
)

if __name__ == "__main__":
    sys.exit(main(wanted=SERVICES, steps=()))
