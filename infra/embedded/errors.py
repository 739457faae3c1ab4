"""What can go wrong with the embedded default; the text of each error tells the user what to do."""

from __future__ import annotations


class EmbeddedError(Exception):
    """The embedded Kafka, PostgreSQL or supervisor cannot do what was asked.

    The message is shown to the user as it is: it says what failed, where, and what to do.
    """


class ChecksumError(EmbeddedError):
    """A fetched file is not the file that this version of Tailrace was made with."""


class DownloadError(EmbeddedError):
    """A file could not be fetched: no network, a proxy in between, or a server that refuses."""


class JavaMissingError(EmbeddedError):
    """No Java 17 or newer was found, and its replacement is not installed."""


class StartError(EmbeddedError):
    """A process did not come up; the message holds the last lines of its log."""


class PortTakenError(EmbeddedError):
    """A port that the user's settings fix is used by another program."""


class DiskFullError(EmbeddedError):
    """There is less free space than the next step needs."""
