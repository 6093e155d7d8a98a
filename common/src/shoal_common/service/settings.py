"""What a service runs with, as others are told: each setting, its value and where that comes from.

Secrets are in files, whose names are told; what a URL has of a user and a password is left out.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from shoal_common.service.config import DEFAULT, ServiceConfig
from shoal_proto.v1 import settings_pb2 as pb
from shoal_proto.v1.settings_pb2_grpc import SettingsServiceServicer

#: Of a value that is neither the default nor was loaded from flags and the environment.
HOSTED = "the process that hosts it"

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")


def settings_of(config: ServiceConfig) -> pb.GetSettingsResponse:
    settings = []
    for field in dataclasses.fields(config):
        if "doc" not in field.metadata:
            continue
        value = getattr(config, field.name)
        default = field.default_factory() if callable(field.default_factory) else field.default
        source = config.sources.get(field.name) or (DEFAULT if value == default else HOSTED)
        about = field.metadata
        settings.append(
            pb.Setting(name=field.name, value=_told(value), source=source, doc=about["doc"], unit=about["unit"])
        )
    return pb.GetSettingsResponse(service=config.SERVICE, settings=settings)


def _told(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return _CREDENTIALS.sub("…@", text)


class Settings(SettingsServiceServicer):
    def __init__(self, config: ServiceConfig) -> None:
        self._answer = settings_of(config)

    async def GetSettings(self, request: pb.GetSettingsRequest, context: Any) -> pb.GetSettingsResponse:
        return self._answer
