"""`fasp://user@host/path`: IBM Aspera, through its program ascp where it is installed; files to fetch only."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import TransferFailed
from .programs import program, run
from .progress import Meter
from .scheme import Entry, Scheme
from .uri import Uri

PORT = "33001"  # of the European Nucleotide Archive, https://ena-docs.readthedocs.io/en/latest/retrieval/file-download.html
RATE = "300m"
_HOW = "get IBM Aspera Connect or the aspera-cli package, or choose another transport"
_KEYS = (
    "~/.aspera/connect/etc/asperaweb_id_dsa.openssh",
    "~/.aspera/connect/etc/aspera_tokenauth_id_rsa",
    "~/.aspera/sdk/aspera_bypass_rsa.pem",
    "/etc/asperaweb_id_dsa.openssh",
)


class Place(Scheme):
    """Hosts that speak fasp. They tell nothing of a file before it is fetched."""

    streams = 1
    files = 2

    def info(self, uri: Uri) -> Entry:
        return Entry(uri, uri.name)

    def fetch(self, entry: Entry, part: Path, meter: Meter) -> bool:
        parts = entry.uri.address
        if not parts.username or entry.uri.place.startswith("-"):  # which ascp would take for an option
            raise TransferFailed(f"{entry.uri}: it wants a user and a host: fasp://user@host/path")
        words = [
            program("ascp", _HOW), "-q", "-T", "-k", "1", "-l", RATE, "-P", str(parts.port or PORT), "-i", _key(),
            f"{parts.username}@{parts.hostname}:{parts.path}", str(part),
        ]  # fmt: skip
        run(words, lambda: part.stat().st_size if part.exists() else 0, meter)
        return True


def _key() -> str:
    """The key that public archives accept: `ASPERA_SCP_KEY`, or where Aspera's own packages put it."""
    given = os.environ.get("ASPERA_SCP_KEY")
    for path in [given] if given else _KEYS:
        if os.path.exists(os.path.expanduser(path)):
            return os.path.expanduser(path)
    raise TransferFailed("Aspera's key is not here: set ASPERA_SCP_KEY to the file of asperaweb_id_dsa.openssh")
