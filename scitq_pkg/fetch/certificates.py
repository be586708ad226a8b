"""Whom this machine trusts."""

from __future__ import annotations

import os
import ssl


def certificates() -> str | None:
    """The file of those whom this machine trusts, rather than that of a package; None where there is none."""
    trusted = ssl.get_default_verify_paths().cafile
    return trusted if trusted and os.path.exists(trusted) else None
