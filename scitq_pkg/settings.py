"""The server's settings: one frozen dataclass, read once. The command line wins over `SCITQ_*`, that over the file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from .durations import EXAMPLES, seconds_of
from .errors import InvalidRequest, nearest
from .protocol import DEFAULT_PORT


def default_data() -> Path:
    """`$XDG_DATA_HOME/scitq`, or `~/.local/share/scitq`; without HOME `TMPDIR/scitq-UID/data`."""
    if base := os.environ.get("XDG_DATA_HOME"):
        return Path(base, "scitq")
    if home := os.environ.get("HOME"):
        return Path(home, ".local", "share", "scitq")
    return Path(os.environ.get("TMPDIR") or "/tmp", f"scitq-{os.getuid()}", "data")


@dataclass(frozen=True)
class Settings:
    """Everything that can be chosen about a server. Each field is an option, a variable `SCITQ_NAME` and a key of the file;
    mappings are keys of the file alone.
    """

    host: str = "127.0.0.1"  # address to listen at
    port: int = DEFAULT_PORT  # 0: any that is free
    data: Path = Path()  # directory of the database, the backups and `server.json`
    database: str = "sqlite:///"  # sqlite:///path or postgresql://...; without a path: `scitq.db` in `data`
    cert: Path | None = None  # PEM file of the certificate chain, for TLS
    key: Path | None = None  # PEM file of its private key
    no_auth: bool = False  # everybody on this machine is its administrator; loopback only
    insecure_http: bool = False  # listen to other machines without TLS
    allowed_host: tuple[str, ...] = ()  # more names by which browsers may call this server
    lost_after: float = 1800.0  # seconds of silence after which a worker's running tasks are given to others
    threads: int = 1200  # at most; they are started as long polls need them
    max_body: int = 64 * 2**20  # bytes of a request
    webhook_host: tuple[str, ...] = ("public",)  # where webhooks may go: names, globs of them, addresses, networks, `public`
    smtp: str | None = None  # host or host:port of the server that takes mail
    smtp_sender: str | None = None  # address that mail comes from
    smtp_user: str | None = None
    smtp_password_file: Path | None = None  # else its password is SCITQ_SMTP_PASSWORD
    url: str | None = None  # by which machines that are deployed reach this server; default: the one that it serves
    providers: Mapping = field(default_factory=dict)  # of machines, by name: `cloud.config` checks it
    deployment: Mapping = field(default_factory=dict)  # how machines are made and kept: `cloud.config` checks it

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted here."""
        return self.cert is not None


def load(given: Mapping[str, object], config: str | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings from what the command line gave (None: not given), the environment and the YAML file `config`.

    Raises InvalidRequest naming the option, the variable or the key of the file that is wrong.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, object] = {}
    for name, value in _from_file(config).items():
        values[name] = _converted(name, value, f"{config}: {name}")
    for name in _KINDS.keys() - NESTED:
        variable = f"SCITQ_{name.upper()}"
        if environ.get(variable):
            values[name] = _converted(name, environ[variable], variable)
    for name, value in given.items():
        if value is not None:
            values[name] = _converted(name, value, option(name))
    values.setdefault("data", default_data())
    return _checked(Settings(**values))


def option(name: str) -> str:
    """The option of the command line for a setting."""
    return "--" + name.replace("_", "-")


def _from_file(config: str | None) -> dict:
    if config is None:
        return {}
    import yaml  # only a server with a file needs it

    try:
        with open(config, encoding="utf-8") as file:
            read = yaml.safe_load(file)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{config} cannot be read: {getattr(error, 'strerror', None) or error}", field="--config") from None
    except yaml.YAMLError as error:
        raise InvalidRequest(f"{config} is not YAML: {' '.join(str(error).split())}", field="--config") from None
    if not isinstance(read, (dict, type(None))):
        raise InvalidRequest(f"{config} wants lines of `name: value`", field="--config")
    found = {str(name).replace("-", "_"): value for name, value in (read or {}).items()}
    for name in found:
        if name not in _KINDS:
            raise InvalidRequest(f"there is no setting {name!r}{nearest(name, _KINDS)}", field=config)
    return found


def _converted(name: str, value: object, where: str):
    try:
        return _CONVERTERS[_KINDS[name]](value)
    except (ValueError, TypeError, KeyError):
        raise InvalidRequest(f"cannot be {value!r:.80}: it wants {_WANTED[_KINDS[name]]}", field=where) from None


def _int(value: object) -> int:
    if isinstance(value, (bool, float)):
        raise ValueError
    return int(value)  # type: ignore[call-overload]


def _seconds(value: object) -> float:
    seconds = None if isinstance(value, bool) else seconds_of(str(value))
    if seconds is None:
        raise ValueError
    return seconds


def _bool(value: object) -> bool:
    return value if isinstance(value, bool) else _SWITCH[str(value).lower()]


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


def _path(value: object) -> Path:
    return Path(value if isinstance(value, Path) else _text(value)).expanduser().absolute()


def _names(value: object) -> tuple[str, ...]:
    words = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(words, (list, tuple)):
        raise ValueError
    return tuple(_text(word).lower() for word in words)


def _mapping(value: object) -> Mapping:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError
    return value


_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_KINDS = {f.name: str(f.type).replace(" | None", "") for f in fields(Settings)}
NESTED = frozenset(name for name, kind in _KINDS.items() if kind == "Mapping")  # of the file alone
_CONVERTERS = {
    "str": _text, "int": _int, "float": _seconds, "bool": _bool, "Path": _path, "tuple[str, ...]": _names, "Mapping": _mapping,
}  # fmt: skip
_WANTED = {
    "str": "text",
    "int": "a whole number",
    "float": f"a duration such as {EXAMPLES}",
    "bool": "true or false",
    "Path": "a path",
    "tuple[str, ...]": "names",
    "Mapping": "lines of `name: value` below it",
}


def _checked(settings: Settings) -> Settings:
    ranges = {"port": (0, 65535), "lost_after": (1, 10**9), "threads": (8, 10000), "max_body": (2**20, 2**30)}
    for name, (least, most) in ranges.items():
        if not least <= getattr(settings, name) <= most:
            raise InvalidRequest(f"{getattr(settings, name)} is not from {least} to {most}", field=option(name))
    if (settings.cert is None) != (settings.key is None):
        raise InvalidRequest("TLS wants both, --cert FILE and --key FILE", field="--cert" if settings.cert is None else "--key")
    return settings
