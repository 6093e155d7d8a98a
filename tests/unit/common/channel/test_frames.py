from __future__ import annotations

from shoal_common.channel import frames


def test_every_message_has_its_own_tag() -> None:
    tags = [message.__struct_config__.tag for message in frames.Message.__subclasses__()]
    assert len(tags) == len(set(tags))
