"""Workers go on as the one file that this server gives out."""

from __future__ import annotations

from ..onefile import published
from ..protocol import API
from ..store import workers
from .answers import with_iso_times
from .call import Call, known_id
from .routes import USER, route
from .shapes import Upgrade


@route("POST", f"{API}/workers/<id:id>/upgrade", USER, "Has a worker go on as the one file of this server", answer=Upgrade)
def upgrade(call: Call, id: int) -> dict:
    """It keeps what it runs. One that is offline follows when it is back."""
    given = published()
    worker = call.write(lambda tx: with_iso_times(workers.upgrade(tx, known_id(id, "worker"), given.sha256, call.who)))
    return worker | {"to_version": given.version, "sha256": given.sha256}
