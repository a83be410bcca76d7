"""`pxe-pack-collector`: the collector's command line."""

from __future__ import annotations

import argparse
import logging
import math
import socket
import ssl
import sys
from collections.abc import Callable
from pathlib import Path

import uvicorn
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from pxe_fetch.contract.problem import Problem, RuleError
from pxe_fetch.contract.quantity import size
from pxe_pack.collector import follow
from pxe_pack.collector.access import RateLimit, SecretError, Tokens, Visitors, secret_lines
from pxe_pack.collector.app import Services, application
from pxe_pack.collector.changes import Changes
from pxe_pack.collector.connections import connections_from, raise_file_limit
from pxe_pack.collector.database import DatabaseUrlError, connect
from pxe_pack.collector.fleet import Fleet
from pxe_pack.collector.layouts import ServedLayouts
from pxe_pack.collector.metrics import Metrics
from pxe_pack.collector.webhook import Webhook
from pxe_pack.collector.writer import Writer
from pxe_pack.collector_options import (
    KEEP,
    KEEP_SIZE,
    add_proxy,
    add_shared,
    listen_address,
    long_duration,
    webhook_url,
)
from pxe_pack.input_file import open_regular
from pxe_pack.tools import InputError

BAD_INPUT = 2
ENDING = 2  # seconds for requests that are being answered when the collector is to stop


def main() -> int:
    """Serve until SIGTERM or SIGINT; the exit code."""
    arguments = _parser().parse_args()
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        server, listener, url = _prepared(arguments)
    except (SecretError, DatabaseUrlError) as error:
        return _refused(str(error))
    except InputError as error:
        return _refused("; ".join(map(str, error.problems)))
    except SQLAlchemyError as error:
        return _refused(f"the database cannot be used: {' '.join(str(getattr(error, 'orig', error)).split())}")
    except OSError as error:
        return _refused(f"cannot listen at {arguments.listen[0]}, port {arguments.listen[1]}: {error.strerror}")
    print(f"collector: listening at {url}", flush=True)
    server.run(sockets=[listener])
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pxe-pack-collector",
        description="Take the reports of nodes, read the servers' logs, and show every node on a page.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--listen",
        type=listen_address,
        default="127.0.0.1:8787",
        metavar="ADDRESS:PORT",
        help="where to listen (default: 127.0.0.1:8787)",
    )
    add("--database", required=True, metavar="URL", help="sqlite:///FILE, or postgresql://USER:PASSWORD@HOST/NAME")
    add_shared(parser)
    add("--nginx-log", type=Path, metavar="FILE", help="nginx's access log")
    add("--dnsmasq-log", type=Path, metavar="FILE", help="dnsmasq's log")
    add("--layout", type=Path, metavar="DIR", help="the layout that is served, for the tokens in its images")
    add_proxy(parser, of="a proxy or load balancer that sends the node's address")
    add("--tls-cert", type=Path, metavar="FILE", help="serve https with this certificate")
    add("--tls-key", type=Path, metavar="FILE", help="its key")
    add("--rate", type=_rate, default=5.0, metavar="N", help="reports per second from one address (default: 5)")
    return parser


def _prepared(arguments: argparse.Namespace) -> tuple[uvicorn.Server, socket.socket, str]:
    """The server, its socket and its URL. Raises what `main` catches."""
    layouts = ServedLayouts(arguments.layout)
    tokens = Tokens(arguments.token_file, layouts, of_nodes_only=arguments.node_tokens)
    if not tokens.are_known and not (arguments.nginx_log or arguments.dnsmasq_log):
        raise SecretError("no token is known: give --token-file, or a --layout that was packed with `report: auto`")
    visitors = Visitors(arguments.password_file)
    _check_logs(arguments.nginx_log, arguments.dnsmasq_log)
    _check_certificate(arguments.tls_cert, arguments.tls_key)
    host, port = str(arguments.listen[0]), arguments.listen[1]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    listener = socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=both)
    engine = connect(arguments.database)
    proxies = [*map(str, arguments.proxy)]
    # The services need to know that the server is ending, and the server needs the application made of them.
    config = uvicorn.Config(
        "", log_level="warning", access_log=False, lifespan="on", timeout_graceful_shutdown=ENDING, server_header=False,
        ssl_certfile=arguments.tls_cert, ssl_keyfile=arguments.tls_key, http=connections_from(proxies),
        forwarded_allow_ips=["127.0.0.1", *proxies, *(f"::ffff:{one}" for one in proxies if ":" not in one)],
        limit_concurrency=raise_file_limit() * 3 // 4,  # the rest is for the database and the logs
    )  # fmt: skip
    server = uvicorn.Server(config)
    config.app = application(
        _services(arguments, engine, layouts, tokens, visitors, is_ending=lambda: server.should_exit)
    )
    scheme = "https" if arguments.tls_cert else "http"
    shown = f"[{host}]" if ":" in host else host
    return server, listener, f"{scheme}://{shown}:{listener.getsockname()[1]}/"


def _check_logs(*logs: Path | None) -> None:
    """Raise InputError for a log that exists and cannot be read: following it would show no node, and say nothing."""
    for log in filter(None, logs):
        try:
            open_regular(log).close()
        except FileNotFoundError:  # its server will make it
            continue
        except OSError as error:
            message = f"the log {log} cannot be read: {error.strerror}"
            raise InputError(Problem(reference="log-unreadable", message=message)) from error


def _check_certificate(certificate: Path | None, key: Path | None) -> None:
    """Raise SecretError if https is wanted, and cannot be served with these files."""
    if certificate is None and key is None:
        return
    if certificate is None:
        raise SecretError("--tls-key is given without --tls-cert")
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, "")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SecretError(f"https cannot be served with {certificate} and {key or 'no --tls-key'}: {reason}") from None


def _services(
    arguments: argparse.Namespace,
    engine: Engine,
    layouts: ServedLayouts,
    tokens: Tokens,
    visitors: Visitors,
    *,
    is_ending: Callable[[], bool],
) -> Services:
    registry = CollectorRegistry()
    fleet = Fleet(engine)
    metrics = Metrics(fleet, registry)
    webhook = Webhook(_webhook_url(arguments), metrics)
    writer = Writer(
        engine,
        registry=registry,
        failed=webhook.tell,
        retention_age=long_duration(arguments.keep or KEEP),
        retention_size=size(arguments.keep_size or KEEP_SIZE),
    )
    changes = Changes(fleet, is_ending=is_ending)
    logs = follow.opened(engine, nginx=arguments.nginx_log, dnsmasq=arguments.dnsmasq_log, layouts=layouts)
    background = (writer.run, changes.run, webhook.run, layouts.run, lambda: follow.follow(logs, writer))
    return Services(
        writer=writer, fleet=fleet, changes=changes, metrics=metrics, tokens=tokens, visitors=visitors,
        rate_limit=RateLimit(rate=arguments.rate, burst=4 * arguments.rate), background=background,
    )  # fmt: skip


def _webhook_url(arguments: argparse.Namespace) -> str:
    """Where failures are sent; empty for nowhere. Raises SecretError."""
    file = arguments.failure_webhook_file
    if file is None:
        return arguments.failure_webhook or ""
    if arguments.failure_webhook:
        raise SecretError("--failure-webhook and --failure-webhook-file are both given")
    try:
        return webhook_url("\n".join(secret_lines(file)))
    except RuleError as error:
        raise SecretError(f"{file}: its text {error}") from None


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 < rate < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return rate


def _refused(why: str) -> int:
    print(f"collector: {why}", file=sys.stderr)
    return BAD_INPUT
