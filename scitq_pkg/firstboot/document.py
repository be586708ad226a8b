"""Mappings become the text of a cloud-init document, and of a file of variables that systemd and shells read alike."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from ..errors import InvalidRequest

HEADER = "#cloud-config\n"


def dumped(document: Mapping) -> str:
    """The document, without its empty parts; texts of several lines as they are, to be read by whoever looks at it."""
    kept = {key: value for key, value in document.items() if value}
    return HEADER + yaml.dump(kept, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=130)


def environment_file(values: Mapping[str, str]) -> str:
    """`NAME="value"` lines. Raises InvalidRequest for a value that is not one line of text."""
    return "".join(f'{name}="{_quoted(name, value)}"\n' for name, value in values.items())


def _quoted(name: str, value: str) -> str:
    if not value.isprintable():
        raise InvalidRequest(f"{value!r:.80} is no text of one line", field=name)
    return "".join(f"\\{letter}" if letter in '\\"$`' else letter for letter in value)


class _Dumper(yaml.SafeDumper):
    """YAML of JSON values."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
