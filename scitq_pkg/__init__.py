"""scitq, a distributed task queue for scientists: one file that serves, works, launches and manages."""

__version__ = "2.0.0.dev0"

if __name__ == "scitq":
    from . import aliases, layers

    aliases.install()
    layers.install()
else:  # imported by the name of its folder: answer with the one package there is
    import importlib
    import sys

    sys.modules[__name__] = importlib.import_module("scitq")
