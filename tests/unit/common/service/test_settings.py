"""What a service tells of what it runs with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from shoal_common.service import config as service_config
from shoal_common.service.config import ServiceConfig, setting
from shoal_common.service.settings import HOSTED, settings_of


@dataclass(frozen=True, kw_only=True)
class Example(ServiceConfig):
    """An example."""

    SERVICE: ClassVar[str] = "example"

    url: str = setting("", doc="where")
    limit_s: float = setting(1.5, doc="how long", unit="s")


def test_each_has_a_value_and_where_it_comes_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(service_config, "load_token", lambda environ: "very secret")
    environ = {"SHOAL_EXAMPLE_URL": "nats://me:hidden@there:1"}
    answer = settings_of(service_config.load(Example, ["--limit-s", "2"], environ))
    told = {each.name: (each.value, each.source) for each in answer.settings}
    assert told["limit_s"] == ("2.0", "--limit-s")
    assert told["url"] == ("nats://…@there:1", "SHOAL_EXAMPLE_URL")
    assert told["port"] == ("0", "default")
    assert "secret" not in str(answer) and "hidden" not in str(answer)


def test_one_that_another_process_hosts_says_so() -> None:
    told = {each.name: each.source for each in settings_of(Example(token="very secret", limit_s=3.0)).settings}
    assert (told["limit_s"], told["url"]) == (HOSTED, "default")
