"""Typed values of a YAML file that is written by hand: every error says file and line, and nothing of the file is ever run."""

from __future__ import annotations

import os
from dataclasses import dataclass

import yaml

from .durations import EXAMPLES, seconds_of
from .errors import InvalidRequest, nearest
from .substitution import Cells, substitute, substituted

MOST_BYTES = 16 * 2**20  # which take a minute to read
_MOST_NODES = 20_000_000
_YAML_TAG = "tag:yaml.org,2002:"
_TRUTH = yaml.SafeLoader.bool_values  # yes, no, true, false, on, off


def compose(path: str) -> yaml.Node:
    """The nodes of a YAML file, with their lines: nothing of it is ever constructed or run."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size > MOST_BYTES:
                raise InvalidRequest(f"{path} is larger than {MOST_BYTES >> 20} MiB: put its rows into a table, for `each`")
            node = yaml.compose(file, Loader=yaml.SafeLoader)
        if node is not None:
            _refuse_bombs(path, node)
    except OSError as error:
        raise InvalidRequest(f"the batch file {path} cannot be read: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        told = " ".join((error.problem or error.context).split())
        if told.startswith("but "):
            told = f"{error.context}, {told}"
        hint = ": inside [ ] a value with { } needs quotes" if told.endswith("but got '{'") else ""
        raise InvalidRequest(f"{path}:{mark.line + 1 if mark else 1}: {told}{hint}") from None
    except (yaml.YAMLError, UnicodeError) as error:
        raise InvalidRequest(f"{path}: this is not YAML text ({getattr(error, 'reason', error)})") from None
    except RecursionError:
        raise InvalidRequest(f"{path}: lists and mappings are nested too deeply") from None
    if node is None:
        raise InvalidRequest(f"{path}: the file is empty: `tasks` or `command` is expected")
    _refuse_tags(path, node)
    return node


def _refuse_tags(path: str, top: yaml.Node) -> None:
    """Only what YAML itself makes of plain text will do: nothing acts on another tag, and who writes one expects that."""
    seen, left = set(), [top]
    while left:
        node = left.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if not node.tag.startswith(_YAML_TAG) or "/" in node.tag:
            raise wrong_at(path, node, f"tags such as {node.tag!r} mean nothing here")
        if isinstance(node, yaml.SequenceNode):
            left += node.value
        elif isinstance(node, yaml.MappingNode):
            left += [part for pair in node.value for part in pair]


def _refuse_bombs(path: str, top: yaml.Node) -> None:
    """An alias stands for all of its anchor: a few lines could mean more than any memory holds, or never end."""
    sizes: dict[int, int] = {}  # 0: it is being looked at

    def size(node: yaml.Node) -> int:
        found = sizes.get(id(node))
        if found == 0:
            raise wrong_at(path, node, "an alias stands within its own anchor")
        if found is None:
            sizes[id(node)] = 0
            parts = [] if isinstance(node, yaml.ScalarNode) else node.value
            sizes[id(node)] = found = 1 + sum(sum(map(size, part)) if isinstance(part, tuple) else size(part) for part in parts)
            if found > _MOST_NODES:
                raise wrong_at(path, node, f"with its aliases this means more than {_MOST_NODES:,} values")
        return found

    size(top)


def mapping(path: str, node: yaml.Node, known: dict, what: str, such: str = "command") -> dict[str, yaml.Node]:
    """The keys of a mapping and their nodes; keys written as in `launch` (`run-timeout`) are the same. `such` is one of them."""
    if not isinstance(node, yaml.MappingNode):
        raise wrong_at(path, node, f"{what} must be a mapping of keys such as `{such}: ...`, not {kind_of(node)}")
    found: dict[str, yaml.Node] = {}
    for key, value in node.value:
        name = str(key.value).replace("-", "_") if isinstance(key, yaml.ScalarNode) else kind_of(key)
        if name == "<<":
            raise wrong_at(path, key, "mappings are not merged (<<) here: what is common belongs under `defaults`")
        if name not in known:
            raise wrong_at(path, key, f"unknown key '{name:.60}'{nearest(name, known)}")
        if name in found:
            raise wrong_at(path, key, f"'{name}' is given twice")
        found[name] = value
    return found


@dataclass(slots=True)
class Value:
    """The value of one key, for one row: a method for each kind that the schema names. None: as if it were not given."""

    path: str
    key: str
    node: yaml.Node
    row: Cells

    def read(self, described: dict):
        return getattr(self, described["$ref"].rpartition("/")[2])()

    def wrong(self, message: str) -> InvalidRequest:
        return wrong_at(self.path, self.node, message)

    def text(self) -> str | None:
        """As it is written in the file: 007 and 1.10 keep their zeros."""
        if not isinstance(self.node, yaml.ScalarNode):
            hint = ": a value that starts with { needs quotes" if isinstance(self.node, yaml.MappingNode) else ""
            raise self.wrong(f"`{self.key}` must be text, not {kind_of(self.node)}{hint}")
        if self.node.tag == _YAML_TAG + "null":
            return None
        try:
            return substitute(self.node.value, self.row)
        except InvalidRequest as error:
            raise self.wrong(error.message) from None

    def texts(self) -> list[str] | None:
        if isinstance(self.node, yaml.SequenceNode):
            return [text for node in self.node.value for text in Value(self.path, self.key, node, self.row)._several() or ()]
        return self._several()

    def _several(self) -> list[str] | None:
        """One text of the file, which may stand for the several values of a name."""
        return None if self.text() is None else substituted(self.node.value, self.row)

    def number(self) -> int | None:
        text = self.text()
        if text is None:
            return None
        try:
            return int(text)
        except ValueError:
            raise self.wrong(f"`{self.key}` must be a whole number, not {text!r:.60}") from None

    def numbers(self) -> list[int] | None:
        if isinstance(self.node, yaml.SequenceNode):
            values = (Value(self.path, self.key, node, self.row).number() for node in self.node.value)
            return [value for value in values if value is not None]
        number = self.number()
        return None if number is None else [number]

    def flag(self) -> bool | None:
        text = self.text()
        if text is None:
            return None
        if text.lower() not in _TRUTH:
            raise self.wrong(f"`{self.key}` must be true or false, not {text!r:.60}")
        return _TRUTH[text.lower()]

    def shell(self) -> str | None:
        text = self.text()
        if text in (None, "sh", "bash"):
            return text
        if text.lower() not in _TRUTH:
            raise self.wrong(f"`{self.key}` must be true, false, sh or bash, not {text!r:.60}")
        return "sh" if _TRUTH[text.lower()] else None

    def duration(self) -> float | None:
        """Seconds."""
        text = self.text()
        if text is None:
            return None
        seconds = seconds_of(text)
        if seconds is None:
            raise self.wrong(f"`{self.key}` must be a duration such as {EXAMPLES}, not {text!r:.60}")
        return seconds

    def texts_by_name(self) -> dict[str, str]:
        """A mapping of names to texts, in its order. Raises InvalidRequest for a name that is given twice."""
        return {
            name: Value(self.path, f"{self.key}: {name}", node, self.row).text() or ""
            for name, (_, node) in self.pairs().items()
        }

    def lists_by_name(self) -> dict[str, list[str]]:
        """A mapping of names to one text or several."""
        return {
            name: Value(self.path, f"{self.key}: {name}", node, self.row).texts() or []
            for name, (_, node) in self.pairs().items()
        }

    def pairs(self) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """A mapping of names to the nodes of key and value, in its order.

        Raises InvalidRequest for a name that is given twice.
        """
        if not isinstance(self.node, yaml.MappingNode):
            raise self.wrong(f"`{self.key}` must be a mapping of names to values, not {kind_of(self.node)}")
        found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, node in self.node.value:
            name = Value(self.path, self.key, key, self.row).text() or ""
            if name in found:
                raise wrong_at(self.path, key, f"'{name}' is given twice")
            found[name] = key, node
        return found


def wrong_at(path: str, node: yaml.Node, message: str) -> InvalidRequest:
    return InvalidRequest(f"{path}:{line_of(node)}: {message}")


def line_of(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def kind_of(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return "nothing" if node.tag == _YAML_TAG + "null" else f"the text {node.value!r:.40}"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
