"""`pxe-pack serve`: one command serves a layout, with dnsmasq and nginx as children (docs/serve.md).

Their configurations are those that `pxe-pack snippet` prints. Nothing is installed, and nothing is left in the end.
Of a published layout, the current version is served; when another one becomes current, it is from then on.
"""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from dataclasses import replace

from pxe_fetch.contract.problem import Problem
from pxe_pack import tools
from pxe_pack.cleanup import signals_raise, temporary_folder
from pxe_pack.console import Console
from pxe_pack.layout.layout import Layout
from pxe_pack.layout.published import served_folder
from pxe_pack.serve import certificate, collector, describe, dhcp_probe, log_size, ports
from pxe_pack.serve.children import Child, ServerEndedError
from pxe_pack.serve.configuration import Folders, dnsmasq_config, dnsmasq_user, nginx_config
from pxe_pack.serve.interfaces import interfaces
from pxe_pack.serve.plan import Dhcp, Options, Plan, make_plan, published
from pxe_pack.tools import InputError, WorkError

_POLL = 0.2  # seconds between two looks at the children and at the current version


def serve(options: Options, *, console: Console) -> None:
    """Serve the layout until SIGINT or SIGTERM.

    Raises InputError before any server is started, ServerEndedError if one of them ends, WorkError and OSError. The
    servers have ended when this returns or raises.
    """
    Layout.read(served_folder(options.layout))  # a mistake there is told first, before a missing program
    options = _with_certificate(options, console)
    known = interfaces()
    address, missed = collector.find(options)
    plan = make_plan(options, known, collector=address)
    problems = tools.missing(_programs(plan), reason="to serve the layout")
    problems += ports.problems([*plan.ports, *([collector.port(options)] if address else [])])
    if problems:
        raise InputError(*problems)
    if warnings := [*missed, *plan.warnings]:
        console.problems(warnings)
    _look_for_dhcp_server(plan, console)
    with signals_raise(signal.SIGINT, signal.SIGTERM), ExitStack() as stack:
        run = stack.enter_context(temporary_folder(prefix="pxe-pack-serve-"))
        run.chmod(0o711)  # nginx's workers, which are another user, have temporary files there
        folders = Folders(run=run, logs=options.log_dir or run)
        folders.logs.mkdir(exist_ok=True)
        servers = _Servers(plan, folders)
        try:
            servers.start()
            if plan.site.collector:
                servers.add(collector.child(options, folders, folder=plan.site.folder))
            console.result(describe.document(plan), describe.text(plan))
            _follow(options, servers, console)
        except KeyboardInterrupt:
            console.say("stopping")
        finally:
            servers.stop()


def _with_certificate(options: Options, console: Console) -> Options:
    """The options with a certificate that exists, made if that is asked for. Raises InputError."""
    tls = options.tls
    if tls is None:
        if options.self_signed:
            message = "--tls-self-signed needs to know where the certificate goes"
            hint = "--tls-cert FILE --tls-key FILE: it is made once, and nodes have to trust it"
            raise InputError(Problem(reference="tls-incomplete", message=message, hint=hint))
        return options
    site = make_plan(replace(options, dhcp=Dhcp.NONE), interfaces(), collector=None).site
    hosts = site.https_hosts
    if options.self_signed and not tls.certificate.exists() and not tls.key.exists():
        certificate.make_certificate(tls, hosts or site.hosts)
        console.say(
            f"made the certificate {tls.certificate}: add it to the root certificates of the image and of its initrd, "
            "and to tls.ca_file of its fetch.yaml (docs/serve.md)"
        )
    if problems := [*certificate.certificate_problems(tls, hosts)]:
        console.problems(problems)
    return options


def _programs(plan: Plan) -> list[str]:
    return [*(["nginx"] if plan.has_http else []), *(["dnsmasq"] if plan.tftp else [])]


def _look_for_dhcp_server(plan: Plan, console: Console) -> None:
    """Refuse to be the second DHCP server; warn if a proxy would be alone. Raises InputError."""
    if plan.dhcp is Dhcp.NONE or plan.interface is None or plan.site.network.version != 4:  # noqa: PLR2004
        return
    with console.step(f"Looking for a DHCP server on {plan.interface.name}") as step:
        try:
            found = dhcp_probe.find_server(plan.interface)
        except OSError as error:  # a DHCP client of this machine may keep its port to itself
            step.note(f"cannot ask: {error.strerror}")
            return
        step.note(found or "none answers")
    if found and plan.dhcp is Dhcp.FULL:
        message = f"a DHCP server answers on {plan.interface.name} already: {found}"
        hint = "serve beside it with --dhcp proxy, or stop it"
        raise InputError(Problem(reference="serve-second-dhcp", message=message, hint=hint))
    if not found and plan.dhcp is Dhcp.PROXY:
        message = f"no DHCP server answers on {plan.interface.name}; without one, nodes get no address"
        hint = "start one, or hand out addresses too: --dhcp full"
        console.problems([Problem(reference="serve-no-dhcp", message=message, hint=hint, severity="warning")])


