"""A GRUB configuration made fit for booting over the network.

GRUB over TFTP cannot list a directory, so `[ -f FILE ]` is false for every file and `search` finds nothing; there is
no medium to find either. So: `search` and `set root=` go, tests for files are answered here from what the image has,
`root=live:` names the URL, kernels and initrds are named where the layout has them, below /boot, and what the file
takes from others (`source`, the entries behind `blscfg`) is put into it.
Sources: GRUB manual 5.x "network", 6.1; dracut.cmdline(7), "Booting live images" and "ip="; Image Customizer's
PXE output (`rd.live.azldownloader=enable` chooses its downloader in Azure Linux's dracut; others ignore it).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from pxe_pack.image.grub import bls
from pxe_pack.image.grub.conditions import INITRD, LINUX, conditional, inlined, never_empty, plain_path
from pxe_pack.image.grub.script import Block, Command, If, Node, Text, parse, quoted, unknown_variable, unquoted

PREFIX = "/boot/grub2"
AZL_DOWNLOADER = "rd.live.azldownloader"
NO_PROMPT = "rd.live.overlay.nouserconfirmprompt"  # dracut 059 asks for [Enter] when rd.live.overlay names no device

_SOURCES = frozenset({"source", ".", "configfile"})
_SOURCES_LIMIT = 16  # files in files
_ASSIGNMENT = re.compile(r"(?P<name>\w+)=(?P<value>.*)", re.DOTALL)


class UnsuitableGrubConfigError(ValueError):
    """A configuration that cannot be made to boot over the network; the text says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Files:
    """What the image has, by paths as GRUB writes them: `/boot/vmlinuz`."""

    exists: Callable[[str], bool]
    read: Callable[[str], str]  # a text file's content; empty when there is no such file
    names: Callable[[str], Iterable[str]] = lambda _: ()  # of the files in a folder


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """A `grub.cfg` for the network, and what it loads."""

    text: str
    files: Mapping[str, str]  # path in the layout -> path in the image; neither with a leading slash
    live: bool  # an entry boots a LiveOS: `root=live:`
    arguments: tuple[tuple[str, ...], ...]  # of each live entry's kernel (of all, when none is), variables put in
    kernels: tuple[str, ...]  # paths in the image, each once
    initrds: tuple[str, ...]


@dataclass(slots=True)
class _State:
    boot_url: str
    at: Files
    variables: dict[str, str]
    files: dict[str, str] = field(default_factory=dict)
    arguments: list[tuple[str, ...]] = field(default_factory=list)
    others: list[tuple[str, ...]] = field(default_factory=list)  # arguments of entries that boot no LiveOS
    kernels: list[str] = field(default_factory=list)
    initrds: list[str] = field(default_factory=list)
    sourced: list[str] = field(default_factory=list)  # the files that this one takes in, the innermost last


def for_network(text: str, *, boot_url: str, files: Files) -> NetworkConfig:
    """`text` rewritten so that it boots the LiveOS from `boot_url`; what is right already stays as it is.

    With an empty `boot_url`, `root=live:` stays as it is. Raises GrubSyntaxError, and UnsuitableGrubConfigError when
    no entry boots Linux, or an entry needs a file that the image does not have.
    """
    state = _State(boot_url=boot_url, at=files, variables={"prefix": PREFIX, "root": ""})
    nodes = _rewritten(parse(text), state)
    if not state.arguments and not state.others:
        raise UnsuitableGrubConfigError("none of its entries boots a LiveOS (`linux … root=live:…`), or Linux at all")
    return NetworkConfig(
        text="".join(map(str, nodes)),
        files=dict(sorted(state.files.items())),
        live=bool(state.arguments),
        arguments=tuple(state.arguments or state.others),
        kernels=tuple(dict.fromkeys(state.kernels)),
        initrds=tuple(dict.fromkeys(state.initrds)),
    )


def _rewritten(nodes: list[Node], state: _State) -> list[Node]:
    out: list[Node] = []
    swallowed = ""  # a separator that goes with the command it ended
    for node in nodes:
        if isinstance(node, Text) and node.text in swallowed:
            swallowed = ""
            continue
        swallowed = ""
        replaced = _one(node, state)
        if not replaced:
            # the line goes with its command, and so does the indentation before it
            if out and isinstance(out[-1], Text) and not out[-1].text.strip(" \t") and _begins_line(out[:-1]):
                out.pop()
            swallowed = "\n;" if _begins_line(out) else ";"
        out += replaced
    return out


