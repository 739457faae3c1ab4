"""Field types that say more to Avro than Python's own: the only place that marks logical types."""

from __future__ import annotations

from typing import Annotated

#: Milliseconds since the epoch; an Avro `timestamp-millis`.
Millis = Annotated[int, "timestamp-millis"]
