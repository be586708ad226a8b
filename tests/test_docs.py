"""The documents tell all there is, and what they show works."""

from __future__ import annotations

import argparse
import itertools
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from scitq import batchfile
from scitq.bio import archives, genetics
from scitq.cli import COMMANDS, completion, fetch, launch, manage, options, run, server, worker
from scitq.cloud.config import FIRST_BOOT, Deployment
from scitq.protocol import EXECUTION_STATES, TASK_STATES, WORKER_STATES
from scitq.settings import NESTED, Settings, option
from scitq.substitution import MODIFIERS

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]


def words_of(parser: argparse.ArgumentParser) -> set[str]:
    """The long options of a parser."""
    return {name for action in parser._actions for name in action.option_strings if name.startswith("--")}


@pytest.mark.parametrize(
    "page, options",
    [
        ("run.md", words_of(run._parser()) - {"--help", "--verbose"}),
        ("server.md", words_of(server._parser()) - {"--help", "--verbose", "--quiet", "--stop-with-parent"}),
        ("worker.md", words_of(worker._parser()) - {"--help", "--verbose"}),
        ("bio.md", words_of(fetch.parsers()["samples"]) - {"--help"}),
        ("launch.md", {name for known in launch.OPTIONS for name in known.names}),
        ("server.md", {option(field.name) for field in fields(Settings) if field.name not in NESTED}),
        ("clouds.md", NESTED | {field.name for field in fields(Deployment)} - {"first_boot"} | set(FIRST_BOOT)),
    ],
)
def test_every_option_is_told(page, options):
    text = (DOCS / page).read_text()
    assert {name for name in options if not re.search(rf"{name}\b", text)} == set()


VERBS = [verb for name in manage.OBJECTS for verb in manage.verbs_of(name)]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: f"{verb.object}-{verb.name}")
def test_every_verb_of_manage_and_its_options_are_told(verb):
    text = (DOCS / "manage.md").read_text()
    assert f"\n## {verb.object}\n" in text and f"`{verb.object} {verb.name}".rstrip() in text.replace("`scitq manage ", "`")
    aliases = {"--id", "--docker", "--option", "--requirements", "--pause", "--help", "--no-drain", "--no-permanent"}
    assert {name for name in words_of(verb.parser) - aliases if not re.search(rf"{name}\b", text)} == set()


@pytest.mark.parametrize("states", [TASK_STATES, EXECUTION_STATES, WORKER_STATES])
def test_every_state_is_told(states):
    text = "".join(path.read_text() for path in DOCS.glob("*.md"))
    assert {state for state in states if f"`{state}`" not in text} == set()


def test_every_key_and_modifier_of_a_batch_file_is_told():
    text = (DOCS / "batchfile.md").read_text()
    keys = {*batchfile.schema()["properties"], *batchfile.schema()["$defs"]["task"]["properties"]}
    keys |= {key for name in ("step", "param", "gathered") for key in batchfile.schema()["$defs"][name]["properties"]}
    told = {key for key in keys if f"`{key}`" in text or f"`{key}: " in text or f"{{{key}: " in text or f", {key}: " in text}
    assert keys - told == set()
    sources = batchfile.schema()["$defs"]["source"]["properties"]
    assert {key for key in sources if f"`{key}: " not in text and f"`{key}`" not in text} == set()
    assert {name for name in MODIFIERS if f":{name}}}`" not in text} == set()


def test_every_function_and_attribute_for_biologists_is_told():
    text = (DOCS / "bio.md").read_text()
    functions = {name for name in genetics.__all__ if name not in ("Run", "Samples")}
    assert {name for name in functions if f"`{name}" not in text} == set()
    alike = ("fastq_", "submitted_", "sra_")  # told together
    assert {name for name in archives.ENA_FIELDS if f"`{name}`" not in text and not name.startswith(alike)} == set()


def test_every_command_is_in_the_readme():
    text = (ROOT / "README.md").read_text()
    assert {name for name, (_, about) in COMMANDS.items() if about and name not in text} == set()


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", (DOCS / "batchfile.md").read_text(), re.S))
def test_examples_of_batch_files_are_read(example, tmp_path):
    (tmp_path / "samples.csv").write_text("sample,reads\nA,a.fq.gz\nB,b.fq.gz\n")
    (tmp_path / "b.yaml").write_text(example)
    assert batchfile.load(str(tmp_path / "b.yaml")).tasks


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_the_readme_has_the_command_that_ci_calls():
    called = re.search(r"tests/run\.py", (ROOT / ".ci" / "run").read_text())[0]
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert blocks[0] == "python3 build_zipapp.py && sh examples/first.sh\n"
    assert blocks[1] == f"python3 {called}\n"


def test_every_page_is_in_the_readme():
    text = (ROOT / "README.md").read_text()
    assert {page.name for page in DOCS.glob("*.md") if f"docs/{page.name}" not in text} == set()


def command_lines(page: Path) -> list[list[str]]:
    """The words after each `scitq` in the shell blocks of a page."""
    found = []
    for line in "\n".join(re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.S | re.M)).splitlines():
        split = shlex.shlex(line, posix=True, punctuation_chars="|&;<>()")
        split.whitespace_split = True
        words = list(split)
        places = [place for place, word in enumerate(words) if word == "scitq"]
        found += [list(itertools.takewhile(lambda word: not set(word) <= set("|&;<>()"), words[place + 1 :])) for place in places]
    return found


def read(command: str, *words: str) -> None:
    """Reads words as their command does. Raises what it raises."""
    if command == "launch":
        options.parse(list(words), launch.OPTIONS)
    elif command == "manage":
        _, (noun, *rest) = options.parse(list(words), manage.OPTIONS)
        verbs = {verb.name: verb for verb in manage.verbs_of(noun)}
        verbs[rest[0]].parser.parse_args(rest[1:]) if rest[0] in verbs else verbs[""].parser.parse_args(rest)
    elif command == "fetch":
        fetch.parsers()[words[0]].parse_args(words[1:])
    else:
        parser = {"run": run, "server": server, "worker": worker, "completion": completion}[command]._parser()
        parser.parse_args(itertools.takewhile(lambda word: word != "--", words))


LINES = [(page, words) for page in PAGES for words in command_lines(page)]


@pytest.mark.parametrize(("page", "words"), LINES, ids=[f"{page.name}: {' '.join(words):.60}" for page, words in LINES])
def test_command_lines_that_are_shown_are_understood(page, words):
    words = [*words, "7"] if words[-1] == "-i" else words  # xargs gives it
    read(*words)


def test_command_lines_were_found():
    assert len(LINES) > 40 and {"launch", "manage", "fetch", "run", "server", "worker"} <= {words[0] for _, words in LINES}
