"""The verbs of `scitq manage task` that change tasks: each shows what it will do before it does."""

from __future__ import annotations

import re
import sys
from argparse import SUPPRESS

from ...errors import InvalidRequest, nearest
from ...lib.server import RESET, Server
from ...uris import uris
from ..options import duration, pair, whole_number
from ..parser import Parser, one_of
from . import selection, tables
from .verbs import Verb

_SIGNALS = ("suspend", "resume", "term", "kill")
_NUMBERS = ("uid", "gid", "priority", "retry")
_TIMES = ("download_timeout", "run_timeout")
_LISTS = ("input", "resource", "require", "env")
_TEXTS = ("command", "name", "batch", "container", "container_options", "output", "workdir")
_CHOICES = {"shell": ("sh", "bash"), "use_cache": ("yes", "no")}
FIELDS = (*_TEXTS, *_LISTS, *_NUMBERS, *_TIMES, *_CHOICES)
_RED, _GREEN, _PLAIN = "\x1b[31m", "\x1b[32m", "\x1b[0m"


def value_of(name: str, texts: list[str]):
    """The value of a field of a task from the words of the command line; an empty one sets it back. Raises InvalidRequest."""
    option = f"--{name.replace('_', '-')}"
    if texts == [""] and name != "command":
        return RESET
    if name == "env":
        return dict(pair(text, option) for text in texts)
    if name == "require":
        return [whole_number(word, option, 1) for text in texts for word in text.replace(",", " ").split()]
    if name in ("input", "resource"):
        return [uri for text in texts for uri in uris(text)]
    if len(texts) > 1:
        raise InvalidRequest(f"{option} is given twice")
    if name in _NUMBERS:
        return whole_number(texts[0], option, None if name == "priority" else 0)
    if name in _TIMES:
        return duration(texts[0], option)
    if name in _CHOICES and texts[0] not in _CHOICES[name]:
        raise InvalidRequest(
            f"{option} cannot be {texts[0]!r:.60}{nearest(texts[0], _CHOICES[name])}: {' or '.join(_CHOICES[name])}"
        )
    return texts[0] == "yes" if name == "use_cache" else texts[0]


# --- relaunch, cancel, delete, signal -------------------------------------------------------------------------------------


def _options(parser: Parser) -> None:
    selection.add_filters(parser)
    selection.add_yes(parser)


def _relaunch(server: Server, arguments) -> int:
    return selection.change("relaunch", server.tasks_relaunch, arguments)


def _cancel(server: Server, arguments) -> int:
    return selection.change("cancel", server.tasks_cancel, arguments)


def _delete(server: Server, arguments) -> int:
    return selection.change("delete", server.tasks_delete, arguments)


def _signal_options(parser: Parser) -> None:
    parser.add_argument("action", type=one_of(_SIGNALS, "action"), metavar="ACTION", help="|".join(_SIGNALS))
    _options(parser)


def _signal(server: Server, arguments) -> int:
    return selection.change(arguments.action, server.tasks_signal, arguments, action=arguments.action)


# --- update: some tasks get new properties ------------------------------------------------------------------------------


def _update_options(parser: Parser) -> None:
    selection.add_ids_and_name(parser)
    add = parser.add_argument_group("what is changed (an empty value sets back to the default)").add_argument
    for names, key, value, about in (
        ("-c --command", "command", "COMMAND", "the command"),
        ("-N --new-name", "name", "NAME", "the name"),
        ("-b --batch", "batch", "BATCH", "the batch"),
        ("-d --container --docker", "container", "IMAGE", "the image it runs in"),
        ("-O --container-options --option", "container_options", "OPTIONS", "more options for the container, as one word"),
        ("-j --input", "input", "URI", "what is fetched into $INPUT (repeatable)"),
        ("-r --resource", "resource", "URI", "what is fetched once per worker (repeatable)"),
        ("-o --output", "output", "URI", "where $OUTPUT is copied to"),
        ("-R --require --requirements", "require", "ID", "the tasks that must succeed first (repeatable, or 3,5)"),
        ("-u --uid", "uid", "UID", "the user that runs it (a number)"),
        ("-g --gid", "gid", "GID", "the group that runs it (a number)"),
        ("--env", "env", "KEY=VALUE", "its variables, all of them (repeatable)"),
        ("--workdir", "workdir", "DIRECTORY", "where it runs, on the worker"),
        ("--shell", "shell", "sh|bash", "the shell that runs it"),
        ("--retry", "retry", "N", "failures that are tried again"),
        ("--priority", "priority", "N", "higher ones go first"),
        ("--download-timeout", "download_timeout", "TIME", "the longest its inputs may take"),
        ("--run-timeout", "run_timeout", "TIME", "the longest its command may take"),
        ("--use-cache", "use_cache", "yes|no", "whether results of an equal task are taken"),
    ):
        add(*names.split(), dest=f"new_{key}", action="append", metavar=value, help=about, default=SUPPRESS)
    parser.add_argument("--relaunch", action="store_true", help="queue the ended ones again")
    selection.add_yes(parser)