def _begins_line(before: list[Node]) -> bool:
    return not before or (isinstance(before[-1], Text) and before[-1].text == "\n")


def _one(node: Node, state: _State) -> list[Node]:
    """What stands in `node`'s place; nothing when it goes."""
    if isinstance(node, Block):
        node.body = never_empty(_rewritten(node.body, state))
        return [node]
    if isinstance(node, If):
        return conditional(
            node,
            rewritten=lambda body: _rewritten(body, state),
            exists=state.at.exists,
            variables=state.variables,
        )
    return [node] if isinstance(node, Text) else _command(node, state)


def _command(node: Command, state: _State) -> list[Node]:
    _name_plainly(node, state)
    name = node.name
    if name == "blscfg":
        return _entries(node, state)
    _remember(node, state)
    if _has_no_place(node):
        return []
    if name in _SOURCES and len(node.words) == 2 and (text := _sourced(node, state)):  # noqa: PLR2004
        return text
    if name in LINUX and len(node.words) > 1:
        _fix_linux(node, state)
    elif name in INITRD:
        node.replace_words([node.words[0], *(_loaded(word, state, state.initrds) for word in node.words[1:])])
    elif name == "load_env":
        _fix_load_env(node, state)
    return [node]


def _name_plainly(command: Command, state: _State) -> None:
    """`$linux` and `$initrd`, as KIWI writes them, as what every GRUB has: the variable chose between such."""
    if command.words[0].startswith("$"):
        name = unquoted(command.words[0], state.variables)
        plain = "linux" if name in LINUX else "initrd" if name in INITRD else ""
        if plain:
            command.replace_words([plain, *command.words[1:]])


def _fix_load_env(command: Command, state: _State) -> None:
    """Have the layout bring a block of variables that is not GRUB's own; that one it has anyway."""
    words = list(command.words)
    at = words.index("-f") + 1 if "-f" in words[:-1] else 0
    path = plain_path(unquoted(words[at], state.variables)) if at else ""
    if path.startswith("/") and not unknown_variable(path) and state.at.exists(path):
        target = path if path.startswith(f"{PREFIX}/") else _target(path, state)
        if target != unquoted(words[at], state.variables):
            words[at] = quoted(target)
            command.replace_words(words)


def _has_no_place(command: Command) -> bool:
    """Whether a command looks for a medium, or leads GRUB away from the layout's one folder for it."""
    assigned = _assignment(command)
    if assigned and assigned[0] in ("root", "prefix"):
        return True
    return command.name.split(".")[0] == "search" or [unquoted(word) for word in command.words] == ["insmod", "blscfg"]


def _sourced(command: Command, state: _State) -> list[Node]:
    """What a file that is taken in comes to; nothing when the image does not have it."""
    path = plain_path(unquoted(command.words[1], state.variables))
    text = "" if unknown_variable(path) else state.at.read(path)
    if not text.strip():
        return []
    if path in state.sourced or len(state.sourced) > _SOURCES_LIMIT:
        raise UnsuitableGrubConfigError(f"it takes in {path} again and again")
    state.sourced.append(path)
    nodes = _rewritten(parse(text), state)
    state.sourced.pop()
    return inlined(nodes)


def _entries(command: Command, state: _State) -> list[Node]:
    """Menu entries in place of `blscfg`, for those of its entries whose kernel and initrds the image has."""
    given = [unquoted(word, state.variables) for word in command.words[1:]] or [state.variables.get("blsdir", "")]
    folders = [plain_path(path).rstrip("/") for path in (*given, *bls.FOLDERS) if path]
    nodes: list[Node] = []
    lacking = ""
    for folder in dict.fromkeys(folders):
        for name in bls.newest_first(name for name in state.at.names(folder) if name.endswith(bls.SUFFIX)):
            entry = bls.entry(name, state.at.read(f"{folder}/{name}"), state.variables)
            if entry is None:
                continue
            paths = {path: _located(path, state) for path in (entry.linux, *entry.initrds)}
            lost = [path for path, where in paths.items() if not where]
            if lost:
                lacking = lacking or f"{folder}/{name} names {lost[0]}, which the image does not have"
                continue
            nodes += _rewritten(parse(entry.menuentry(lambda path, paths=paths: paths[path])), state)  # type: ignore[misc]
        if nodes:
            return nodes
    raise UnsuitableGrubConfigError(
        f"its entries are Boot Loader Specification files (`blscfg`), and none can be used: "
        f"{lacking or 'there is none in ' + ' or '.join(dict.fromkeys(folders))}"
    )


