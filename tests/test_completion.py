"""`scitq completion`: the scripts are sourced by the real shells, and asked what they offer."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from env import PROGRAM

from scitq.cli import completion
from scitq.errors import InvalidRequest

SHELLS = ("bash", "zsh", "fish")
OFFERS = [  # what is typed; some of what is offered; what is not
    ("scitq ", ["server", "worker", "launch", "manage", "run", "completion"], ["keeper", "--help"]),
    ("scitq man", ["manage"], ["server"]),
    ("scitq manage ", ["task", "batch", "worker", "event", "token", "db", "doctor"], ["list"]),
    ("scitq manage worker ", ["list", "get", "update", "drain", "delete"], ["task"]),
    ("scitq manage worker d", ["drain", "delete"], ["get"]),
    ("scitq manage worker list --", ["--batch", "--format", "--watch"], ["--drain"]),
    ("scitq manage worker list -S ", ["online", "offline", "draining", "unfit"], ["running"]),
    ("scitq manage worker list --state online,of", ["online,offline"], []),
    ("scitq manage task list -o j", ["json", "jsonl"], ["csv"]),
    ("scitq manage --timeout 3 task list -S fai", ["failed"], []),
    ("scitq manage -s task worker d", ["drain", "delete"], []),
    ("scitq manage task signal s", ["suspend"], ["kill"]),
    ("scitq manage doctor --fo", ["--format"], []),
    ("scitq launch --re", ["--resource", "--retry", "--require"], ["--shell"]),
    ("scitq launch --file d", ["data.yaml"], []),
    ("scitq launch -b x --retry 2 sha256su", ["sha256sum"], []),
    ("scitq launch cat d", ["data.yaml"], ["--dry-run"]),
    ("scitq launch cat --re", [], ["--retry", "--resource"]),
    ("scitq run d", ["data.yaml"], []),
    ("scitq run --state d", ["dir"], ["data.yaml"]),
    ("scitq server --co", ["--config"], ["--cert"]),
    ("scitq worker --no", ["--no-permanent"], []),
    ("scitq completion ", ["bash", "zsh", "fish"], []),
    ("scitq-manage worker d", ["drain", "delete"], []),
]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """The three scripts as the program prints them, in a folder with a file and a folder to complete."""
    folder = tmp_path_factory.mktemp("completion")
    for shell in SHELLS:
        with open(folder / shell, "wb") as file:
            subprocess.run([*PROGRAM, "completion", shell], stdout=file, check=True, cwd=folder)
    work = folder / "work"
    (work / "dir").mkdir(parents=True)
    (work / "data.yaml").touch()
    return folder


def need(shell: str) -> None:
    if shutil.which(shell) is None:
        (pytest.fail if os.environ.get("SCITQ_TESTS_REQUIRE_SERVICES") else pytest.skip)(f"{shell} is not installed")


def environment(folder: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", "TERM": "dumb"}


# --- each shell's own way of asking -----------------------------------------------------------------------------------


def bash(folder: Path, lines: list[str]) -> list[list[str]]:
    """The function is called as readline does, with words that are split at `=` too."""
    asked = [f"source {folder / 'bash'}"]
    for line in lines:
        words = [part for word in line.split(" ") for part in re.split(r"(=)", word) if part or word == ""]
        words += [""] if line.endswith("=") else []
        asked.append(
            f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; _scitq; printf '%s\\n' \"${{COMPREPLY[@]}}\" END"
        )
    told = subprocess.run(
        ["bash", "--norc", "-c", "\n".join(asked)], capture_output=True, text=True, cwd=folder / "work", env=environment(folder)
    )  # fmt: skip
    assert told.stderr == ""
    return [part.split() for part in told.stdout.split("END\n")[:-1]]


def fish(folder: Path, lines: list[str]) -> list[list[str]]:
    asked = [f"source {folder / 'fish'}", *(f"complete -C {shlex.quote(line)}; echo END" for line in lines)]
    told = subprocess.run(
        ["fish", "--no-config", "-c", "\n".join(asked)], capture_output=True, text=True, cwd=folder / "work",
        env=environment(folder)
    )  # fmt: skip
    assert told.stderr == ""
    return [[line.split("\t")[0].rstrip("/") for line in part.splitlines()] for part in told.stdout.split("END\n")[:-1]]


_ZSH = r"""
PS1=; unsetopt zle_bracketed_paste 2>/dev/null; unset zle_bracketed_paste
autoload -U compinit && compinit -u -D
source %(script)s
zstyle ':completion:*' list-prompt ''
compadd() {  # tells what would be offered
    local -a hits
    if [[ ${@[1,(i)(-|--)]} != *-[OAD]\ * ]]; then
        builtin compadd -O hits "$@"
        (( $#hits )) && print -rl -- $hits >> %(out)s
    fi
    builtin compadd "$@"
}
tell() { : > %(out)s; zle complete-word; print -r -- END >> %(out)s; BUFFER= }
zle -N tell; bindkey '^I' tell; print READY
"""


def zsh(folder: Path, lines: list[str]) -> list[list[str]]:
    """Typed at a terminal, with Tab."""
    out = folder / "zsh.out"
    (folder / "zsh.start").write_text(_ZSH % {"script": folder / "zsh", "out": out})
    master, slave = pty.openpty()
    process = subprocess.Popen(
        ["zsh", "-f", "-i"], stdin=slave, stdout=slave, stderr=slave, cwd=folder / "work", env=environment(folder),
        start_new_session=True
    )  # fmt: skip
    os.close(slave)
    try:
        os.write(master, f"source {folder / 'zsh.start'}\n".encode())
        read_until(master, lambda seen: b"READY\r\n" in seen)
        found = []
        for line in lines:
            out.unlink(missing_ok=True)
            os.write(master, line.encode() + b"\t")
            read_until(master, lambda seen: out.exists() and out.read_text().endswith("END\n"))
            found.append(out.read_text().split()[:-1])
        return found
    finally:
        process.kill()
        process.wait()
        os.close(master)


def read_until(master: int, done, seconds: float = 60.0) -> None:
    seen, deadline = b"", time.monotonic() + seconds
    while not done(seen):
        assert time.monotonic() < deadline, f"the shell does not go on: {seen[-2000:]!r}"
        if select.select([master], [], [], 0.02)[0]:
            seen += os.read(master, 65536)


# --- what they offer --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", [bash, zsh, fish], ids=SHELLS)
def test_each_shell_offers_what_fits(scripts, shell):
    need(shell.__name__)
    wrong = []
    for (typed, some, others), offered in zip(OFFERS, shell(scripts, [typed for typed, *_ in OFFERS]), strict=True):
        if shell is zsh:  # which keeps what stands before the last comma
            some = [word.rpartition(",")[2] for word in some]
        if not set(some) <= set(offered) or set(others) & set(offered):
            wrong.append((typed, offered))
    assert wrong == []


def test_bash_offers_values_after_an_equals_sign(scripts):
    need("bash")
    lines = [
        "scitq manage task list --format=js",
        "scitq launch --shell=",
        "scitq launch --shell=bash sha256su",
        "scitq launch --shell sha256su",
    ]
    offered = [sorted(set(words)) for words in bash(scripts, lines)]
    assert offered == [["json", "jsonl"], ["bash", "sh"], ["sha256sum"], ["sha256sum"]]


@pytest.mark.parametrize("shell", [bash, zsh, fish], ids=SHELLS)
def test_every_option_of_every_verb_is_offered(scripts, shell):
    need(shell.__name__)
    nodes = list(completion.tree().all())
    assert len(nodes) > 30
    offered = shell(scripts, [" ".join(["scitq", *node.path, "-"]) for node in nodes])
    for node, names in zip(nodes, offered, strict=True):
        missing = {name for choice in node.options for name in choice.names} - {name.rstrip("=") for name in names}
        assert (node.path, missing) == (node.path, set())


def test_the_help_tells_how_to_install_it(capsys):
    with pytest.raises(SystemExit):
        completion.main(["-h"])
    told = capsys.readouterr().out
    assert all(word in told for word in ("~/.bashrc", "~/.zshrc", "~/.config/fish/completions/scitq.fish"))
    with pytest.raises(InvalidRequest, match="did you mean 'bash'"):
        completion.main(["bsh"])
