"""Run a GRUB configuration as a node's GRUB runs it over the network, and return the menu that it makes.

Sources: GRUB, script/execute.c (functions, loops, `$?`), normal/menu.c and commands/menuentry.c (an entry's commands
run when it is booted, with the variables as they are then; a submenu has only the exported ones),
commands/configfile.c. The disks of a node are not known, so `search` finds none. What only the node knows (addresses
from DHCP, the firmware's fonts) decides nothing: then both ways are taken.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace

from pxe_pack.image.grub.commands import INITRD, LINUX, menuentry_options, plain_path, unmarked
from pxe_pack.image.grub.expression import leading_number, test
from pxe_pack.image.grub.limits import Usage, check
from pxe_pack.image.grub.menu import Item, Level, Loaded
from pxe_pack.image.grub.result import Deferred, Leave, MenuShown, Result
from pxe_pack.image.grub.script import Block, Command, If, Loop, Node, Text, parse
from pxe_pack.image.grub.variables import Variables, start
from pxe_pack.image.grub.words import UNKNOWN, expanded
from pxe_pack.image.limits import Limit

_SOURCES = frozenset({"source", ".", "configfile", "normal"})
_TRUE = frozenset({"true", "sleep", "echo", "insmod", "setparams", "shift"})
_FALSE = frozenset({"false", "save_env", "keystatus"})  # no key is pressed, and nothing can be written over TFTP

Read = Callable[[str], str]


def run(text: str, *, read: Read, cpu: str = "x86_64", commands: Collection[str] | None = None) -> Result:
    """Run the layout's grub.cfg. Raises GrubSyntaxError, also if it exceeds a limit.

    `read` returns a file of the server by its path, without a device; empty if there is none. `commands` are those that
    GRUB has; None if that is not known.
    """

    def on_server(path: str) -> str:
        return read(plain_path(path))

    return Interpreter(on_server, on_server, start(cpu), commands).run(text)


@dataclass(slots=True)
class Interpreter:
    """One context of GRUB's: variables, functions, a menu."""

    read: Read  # a file by the path that GRUB uses; empty if it does not exist
    read_script: Read  # the same for a configuration
    variables: Variables
    commands: Collection[str] | None  # that GRUB has; None if not known
    functions: dict[str, list[Node]] = field(default_factory=dict)
    deferred: list[Deferred] = field(default_factory=list)
    loads: list[Loaded] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    boots: bool = False
    depth: int = 0
    loops: int = 0  # around what runs
    scope: bool = False  # in a function or an entry, which `return` leaves
    undecided: int = 0  # conditions around that only the node can decide
    usage: Usage = field(default_factory=Usage)

    def run(self, text: str) -> Result:
        """Run a configuration. Raises GrubSyntaxError, also if it exceeds a limit."""
        menu, variables = None, self.variables
        try:
            self.script(text)
        except MenuShown as shown:
            menu, variables = shown.menu, shown.variables
        return Result(menu=menu or self.menu(), variables=variables, loads=self.loads, boots=self.boots,
                      missing=self.missing)  # fmt: skip

    def menu(self) -> Level:
        """The menu, after the commands of its entries have run."""
        for deferred in self.deferred:
            if deferred.item.submenu is not None:
                inner = replace(self.context(deferred.arguments), scope=True)
            else:
                inner = replace(self, variables=self.variables.copy(deferred.arguments), scope=True)
                inner.deferred, inner.loads, inner.missing = [], [], deferred.item.missing
            try:
                with contextlib.suppress(Leave):
                    inner.nodes(deferred.body)
                if deferred.item.submenu is not None:
                    deferred.item.submenu = inner.menu()
            except MenuShown as shown:  # a submenu in all but name
                deferred.item.submenu = shown.menu
            deferred.item.loads = inner.loads
        default = self.variables.values.get("default")
        return Level([one.item for one in self.deferred], default, fallback=self.variables.get("fallback"))

    def context(self, arguments: list[str]) -> Interpreter:
        """A new context, which has the functions and the exported variables."""
        variables = self.variables.context(arguments)
        return replace(self, variables=variables, deferred=[], loads=[], depth=self.depth + 1)

    def script(self, text: str) -> bool | None:
        """Run a script; the result is that of `nodes`."""
        self.usage.read(text)
        return self.nodes(parse(text))

    def nodes(self, nodes: Iterable[Node]) -> bool | None:
        """Run commands; whether the last one succeeded, None if only the node knows."""
        self.depth += 1
        check(Limit.GRUB_DEPTH, self.depth)
        result: bool | None = True
        for node in nodes:
            if isinstance(node, Text):
                continue
            if isinstance(node, Command):
                result = self._command(node)
            elif isinstance(node, Block):
                result = self._block(node)
            elif isinstance(node, If):
                result = self._if(node)
            else:
                result = self._loop(node)
            self.variables.values["?"] = UNKNOWN if result is None else str(int(not result))
        self.depth -= 1
        return result

    def _if(self, node: If) -> bool | None:
        result: bool | None = True
        before = self.undecided
        try:
            for branch in node.branches:
                answer = True if branch.condition is None else self.nodes(branch.condition)
                self.undecided += answer is None
                if answer is not False:
                    result = self.nodes(branch.body)
                if answer is True:
                    break
            return None if self.undecided > before else result
        finally:
            self.undecided = before

    def _loop(self, node: Loop) -> bool | None:
        result: bool | None = True
        self.loops += 1
        depth = self.depth
        try:
            for _ in self._rounds(node):
                try:
                    result = self.nodes(node.body)
                except Leave as leave:
                    self.depth = depth
                    leave.count -= 1
                    if leave.command == "return" or leave.count > 0:
                        raise
                    if leave.command == "break":
                        break
        finally:
            self.loops -= 1
        return result

    def _rounds(self, node: Loop) -> Iterator[None]:
        if not node.keyword:
            head = next(one for one in node.condition if isinstance(one, Command))
            name = "".join(head.words[1:2])
            for word in self._expanded(head.words[3:]):
                self.usage.step()
                self.variables.assign(f"{name}={word}")
                yield
            return
        while (answer := self.nodes(node.condition)) is not None and answer != (node.keyword == "until"):
            self.usage.step()
            yield

    def _expanded(self, words: list[str]) -> list[str]:
        return expanded(words, self.variables.get, arguments=self.variables.arguments)

    def _block(self, node: Block) -> bool:
        self.usage.step(node.words, line=node.line)
        words = self._expanded(node.words)
        if node.name == "function" and len(words) > 1:
            self.functions[words[1]] = node.body
        elif node.name in ("menuentry", "submenu"):
            self.usage.entry(line=node.line)
            arguments, options = menuentry_options(words[1:])
            if not arguments:
                return False
            title = unmarked(arguments[0])
            submenu = Level() if node.name == "submenu" else None
            item = Item(title=title, identity=unmarked(options.get("--id", title)), submenu=submenu)
            self.deferred.append(Deferred(item, node.body, arguments))
        return True

    def _command(self, node: Command) -> bool | None:
        self.usage.step(node.words, line=node.line)
        words = self._expanded(node.words)
        self.usage.step(words, line=node.line)
        if not words:
            return True
        if words[0] == "!" and len(words) > 1:
            answer = self._call(words[1], words[2:])
            return None if answer is None else not answer
        return self._call(words[0], words[1:])

    def _call(self, name: str, words: list[str]) -> bool | None:
        """Run a function, a command or an assignment; nobody names a function like a command."""
        if name in self.functions:
            return self._function(self.functions[name], words)
        if self.variables.assign(name):
            return True
        known = self.commands is None or name in self.commands
        if not known and name not in self.missing:
            self.missing.append(name)
        # what an entry would load is of interest also if this GRUB cannot load it
        return self._builtin(name, words) if known or name in LINUX | INITRD else False

    def _builtin(self, name: str, words: list[str]) -> bool | None:  # noqa: PLR0911  a table of commands
        if name in ("break", "continue", "return"):
            return self._leave(name, words)
        if name in ("test", "["):
            words = words[:-1] if words[-1:] == ["]"] else words
            return test(words, is_filled=lambda path: bool(self.read(path)))
        if name in LINUX | INITRD:
            return self._load(name, words)
        if name in _SOURCES:
            return self._source(name, words)
        if name in ("set", "unset", "export"):
            return self.variables.run(name, words)
        if name == "load_env":
            return self.variables.load(words, read=self.read)
        self.boots |= name == "boot"
        if name in _FALSE or name.partition(".")[0] == "search":
            return False
        return True if name in _TRUE else None

    def _leave(self, name: str, words: list[str]) -> bool:
        """Leave loops, a function or an entry; what is in none goes on."""
        number = leading_number(words[0]) if words else (1, "")
        if number is None or number[1]:
            return False
        if name == "return":
            if self.scope:
                raise Leave(name, 0, result=not words or number[0] == 0)
        elif count := min(number[0], self.loops):
            raise Leave(name, count)
        return name != "return"

    def _function(self, body: list[Node], words: list[str]) -> bool | None:
        arguments, self.variables.arguments = self.variables.arguments, words
        depth, outer = self.depth, (self.scope, self.loops)
        self.scope, self.loops = True, 0
        try:
            return self.nodes(body)
        except Leave as leave:
            self.depth = depth
            return leave.result
        finally:
            self.variables.arguments, (self.scope, self.loops) = arguments, outer

    def _load(self, name: str, words: list[str]) -> bool:
        if words and name in LINUX:
            loaded = Loaded(kernel=plain_path(words[0]), arguments=tuple(map(unmarked, words[1:])))
            self.loads[:] = [*self.loads, loaded] if self.undecided else [loaded]
        elif words and self.loads:
            last, initrds = self.loads[-1], tuple(map(plain_path, words))
            if self.undecided and last.initrds:
                self.loads.append(replace(last, initrds=initrds))
            else:
                last.initrds = initrds
        return bool(words)

    def _source(self, name: str, words: list[str]) -> bool | None:
        if not words and name != "normal":
            return False
        self.usage.include()
        text = self.read_script(words[0] if words else f"{self.variables.get('prefix')}/grub.cfg")
        if name in ("source", "."):
            return self.script(text)
        inner = self.context([])
        inner.script(text)
        if inner.deferred:
            raise MenuShown(inner.menu(), inner.variables)
        self.loads += inner.loads
        return True
