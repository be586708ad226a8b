"""Makes one script of the modules of the pages: one request instead of forty, and what repeats in them is packed once.

Each module becomes a function that is run once, after those that it imports, and gives what it exports. The pages' modules keep
to what this knows: `import { a, b as c } from "./x.js";` in one line, exports of named functions, classes and constants, no
circles.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_IMPORT = re.compile(r'^import \{ ([\w, ]+) \} from "\./(\w+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?function\*?|class|const) (\w+)", re.MULTILINE)
_UNKNOWN = re.compile(r"^(?:import|export)\b.*", re.MULTILINE)


def bundle(entry: str, read: Callable[[str], str]) -> str:
    """The script of the module `entry` and all that it needs; `read` gives the text of a module by its name, without `.js`.

    ValueError says which module has an import or export of another form, or needs itself.
    """
    made: dict[str, str] = {}
    _add(entry, read, made, ())
    return "".join(made.values())


def _add(name: str, read: Callable[[str], str], made: dict[str, str], above: tuple[str, ...]) -> None:
    if name in above:
        raise ValueError(f"{name}.js imports itself, by way of {', '.join(above[above.index(name) + 1 :]) or 'nothing else'}")
    text = read(name)
    for _, needed in _IMPORT.findall(text):
        if needed not in made:
            _add(needed, read, made, (*above, name))
    made[name] = _as_function(name, text)


def _as_function(name: str, text: str) -> str:
    exported = ", ".join(found[1] for found in _EXPORT.findall(text))
    body = _EXPORT.sub(r"\1 \2", _IMPORT.sub(_taken, text))
    if wrong := _UNKNOWN.search(body):
        raise ValueError(f"{name}.js: {wrong[0]:.100}: one line of imports by name, or an export of something named, is expected")
    return f"const ${name} = (() => {{\n{body}\nreturn {{ {exported} }};\n}})();\n"


def _taken(found: re.Match) -> str:
    return f"const {{ {found[1].replace(' as ', ': ')} }} = ${found[2]};"
