"""What the installed `clipkeep` starts: the command line, and quiet while it still loads."""

from __future__ import annotations

import gc
import signal

from service.spawning import forget_current_directory


def main() -> None:
    """Run `service.cli.main`. Loading it takes a second: a Ctrl-C meanwhile ends the process as one ends any other
    program, by the signal, instead of with a traceback out of some library. A SIGINT that whoever started us ignores
    stays ignored."""
    forget_current_directory()
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if not ignored:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()  # what is loaded stays, and looking through it again and again is a tenth of the time
    from service.cli import main as run

    gc.enable()
    if not ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()
