"""How this program starts itself anew: what a child imports is what is installed, never what lies in the folder that
somebody happened to be in.

`python -m` and `python -c` put the current directory first on the path: a folder named `storage/` in it would take the
place of ours, and whoever may write there would run code in the service.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

PYTHON = (sys.executable, "-P")
"""-P: neither the current directory nor the script's on the path. Not -I: an installation may need PYTHONPATH or the
user's site-packages, and its children need the same."""


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours (or pip) in another process."""
    return [*PYTHON, "-m", module, *arguments]


def forget_current_directory() -> None:
    """For a program's first moment: import nothing from the current directory, in this process and in what it starts.

    It is on the path where PYTHONPATH has an empty or relative part, as `PYTHONPATH=$PYTHONPATH:/more` gives. It stays
    when this program itself lies there.
    """
    os.environ["PYTHONSAFEPATH"] = "1"  # for children that take no -P: those of multiprocessing
    parts = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    absolute = [part for part in parts if os.path.isabs(part)]
    if absolute:
        os.environ["PYTHONPATH"] = os.pathsep.join(absolute)
    else:
        os.environ.pop("PYTHONPATH", None)
    home = str(Path(__file__).parent.parent)
    relative = {os.path.abspath(part) for part in parts if not os.path.isabs(part)} - set(absolute) - {home}
    sys.path[:] = [part for part in sys.path if os.path.abspath(part) not in relative]


def default_sigint() -> None:
    """In a child, before it is itself: SIGINT does what it does by default, also where a shell started all of us with
    SIGINT ignored (`nohup … &`), which children inherit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
