"""A tree of commands and options as a completion script for bash, zsh or fish.

The scripts hold all they know: completing a word starts no program.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

PROGRAMS = ("scitq", "scitq.pyz", "scitq.py")


@dataclass(frozen=True)
class Value:
    """What a word may be. `kind`: words, several (words with commas between), file, folder, command or any."""

    kind: str
    name: str = ""
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """An option. One that is `attached` takes its value, if any, as `--name=value` only."""

    names: tuple[str, ...]
    about: str
    value: Value | None = None
    repeated: bool = False
    attached: bool = False


@dataclass(frozen=True)
class Node:
    """A command, or a verb of one: its options, the verbs below it, and the words that follow."""

    path: tuple[str, ...]
    about: str
    options: tuple[Choice, ...]
    children: tuple[Node, ...] = ()
    rest: Value | None = None

    def all(self) -> Iterable[Node]:
        """This node and all below it."""
        yield self
        for child in self.children:
            yield from child.all()


def _links(root: Node) -> list[str]:
    """The names under which the commands may be called alone: `scitq-launch`."""
    return [f"scitq-{child.path[0]}" for child in root.children]


def _short(about: str) -> str:
    """What fits beside an option in a menu."""
    first = re.split(r": |; | \(", about)[0]
    return first if len(first) <= 70 else first[:69] + "…"


# --- bash -------------------------------------------------------------------------------------------------------------------

_BASH = r"""# bash completion of scitq, made by `scitq completion bash`

_scitq_known() {  # of $path: its words and options; of $option: the kind of its value, and the choices
    words='' options='' rest='' given='' kind='' choices=''
    case $path in
%(cases)s
    esac
}

_scitq_offer() {  # $1: a kind, $2: the choices
    local before=''
    case $1 in
    words) mapfile -t COMPREPLY < <(compgen -W "$2" -- "$cur") ;;
    several)
        [[ $cur == *,* ]] && before=${cur%%,*},
        mapfile -t COMPREPLY < <(compgen -P "$before" -W "$2" -- "${cur##*,}")
        ;;
    file)
        compopt -o filenames 2> /dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        ;;
    folder)
        compopt -o filenames 2> /dev/null
        mapfile -t COMPREPLY < <(compgen -d -- "$cur")
        ;;
    command) mapfile -t COMPREPLY < <(compgen -c -- "$cur") ;;
    esac
}

