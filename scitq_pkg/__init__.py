"""scitq, a distributed task queue for scientists: one file that serves, works, launches and manages."""

__version__ = "2.0.0.dev0"