def _follow(options: Options, servers: _Servers, console: Console) -> None:
    """Watch the servers, and serve each version that becomes current. Raises ServerEndedError."""
    versions = published(options)
    while True:
        time.sleep(_POLL)
        servers.check()
        log_size.bound(servers.folders.logs, largest=options.log_size)
        if versions is None or (version := versions.current) in (None, servers.plan.version):
            continue
        plan = replace(servers.plan, version=version)
        try:
            plan = make_plan(options, interfaces(), collector=servers.plan.site.collector)
            servers.change(plan)
        except ServerEndedError:
            raise
        except (InputError, WorkError) as error:
            console.problems(error.problems)
            console.say(f"version {version} is served with the URLs of the one before it")
            servers.plan = replace(servers.plan, version=version)
        else:
            console.say(f"serving version {version}")


class _Servers:
    """nginx and dnsmasq, and what else runs beside them."""

    def __init__(self, plan: Plan, folders: Folders) -> None:
        self.plan = plan
        self.folders = folders
        self._configs: dict[str, str] = {}
        self._nginx = Child(
            name="nginx",
            program="nginx",
            arguments=("-e", "stderr", "-p", folders.run, "-c", folders.run / "nginx.conf"),
            log=folders.logs / "nginx.log",
            is_ready=lambda: folders.nginx_pid.is_file() and folders.nginx_pid.stat().st_size > 0,
        )
        self._dnsmasq = Child(
            name="dnsmasq",
            program="dnsmasq",
            arguments=("--keep-in-foreground", f"--conf-file={folders.run / 'dnsmasq.conf'}", *dnsmasq_user(plan)),
            log=folders.dnsmasq_log,
            is_ready=self._dnsmasq_is_ready,
            becomes_another_user=True,
        )
        self._logged = 0  # bytes that dnsmasq's log had before it was started
        self._running: list[Child] = []

    def start(self) -> None:
        """Start what the plan has. Raises ServerEndedError if one of them does not come up."""
        self._write(self.plan)
        if self.plan.has_http:
            self.add(self._nginx)
        if self.plan.tftp:
            self._start_dnsmasq()

    def add(self, child: Child) -> None:
        """Start a server, and watch it from now on."""
        self._running.append(child)
        child.start()

    def check(self) -> None:
        """Raise ServerEndedError if one of them has ended."""
        for child in self._running:
            child.check()

    def change(self, plan: Plan) -> None:
        """Serve as `plan` says. nginx goes on without an interruption; dnsmasq is restarted if it has to know.

        Raises InputError and WorkError if that is impossible; the servers go on as before, then.
        """
        before = dict(self._configs)
        self._write(plan)
        if self._configs["nginx.conf"] != before["nginx.conf"] and self._nginx in self._running:
            try:
                tools.run("nginx", "-q", "-t", *self._nginx.arguments)
            except WorkError:
                self._configs = before
                raise
            self._nginx.reload()
        if self._configs["dnsmasq.conf"] != before["dnsmasq.conf"] and self._dnsmasq in self._running:
            self._running.remove(self._dnsmasq)
            self._dnsmasq.stop()
            self._start_dnsmasq()
        self.plan = plan

    def stop(self) -> None:
        """End all of them."""
        for child in reversed(self._running):
            child.stop()

    def _start_dnsmasq(self) -> None:
        log = self.folders.dnsmasq_log
        self._logged = log.stat().st_size if log.exists() else 0
        self.add(self._dnsmasq)

    def _dnsmasq_is_ready(self) -> bool:
        with self.folders.dnsmasq_log.open("rb") as log:
            log.seek(self._logged)
            return b": started, version" in log.read()

    def _write(self, plan: Plan) -> None:
        self._configs = {"nginx.conf": nginx_config(plan, self.folders)}
        self._configs["dnsmasq.conf"] = dnsmasq_config(plan, self.folders)
        for name, text in self._configs.items():
            (self.folders.run / name).write_text(text)
