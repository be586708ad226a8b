"""The door of a checkout: `python3 scitq.py COMMAND ...`, and `import scitq` with the checkout on `sys.path`.

The package's files lie in `scitq_pkg/`; here it is loaded under the name that users import, once. (After executing a module,
import returns what `sys.modules` holds.) An install and the one file do without this.
"""

import os
import sys

if sys.version_info < (3, 10):
    sys.exit("scitq needs Python 3.10 or newer; this is Python %d.%d" % sys.version_info[:2])


def _load():
    from importlib.util import module_from_spec, spec_from_file_location

    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "scitq_pkg")
    spec = spec_from_file_location("scitq", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder])
    module = module_from_spec(spec)
    sys.modules["scitq"] = module
    spec.loader.exec_module(module)


if __name__ == "scitq" or "scitq" not in sys.modules:
    _load()

if __name__ == "__main__":
    try:
        from scitq.cli import main
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(main())
