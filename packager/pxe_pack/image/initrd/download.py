"""How an initrd downloads the ISO: dracut's url-lib and nfs-lib.

Source: dracut, modules.d/45url-lib/url-lib.sh (all releases up to 111) and 95nfs/nfs-lib.sh.
"""

from __future__ import annotations

import re

URL_LIBS = ("usr/lib/url-lib.sh", "lib/url-lib.sh")
NFS_LIBS = ("usr/lib/nfs-lib.sh", "lib/nfs-lib.sh")
LIVENETROOT = "sbin/livenetroot"
CURL = ("usr/bin/curl", "bin/curl")

_FUNCTION = re.compile(r"^[ \t]*curl_fetch_url[ \t]*\(\)[ \t]*\{$(.*?)^\}", re.MULTILINE | re.DOTALL)
# `( …; curl … || return $? )`: the return leaves the parentheses, which are a process, but not the function
_SUBSHELL = re.compile(r"^[ \t]*\([ \t]*$(?P<inside>.*?)^[ \t]*\)(?P<then>[^\n]*)$", re.MULTILINE | re.DOTALL)
_LONGEST = 1 << 15  # characters of the script that are looked at; dracut's has 6,000
_RETURN = re.compile(r"\bcurl\b[^\n]*\|\|\s*(?:return|exit)\b")


def ignores_curl_errors(script: str) -> bool:
    """True if the url-lib in `script` takes what a failed curl has left for the whole file.

    After `curl: (18) transfer closed`, the node mounts half of an ISO.
    """
    function = _FUNCTION.search(script[:_LONGEST])
    return bool(function) and any(
        _RETURN.search(found["inside"]) and "||" not in found["then"]
        for found in _SUBSHELL.finditer(function[1] if function else "")
    )
