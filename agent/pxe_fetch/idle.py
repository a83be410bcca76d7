"""A run that has nothing to do, found out and told without what the others import: some nodes have no other."""

from __future__ import annotations

import os
import time

from pxe_fetch import __version__
from pxe_fetch.contract import paths
from pxe_fetch.reporting import journal, state_file
from pxe_fetch.reporting.notify import READY, notify

SWITCHED_OFF = "switched off by pxe-fetch=off on the kernel command line"
NO_CONFIGURATION = "there is no configuration on this node, so there is nothing to do"

_OWN = "pxe_fetch"
_OFF = frozenset(("off", "no", "false", "0"))  # as contract.cmdline takes them


def reason(root: str = "/") -> str | None:
    """Why `pxe-fetch run` has nothing to do; None where it may have, and the run itself is to find out.

    A quick look: what is not plain to see here is left to contract.cmdline and locate, which decide the same.
    """
    try:
        with open(f"{root}/proc/cmdline", encoding="utf-8", errors="replace") as stream:  # noqa: PTH123  pathlib is an import
            text = stream.read()
    except OSError:
        return None
    own = [word for word in text.replace("-", "_").split() if _OWN in word]
    if own:
        switches = [word.partition("=")[2].lower() for word in own if word.partition("=")[0] == _OWN]
        is_off = bool(switches) and switches[-1] in _OFF
        return SWITCHED_OFF if is_off and '"' not in text else None
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    places = [f"{root}{paths.CONFIG_ETC}", f"{root}{paths.CONFIG_USR}"]
    if credentials:
        places.append(f"{credentials}/{paths.CREDENTIAL}")
    return None if any(os.path.lexists(place) for place in places) else NO_CONFIGURATION


def tell(message: str) -> None:
    """Say that the run is over, to everybody whom a longer run tells it."""
    run = os.environ.get("INVOCATION_ID") or os.urandom(16).hex()
    out = journal.Journal()
    if not out.is_plain:
        out.send(f"done: {message}", message_id=paths.MessageId.DONE, run=run, phase="done")
    if file := state_file.path():
        started = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
        # What state.RunState.document gives, written out: json is an import too, and there is nothing here to escape.
        text = (
            f'{{"version": 1, "run": "{run}", "phase": "done", "final": true, "exit_code": 0, "cause": null, '
            f'"message": "{message}", "config": {{}}, "node": {{}}, "agent": "{__version__}", "started": "{started}", '
            '"seconds": 0.0, "failures": 0, "artifacts": []}\n'
        )
        try:
            state_file.write(text, file=file)
        except OSError as error:
            out.send(f"{file} cannot be written: {error.strerror}", priority=journal.DEBUG)
    journal.console(f"pxe-fetch: done: {message}")
    notify(READY, f"STATUS={message}")
