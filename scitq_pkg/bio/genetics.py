"""Samples of sequencing reads: those of the public archives and those of a folder, chosen by what they are.

    from scitq.bio.genetics import ena_get_samples, filter_by_layout

    samples = filter_by_layout(ena_get_samples("PRJEB46098"), paired=True)
    for sample, runs in samples.items():
        print(sample, [run.uri for run in runs])

What is needed to ask an archive or a store is imported when that is done.
"""

from .archives import ena_get_samples, sra_get_samples
from .depth import Depth, user_friendly_depth
from .filters import filter_by, filter_by_layout, find_library_layout
from .folders import uri_get_samples
from .runs import Run, Samples

__all__ = [
    "Depth",
    "Run",
    "Samples",
    "ena_get_samples",
    "filter_by",
    "filter_by_layout",
    "find_library_layout",
    "sra_get_samples",
    "uri_get_samples",
    "user_friendly_depth",
]