def _located(path: str, state: _State) -> str:
    """A path of an entry from the top of the medium: /boot may have been a file system of its own. Empty: nowhere."""
    plain = plain_path(path)
    return next((where for where in (plain, f"/boot{plain}") if state.at.exists(where)), "")


def _assignment(command: Command) -> tuple[str, str] | None:
    """(name, value as written) of `set name=value` and `name=value`."""
    words = command.words[1:] if command.name == "set" else command.words
    found = _ASSIGNMENT.fullmatch(words[0]) if len(words) == 1 else None
    return (found["name"], found["value"]) if found else None


def _remember(command: Command, state: _State) -> None:
    """Keep what a command says of variables. In an `if`, too: what may be so is the best guess at what will be."""
    if assigned := _assignment(command):
        state.variables[assigned[0]] = unquoted(assigned[1], state.variables)
    elif command.name == "load_env":
        words = [unquoted(word, state.variables) for word in command.words[1:]]
        at = words.index("-f") + 1 if "-f" in words[:-1] else -1
        block = state.at.read(plain_path(words[at]) if at > 0 else f"{PREFIX}/grubenv")
        for line in block.splitlines():
            if not line.startswith("#") and (found := _ASSIGNMENT.fullmatch(line)):
                state.variables[found["name"]] = found["value"]


def _expanded(words: list[str], state: _State) -> list[str]:
    """The arguments that `words` come to. GRUB splits what an unquoted variable brings."""
    arguments: list[str] = []
    for word in words:
        text = unquoted(word, state.variables)
        arguments += text.split() if word.startswith("$") else [text]
    return arguments


def _is_live(arguments: list[str]) -> bool:
    return any(argument.startswith(("root=live:", "rd.live.")) for argument in arguments)


def _fix_linux(command: Command, state: _State) -> None:
    kernel = _loaded(command.words[1], state, state.kernels)
    given = _expanded(command.words[2:], state)
    if not _is_live(given):
        command.replace_words([command.words[0], kernel, *command.words[2:]])
        state.others.append(tuple(given))
        return
    words: list[str] = []
    root = f"root=live:{state.boot_url}" if state.boot_url else next((a for a in given if a.startswith("root=")), "")
    for word in command.words[2:]:
        arguments = _expanded([word], state)
        if any(argument.startswith("root=") for argument in arguments):
            words += [quoted(root if argument.startswith("root=") else argument) for argument in arguments]
        else:
            words.append(word)
    present = _expanded(words, state)
    added = [] if not root or any(argument.startswith("root=") for argument in present) else [root]
    added += [] if any(argument.startswith("ip=") for argument in present) else ["ip=dhcp"]
    if not any(argument.startswith(f"{AZL_DOWNLOADER}=") for argument in present):
        added.append(f"{AZL_DOWNLOADER}=enable")
    added += [NO_PROMPT] if "rd.live.overlay=1" in present and NO_PROMPT not in present else []
    # what follows a lone "--" is for init
    end = words.index("--") if "--" in words else len(words)
    words = [*_once([*words[:end], *map(quoted, added)]), *words[end:]]
    command.replace_words([command.words[0], kernel, *words])
    state.arguments.append(tuple(_expanded(words, state)))


def _once(words: list[str]) -> list[str]:
    """`words` without those that say what an earlier one says."""
    seen: dict[str, str] = {}
    for word in words:
        seen.setdefault(unquoted(word), word)
    return list(seen.values())


def _loaded(word: str, state: _State, kind: list[str]) -> str:
    """The word that names a kernel or an initrd in the layout; it joins the files that the layout needs."""
    written = unquoted(word, state.variables)
    path = plain_path(written)
    if unknown_variable(path):
        raise UnsuitableGrubConfigError(f"it loads {word}, and what that is stands nowhere in the image")
    if not state.at.exists(path):
        raise UnsuitableGrubConfigError(f"it loads {path}, which the image does not have")
    kind.append(path.lstrip("/"))
    target = _target(path, state)
    return word if target == written else quoted(target)


def _target(path: str, state: _State) -> str:
    """Where the layout has a file of the image, which joins those that it needs."""
    target = path if path.startswith("/boot/") else f"/boot/{path.rsplit('/', 1)[-1]}"
    if state.files.setdefault(target.lstrip("/"), path.lstrip("/")) != path.lstrip("/"):
        raise UnsuitableGrubConfigError(f"two files of it would both be {target}: {path} and another")
    return target
