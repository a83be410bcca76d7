"""Model -> the YAML text that a node reads. `validate.read(dump(config)).fetch == config`, for every config."""

from __future__ import annotations

from dataclasses import fields

import yaml

from pxe_fetch.contract import chunks, quantity
from pxe_fetch.contract.model import NO_CHUNKS, Artifact, FetchConfig, RetryPolicy, Timeouts

Plain = str | int | bool | list["Plain"] | dict[str, "Plain"]


def dump(config: FetchConfig) -> str:
    """`config` as a `fetch.yaml` without a `pack` section; only what differs from the defaults is written."""
    default = FetchConfig()
    values: dict[str, Plain] = {"version": config.version}
    if config.base_url:
        values["defaults"] = {"base_url": config.base_url}
    if config.artifact_url:
        values["artifact_url"] = config.artifact_url
    if config.parallel != default.parallel:
        values["parallel"] = config.parallel
    if config.start_jitter:
        values["start_jitter"] = quantity.show_duration(config.start_jitter)
    values["allowed_roots"] = list(config.allowed_roots)
    for key, section in (("tls", config.tls), ("proxy", config.proxy)):
        given = {field.name: getattr(section, field.name) for field in fields(section)}
        chosen: dict[str, Plain] = {name: _plain(value) for name, value in given.items() if value}
        if chosen:
            values[key] = chosen
    if config.on_failure != default.on_failure:
        values["on_failure"] = config.on_failure
    if config.report_url:
        values["report"] = {"url": config.report_url}
    values["artifacts"] = [_artifact(artifact) for artifact in config.artifacts]
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=1000)


def _plain(value: str | tuple[str, ...]) -> Plain:
    return value if isinstance(value, str) else list(value)


def _artifact(artifact: Artifact) -> Plain:
    values: dict[str, Plain | None] = {
        "name": artifact.name,
        "url": artifact.urls[0] if len(artifact.urls) == 1 else None,
        "urls": list(artifact.urls) if len(artifact.urls) > 1 else None,
        "mirror_order": None if artifact.mirror_order == "spread" else artifact.mirror_order,
        "source": artifact.source,
        artifact.digest.algorithm if artifact.digest else "sha256": artifact.digest.hex if artifact.digest else None,
        "sha256_url": artifact.digest_url,
        "size": artifact.size,
        "chunks": _chunks(artifact),
        "dest": artifact.dest,
        "mode": None if artifact.mode is None else f"{artifact.mode:04o}",
        "owner": artifact.owner,
        "group": artifact.group,
        "extract": artifact.extract,
        "when": _when(artifact),
        "required": None if artifact.required else False,
        "headers": dict(artifact.headers) or None,
        "header_credential": artifact.header_credential,
        "start": list(artifact.start) or None,
        "retry": _retry(artifact.retry),
        "timeouts": _timeouts(artifact.timeouts),
    }
    return {key: value for key, value in values.items() if value is not None}


def _chunks(artifact: Artifact) -> Plain | None:
    if artifact.chunks is None:
        return None
    pieces = artifact.chunks
    if pieces == NO_CHUNKS:
        return chunks.NONE
    values: dict[str, Plain | None] = {
        "size": pieces.size,
        "url": pieces.urls[0] if len(pieces.urls) == 1 else None,
        "urls": list(pieces.urls) if len(pieces.urls) > 1 else None,
        "sha256": pieces.digest.hex if pieces.digest else list(chunks.listed(pieces.digests).split()) or None,
    }
    return {key: value for key, value in values.items() if value is not None}


def _when(artifact: Artifact) -> Plain | None:
    values: dict[str, Plain] = {name: list(globs) for name, globs in artifact.when.facts.items()}
    if artifact.when.cmdline:
        values["cmdline"] = {name: list(globs) for name, globs in artifact.when.cmdline.items()}
    return values or None


def _retry(policy: RetryPolicy) -> Plain | None:
    if policy == RetryPolicy():
        return None
    return {
        "attempts_without_progress": policy.attempts_without_progress,
        "base": quantity.show_duration(policy.base),
        "max": quantity.show_duration(policy.max),
        "deadline": quantity.show_duration(policy.deadline),
        "retry_after_max": quantity.show_duration(policy.retry_after_max),
    }


def _timeouts(timeouts: Timeouts) -> Plain | None:
    if timeouts == Timeouts():
        return None
    return {
        "connect": quantity.show_duration(timeouts.connect),
        "read": quantity.show_duration(timeouts.read),
        "min_rate": timeouts.min_rate,
        "min_rate_window": quantity.show_duration(timeouts.min_rate_window),
    }
