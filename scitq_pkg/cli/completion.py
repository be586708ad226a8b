"""`scitq completion SHELL`: a completion script made from the tables that the commands themselves are read with."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from types import ModuleType

from . import COMMANDS, shells
from .options import Option
from .parser import OneOf, Parser, SomeOf
from .shells import Choice, Node, Value

SHELLS = ("bash", "zsh", "fish")
_EPILOG = """how to install it:
  bash   source <(scitq completion bash)             in ~/.bashrc
  zsh    source <(scitq completion zsh)              in ~/.zshrc, after compinit
  fish   scitq completion fish > ~/.config/fish/completions/scitq.fish

The first two make the script anew in each shell; keep it in a file to save that fifth of a second:
  scitq completion bash > ~/.local/share/bash-completion/completions/scitq
  scitq completion zsh > ~/.zfunc/_scitq             a folder of your fpath
Of the one file, give it the name scitq: ln -s ~/scitq.pyz ~/bin/scitq (after chmod +x).
"""
_FILES = ("FILE", "TABLE", "PATH", "SOURCE", "DESTINATION", "URI")  # what may be a file of this machine
_FOLDERS = ("DIR",)


def main(words: list[str]) -> int:
    """Runs `scitq completion WORDS...`; the exit code."""
    parser = _parser()
    write = {"bash": shells.bash, "zsh": shells.zsh, "fish": shells.fish}[parser.parse_args(words).shell]
    sys.stdout.write(write(tree()))
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="scitq completion", description="Prints a completion script.", epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("shell", type=OneOf(SHELLS, "shell"), metavar="SHELL", help="|".join(SHELLS))
    return parser


def tree() -> Node:
    """All commands."""
    common = (Choice(("-h", "--help"), "show this and leave"), Choice(("--version",), "the version"))
    verbose = Choice(("-v", "--verbose"), "show where an unexpected error came from")
    children = tuple(_command(name, module, about) for name, (module, about) in COMMANDS.items() if about)
    return Node((), "A distributed task queue for scientists.", (*common, verbose), children)


def _command(name: str, path: str, about: str) -> Node:
    module = import_module(path, __package__)
    if hasattr(module, "_parser"):
        return _of_parser((name,), about, module._parser())
    if hasattr(module, "parsers"):
        children = tuple(_of_parser((name, verb), found.description or "", found) for verb, found in module.parsers().items())
        return Node((name,), about, (), children)
    options = tuple(map(_of_option, module.OPTIONS))
    if hasattr(module, "OBJECTS"):
        return Node((name,), about, options, tuple(_object(name, module, noun) for noun in module.OBJECTS))
    return Node((name,), about, options, rest=Value("command", "COMMAND"))


def _object(command: str, module: ModuleType, noun: str) -> Node:
    """An object of `scitq manage` and its verbs; it may be its own only verb."""
    about, verbs = module.OBJECTS[noun][1], module.verbs_of(noun)
    if [verb.name for verb in verbs] == [""]:
        return _of_parser((command, noun), about, verbs[0].parser)
    children = tuple(_of_parser((command, noun, verb.name), verb.about, verb.parser) for verb in verbs)
    return Node((command, noun), about, (), children)


def _of_option(option: Option) -> Choice:
    value = None if option.value is None else _named(option.value)
    return Choice(tuple(option.names), option.about, value, option.repeated, attached=option.bare is not None)


def _of_parser(path: tuple[str, ...], about: str, parser: Parser) -> Node:
    options, rest = [], None
    for action in parser.actions:
        value = _value(action)
        if action.option_strings:
            # a word after `--name` may be its value or the next argument: only what is attached is surely the value
            attached = action.nargs == "?"
            repeated = action.nargs in ("+", "*") or isinstance(action, (argparse._AppendAction, argparse._CountAction))
            options.append(
                Choice(tuple(action.option_strings), (action.help or "").replace("%%", "%"), value, repeated, attached)
            )
        elif rest is None or rest.kind == "any":
            rest = value
    return Node(path, about, tuple(options), rest=rest)


def _value(action: argparse.Action) -> Value | None:
    """What the value of an option, or a word, may be; None for a flag."""
    if action.nargs == 0:
        return None
    name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    if isinstance(action.type, OneOf):
        return Value("several" if isinstance(action.type, SomeOf) else "words", name, action.type.words)
    if action.choices is not None:
        return Value("words", name, tuple(map(str, action.choices)))
    return _named(name)


def _named(name: str) -> Value:
    """What the name of a value tells: `FILE`, `sh|bash`."""
    if "|" in name:
        return Value("words", name, tuple(name.split("|")))
    return Value("file" if name in _FILES else "folder" if name in _FOLDERS else "any", name)