_scitq() {
    local cur=${COMP_WORDS[COMP_CWORD]} word=${COMP_WORDS[0]##*/} path='' option='' ended='' i
    local words options rest given kind choices
    COMPREPLY=()
    [[ $word == scitq-* ]] && path=${word#scitq-}
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        _scitq_known
        if [[ $ended ]]; then
            ended=more
        elif [[ $option ]]; then
            [[ $word == '=' ]] || option=''
        elif [[ $word == -- ]]; then
            ended=first
        elif [[ $word == -* ]]; then
            option=$word
            _scitq_known
            [[ -z $kind || $kind == =* && ${COMP_WORDS[i + 1]} != '=' ]] && option=''
        elif [[ " $words " == *" $word "* ]]; then
            path=${path:+$path }$word
        elif [[ $rest == command ]]; then
            ended=more
        fi
    done
    _scitq_known
    if [[ $ended ]]; then
        [[ $ended == first && $rest == command ]] && rest=command || rest=file
        _scitq_offer "$rest"
    elif [[ $option ]]; then
        [[ $cur == '=' ]] && cur=''
        _scitq_offer "${kind#=}" "$choices"
    elif [[ $cur == -* ]]; then
        _scitq_offer words "$options"
    elif [[ $words ]]; then
        _scitq_offer words "$words"
    else
        _scitq_offer "$rest" "$given"
    fi
}

complete -F _scitq %(names)s
"""


def bash(root: Node) -> str:
    """The script for bash 4 and newer."""
    return _BASH % {"cases": "\n".join(map(_bash_case, root.all())), "names": " ".join([*PROGRAMS, *_links(root)])}


def _bash_case(node: Node) -> str:
    words = " ".join(child.path[-1] for child in node.children)
    options = " ".join(name for choice in node.options for name in choice.names)
    lines = [f"    {shlex.quote(' '.join(node.path))})", f"        words='{words}' options='{options}'"]
    if node.rest is not None:
        lines[-1] += f" rest={node.rest.kind} given='{' '.join(node.rest.words)}'"
    if kinds := [_bash_value(choice) for choice in node.options if choice.value is not None]:
        lines += ["        case $option in", *kinds, "        esac"]
    return "\n".join([*lines, "        ;;"])


def _bash_value(choice: Choice) -> str:
    assert choice.value is not None
    words = f" choices='{' '.join(choice.value.words)}'" if choice.value.words else ""
    attached = "'='" if choice.attached else ""
    return f"        {'|'.join(choice.names)}) kind={attached}{choice.value.kind}{words} ;;"


# --- zsh --------------------------------------------------------------------------------------------------------------------

_ZSH = """#compdef scitq
# zsh completion of scitq, made by `scitq completion zsh`

%(functions)s

%(links)s
if [[ $funcstack[1] == _scitq ]]; then
    _scitq "$@"
else
    compdef _scitq %(programs)s
fi
"""


def zsh(root: Node) -> str:
    """The script for zsh, to be sourced after compinit or kept as `_scitq` in a folder of fpath."""
    links = "\n".join(f"compdef {_zsh_name(child)} scitq-{child.path[0]}" for child in root.children)
    return _ZSH % {"functions": "\n\n".join(map(_zsh_function, root.all())), "links": links, "programs": " ".join(PROGRAMS)}


def _zsh_name(node: Node) -> str:
    return "_".join(["_scitq", *node.path])


def _zsh_function(node: Node) -> str:
    specs = [_zsh_option(choice) for choice in node.options]
    if node.children:
        return _zsh_parent(node, specs)
    if node.rest is not None and node.rest.kind == "command":
        specs += ["'(-):COMMAND:_command_names -e'", "'*::WORD:_normal'"]
    elif node.rest is not None:
        specs.append(_zsh_quoted(f"*:{_zsh_plain(node.rest.name)}:{_zsh_action(node.rest)}"))
    return f"{_zsh_name(node)}() {{\n    _arguments -s -S : {_joined(specs)}\n}}"


def _zsh_parent(node: Node, specs: list[str]) -> str:
    specs = [*specs, _zsh_quoted("1: :->word"), _zsh_quoted("*:: :->rest")]
    known = [_zsh_quoted(f"{child.path[-1]}:{child.about}") for child in node.children]
    calls = "".join(f"        {child.path[-1]}) {_zsh_name(child)} ;;\n" for child in node.children)
    return (
        f"{_zsh_name(node)}() {{\n    local curcontext=$curcontext context state line\n    typeset -A opt_args\n"
        f"    _arguments -C -s -S -A '-*' : {_joined(specs)} && return\n"
        f"    case $state in\n    word)\n        local -a known=({_joined(known)})\n"
        "        _describe -t commands word known\n        ;;\n"
        f"    rest)\n        case $line[1] in\n{calls}        esac\n        ;;\n    esac\n}}"
    )


def _joined(specs: Iterable[str]) -> str:
    return "".join(f"\\\n        {spec} " for spec in specs).rstrip()


def _zsh_option(choice: Choice) -> str:
    """`'(-S --state)'{-S+,--state=}'[about]:STATE:...'`."""
    names = [_zsh_option_name(name, choice) for name in choice.names]
    spelled = names[0] if len(names) == 1 else "{" + ",".join(names) + "}"
    before = "'*'" if choice.repeated else _zsh_quoted(f"({' '.join(choice.names)})")
    about = "[" + re.sub(r"([][:\\])", r"\\\1", _short(choice.about)) + "]"
    if choice.value is None:
        return f"{before}{spelled}{_zsh_quoted(about)}"
    optional = ":" if choice.attached else ""
    return f"{before}{spelled}" + _zsh_quoted(f"{about}{optional}:{_zsh_plain(choice.value.name)}:{_zsh_action(choice.value)}")


def _zsh_option_name(name: str, choice: Choice) -> str:
    """With the sign that says where its value is: `--name=` and `-n+` in the same word or the next, `--name=-` in the same."""
    if choice.value is None:
        return name
    if not name.startswith("--"):
        return f"{name}+"
    return f"{name}=-" if choice.attached else f"{name}="


def _zsh_action(value: Value) -> str:
    if value.kind == "words":
        return f"({' '.join(value.words)})"
    if value.kind == "several":
        return f" _values -s , {_zsh_plain(value.name)} {' '.join(value.words)}"
    return {"file": "_files", "folder": "_files -/"}.get(value.kind, " ")


def _zsh_plain(name: str) -> str:
    return re.sub(r"[^\w.-]", " ", name).strip() or "value"


def _zsh_quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# --- fish -------------------------------------------------------------------------------------------------------------------

_FISH = """# fish completion of scitq, made by `scitq completion fish`

function __scitq_path --description 'the command and the verb that are typed so far'
    set -l words (commandline -opc)
    set -l path scitq
    set -l skip
    for word in $words[2..-1]
        if test -n "$skip"
            set skip
            continue
        end
        switch "$path $word"
            case %(paths)s
                set path "$path $word"
            case %(takers)s
                set skip 1
            case %(options)s
            case %(commands)s
                set path 'scitq ...'
        end
    end
    echo $path
end

function __scitq_at
    test (__scitq_path) = "$argv"
end

%(lines)s
complete -c scitq -n '__scitq_at scitq ...' -F
%(links)s
"""


def fish(root: Node) -> str:
    """The script for fish 3.0 and newer."""
    nodes = list(root.all())
    takers = [
        _fish_quoted(f"{_fish_path(node)} {name}")
        for node in nodes if node.children or _runs(node)
        for choice in node.options if choice.value is not None and not choice.attached
        for name in choice.names
    ]  # fmt: skip
    links = dict.fromkeys(PROGRAMS[1:], "scitq") | {link: link.replace("-", " ") for link in _links(root)}
    lines = ["complete -c scitq -f", *(line for node in nodes for line in _fish_lines(node))]
    return _FISH % {
        "paths": " ".join(_fish_quoted(_fish_path(node)) for node in nodes[1:]),
        "takers": " ".join(takers),
        "options": " ".join(_fish_quoted(f"{_fish_path(node)} -?*") for node in nodes if _runs(node)),
        "commands": " ".join(_fish_quoted(f"{_fish_path(node)} *") for node in nodes if _runs(node)),
        "lines": "\n".join(lines),
        "links": "\n".join(f"complete -c {name} -w '{words}'" for name, words in links.items()),
    }


def _runs(node: Node) -> bool:
    """Whether the words of a command follow, which are not ours."""
    return node.rest is not None and node.rest.kind == "command"


def _fish_path(node: Node) -> str:
    return " ".join(["scitq", *node.path])


def _fish_lines(node: Node) -> Iterable[str]:
    here = f"complete -c scitq -n {_fish_quoted(f'__scitq_at {_fish_path(node)}')}"
    for child in node.children:
        yield f"{here} -a {child.path[-1]} -d {_fish_quoted(_short(child.about))}"
    for choice in node.options:
        names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in choice.names)
        value = "" if choice.value is None or choice.attached else f" {_fish_value(choice.value)}"
        yield f"{here} {names}{value} -d {_fish_quoted(_short(choice.about))}"
    if node.rest is not None and node.rest.kind != "any":
        yield f"{here} {_fish_value(node.rest).removeprefix('-x ').removeprefix('-r ')}"


def _fish_value(value: Value) -> str:
    if value.kind == "several":
        return f"-x -a {_fish_quoted('(__fish_append , ' + ' '.join(value.words) + ')')}"
    given = {
        "words": f"-x -a {_fish_quoted(' '.join(value.words))}", "file": "-r -F",
        "folder": "-x -a '(__fish_complete_directories)'", "command": "-x -a '(__fish_complete_command)'",
    }  # fmt: skip
    return given.get(value.kind, "-x")


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
