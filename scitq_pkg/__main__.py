"""`python3 -m scitq`, or this file run by its path, which (unlike `-m`) never imports from the current directory."""

import sys

if not __package__:
    import os

    sys.path.pop(0)
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from scitq.cli import main

sys.exit(main())
