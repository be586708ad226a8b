"""Tokens: how one is made and hashed, what each role reaches, and the file where a user's own commands find theirs."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator

from .address import is_loopback, join_url, server_url, split_url
from .errors import InvalidRequest, NotAllowed

TOKEN_PREFIX = "scitq_"
TOKEN_BYTES = 32
TOKENS_FILE = "tokens.json"

# What the holder of each role may use. Whatever is not written here is denied.
REACH = {
    "admin": frozenset({"admin", "user"}),
    "user": frozenset({"user"}),
    "worker": frozenset({"worker"}),
}


def new_token() -> str:
    """A token nobody can guess: `scitq_` and 32 random bytes in base64url (43 characters)."""
    import base64  # only a server makes tokens

    return TOKEN_PREFIX + base64.urlsafe_b64encode(os.urandom(TOKEN_BYTES)).rstrip(b"=").decode()


def hash_token(token: str) -> str:
    """The SHA-256 of a token, in hex: what a server stores. A token is random, so a slow hash would protect nothing more."""
    import hashlib  # only a server hashes tokens

    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def permits(role: str | None, wanted: str | None) -> bool:
    """Whether `role` (None: nobody known) may use what is open to `wanted` (None: open to all). Unknown roles may nothing."""
    if wanted is None:
        return True
    return wanted in REACH.get(role or "", frozenset())


def find_token(server: str | None = None, token: str | None = None) -> str | None:
    """The token to show to a server: the one given, else `$SCITQ_TOKEN`, else the one of this user's tokens file, else None."""
    return token or os.environ.get("SCITQ_TOKEN") or load_tokens().get(token_key(server))


def token_key(server: str | None) -> str:
    """The name of a server in the tokens file: its URL, where all names of this machine's loopback are `localhost`."""
    scheme, host, port, path = split_url(server_url(server))
    if is_loopback(host) or host in ("0.0.0.0", "::"):
        host = "localhost"
    return join_url(scheme, host, port, path)


def config_directory() -> str:
    """`$SCITQ_CONFIG`, else `$XDG_CONFIG_HOME/scitq`, else `~/.config/scitq`; without HOME `TMPDIR/scitq-UID`."""
    if named := os.environ.get("SCITQ_CONFIG"):
        return named
    if base := os.environ.get("XDG_CONFIG_HOME"):
        return os.path.join(base, "scitq")
    if home := os.environ.get("HOME"):
        return os.path.join(home, ".config", "scitq")
    return os.path.join(os.environ.get("TMPDIR") or "/tmp", f"scitq-{os.getuid()}")


def load_tokens() -> dict[str, str]:
    """The tokens of this user by `token_key`; empty without a file. Raises NotAllowed if others could read or have written it."""
    path = os.path.join(config_directory(), TOKENS_FILE)
    try:
        file = open(path, encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except PermissionError as error:
        raise NotAllowed(f"the tokens file {path} cannot be read: {error.strerror}") from None
    with file:
        _check_private(path, os.fstat(file.fileno()))
        text = file.read()
    try:
        tokens = json.loads(text)
    except ValueError:
        tokens = None
    if not isinstance(tokens, dict) or not all(isinstance(value, str) for value in tokens.values()):
        raise InvalidRequest(f"the tokens file {path} is not what scitq wrote: move it away and give the token with SCITQ_TOKEN")
    return tokens


def save_token(server: str, token: str) -> str:
    """Keeps the token of a server in the tokens file (0600, replaced in one step); the path of the file."""
    return _change_tokens(lambda tokens: tokens.update({token_key(server): token}))


def forget_token(server: str) -> str:
    """Removes a server's token from the tokens file; the path of the file."""
    return _change_tokens(lambda tokens: tokens.pop(token_key(server), None))


def _change_tokens(change) -> str:
    from .durable import write_whole  # only writers need it

    directory = config_directory()
    os.makedirs(directory, mode=0o700, exist_ok=True)
    _check_private(directory, os.lstat(directory), others_may_read=True)
    path = os.path.join(directory, TOKENS_FILE)
    with _locked(os.path.join(directory, "tokens.lock")):
        tokens = load_tokens()
        change(tokens)
        write_whole(path, json.dumps(tokens, indent=1).encode() + b"\n", 0o600)
    return path


def _check_private(path: str, status: os.stat_result, others_may_read: bool = False) -> None:
    """Raises NotAllowed for what another user owns, could change or (a file) read. The superuser may use anybody's."""
    if status.st_uid != os.getuid() and os.getuid() != 0:
        raise NotAllowed(f"{path} belongs to another user: set SCITQ_CONFIG to a directory of yours")
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return  # a link of ours: what it leads to is checked when it is opened
    if mode & (0o022 if others_may_read else 0o077):
        raise NotAllowed(f"{path} is open to other users (mode {mode:o}): chmod {'go-w' if others_may_read else '600'} {path}")


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    import fcntl  # only writers lock

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