def _update(server: Server, arguments) -> int:
    given = {key[4:]: value for key, value in vars(arguments).items() if key.startswith("new_")}
    changed = {name: value_of(name, texts) for name, texts in given.items()}
    if not changed and not arguments.relaunch:
        raise InvalidRequest("update changes nothing: give at least one property (-h lists them)")
    body = {"relaunch": arguments.relaunch} | ({"set": changed} if changed else {})
    return selection.change("update", server.tasks_edit, arguments, **body)


# --- edit: many tasks at once, with a diff --------------------------------------------------------------------------------


def _edit_options(parser: Parser) -> None:
    selection.add_filters(parser)
    add = parser.add_argument_group("what is changed").add_argument
    add(
        "--sub",
        metavar="s/OLD/NEW/",
        help="replace a Python regular expression in each command; s/OLD/NEW/g: everywhere in it, i: any case",
    )
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="set a field (repeatable): " + ", ".join(FIELDS))
    add("--relaunch", action="store_true", help="queue the ended ones again")
    selection.add_yes(parser)


def _edit(server: Server, arguments) -> int:
    body: dict = {"relaunch": arguments.relaunch}
    if arguments.sub is not None:
        body["sub"] = substitution(arguments.sub)
    if arguments.set:
        body["set"] = fields_of(arguments.set)
    if len(body) == 1:
        raise InvalidRequest("edit changes nothing: give --sub 's/OLD/NEW/' or --set FIELD=VALUE")
    none = "no task passes the filter and has a command that this changes"
    return selection.change("edit", server.tasks_edit, arguments, _show_changes, none, **body)


def fields_of(words: list[str]) -> dict:
    """The fields that several FIELD=VALUE mean. Raises InvalidRequest."""
    texts: dict[str, list[str]] = {}
    for word in words:
        name, text = pair(word, "--set")
        name = name.replace("-", "_")
        if name not in FIELDS:
            raise InvalidRequest(
                f"a task has no field '{name}'{nearest(name, FIELDS)}; there are {', '.join(FIELDS)}", field="--set"
            )
        texts.setdefault(name, []).append(text)
    return {name: value_of(name, found) for name, found in texts.items()}


def substitution(text: str) -> tuple[str, str, int]:
    """Pattern, replacement and count (0: all) of `s/OLD/NEW/`, as sed reads it: any sign may be in the place of `/`.

    The pattern and the replacement are Python's (`\\1`, `\\g<0>`). Raises InvalidRequest.
    """
    wrong = f"--sub wants s/OLD/NEW/ (then g for everywhere, i for any case), not {text!r:.80}"
    if len(text) < 4 or text[0] != "s" or text[1].isalnum() or text[1] in "\\ \n":
        raise InvalidRequest(wrong)
    mark = re.escape(text[1])
    found = re.fullmatch(rf"s{mark}((?:\\.|(?!{mark}).)+){mark}((?:\\.|(?!{mark}).)*){mark}([gi]*)", text, re.DOTALL)
    if found is None:
        raise InvalidRequest(wrong)
    pattern, replacement = (part.replace(f"\\{text[1]}", text[1]) for part in found.group(1, 2))
    return ("(?i)" if "i" in found[3] else "") + pattern, replacement, 0 if "g" in found[3] else 1


def _show_changes(answer: dict) -> None:
    """Every command that changes, before and after."""
    red, green, plain = (_RED, _GREEN, _PLAIN) if sys.stdout.isatty() else ("", "", "")
    for one in answer.get("changes", ()):
        print(f"task {one['id']}")
        for sign, colour, text in (("-", red, one["before"]), ("+", green, one["after"])):
            for line in text.split("\n"):
                print(f"{colour}{sign} {tables.safe(line)}{plain}")


VERBS = (
    Verb("task", "relaunch", "queue ended tasks again", _options, _relaunch),
    Verb("task", "cancel", "take tasks out of the queue; running ones are stopped", _options, _cancel),
    Verb("task", "delete", "forget tasks and their output; running ones are stopped first", _options, _delete),
    Verb("task", "signal", "suspend, resume, term or kill what runs", _signal_options, _signal),
    Verb("task", "update", "give tasks new properties", _update_options, _update),
    Verb("task", "edit", "change many tasks at once, after a look at each difference", _edit_options, _edit),
)
