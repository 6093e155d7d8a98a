"""TLS, client certificates and passwords of etcd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.certificates import Authority
from support.servers import EtcdServer, running

from shoal_common.metadata import MetadataStoreError, StoreRefused
from shoal_common.metadata.etcd import EtcdMetadataStore
from shoal_common.metadata.etcd_shard import EtcdAccess
from shoal_common.tls import ServerTls, Tls, TlsError

PASSWORD = "the password"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def identity(authority: Authority) -> Tls:
    return authority.issue()


@pytest.fixture(scope="module")
def secured(identity: Tls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    server = EtcdServer(tmp_path_factory.mktemp("secured"), identity)
    with running(server):
        yield server


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    server = EtcdServer(tmp_path_factory.mktemp("guarded"))
    with running(server):
        server.ask_for_passwords(PASSWORD)
        yield server


async def use(server: EtcdServer, access: EtcdAccess, within_s: float = 30.0, endpoint: str = "") -> None:
    """Everything that a GCS does."""
    store = EtcdMetadataStore([endpoint or server.address], access=access)
    try:
        await store.join("c", within_s)
        leadership = await store.lead("me", 5.0)
        watch = await store.watch("/shoal/c/")
        revision = await store.put("/shoal/c/actor/1", b"1")
        assert (await anext(watch)).revision == revision
        await watch.close()
        assert await store.delete("/shoal/c/actor/1", expected_revision=revision)
        await store.refresh_lease(await store.grant_lease(10.0))
        await leadership.resign()
    finally:
        await store.close()


async def test_tls_with_a_client_certificate(secured: EtcdServer, identity: Tls) -> None:
    await use(secured, EtcdAccess(tls=ServerTls(identity.ca, identity.cert, identity.key)))
    by_name = ServerTls(identity.ca, identity.cert, identity.key, server_name="shoal")
    await use(secured, EtcdAccess(tls=by_name))


async def test_several_members_are_known_by_the_name_of_the_first(secured: EtcdServer, identity: Tls) -> None:
    tls = ServerTls(identity.ca, identity.cert, identity.key)
    await use(secured, EtcdAccess(tls=tls), endpoint=f"localhost:{secured.port}+127.0.0.1:1")


async def test_certificates_that_do_not_fit_are_told(secured: EtcdServer, identity: Tls, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "stranger").issue()
    wrong = {
        "certificate is not that of our authority": ServerTls(stranger.ca),
        "we have no certificate": ServerTls(identity.ca),
        "our certificate is not of its authority": ServerTls(identity.ca, stranger.cert, stranger.key),
        "the name is another": ServerTls(identity.ca, identity.cert, identity.key, server_name="else.where"),
        "we speak no TLS": None,
    }
    for why, tls in wrong.items():
        with pytest.raises(MetadataStoreError, match=f"etcd at {secured.address} .*TLS settings"):
            await use(secured, EtcdAccess(tls=tls), within_s=0.5)
            pytest.fail(why)


def test_files_that_cannot_be_used_are_named(identity: Tls, tmp_path: Path) -> None:
    absent = tmp_path / "absent.pem"
    with pytest.raises(TlsError, match=r"absent\.pem"):
        ServerTls.from_files(absent, None, None, "")
    with pytest.raises(TlsError, match=r"absent\.pem"):
        ServerTls.from_files(identity.ca, absent, identity.key, "")
    with pytest.raises(TlsError, match="go together"):
        ServerTls.from_files(identity.ca, identity.cert, None, "")
    with pytest.raises(TlsError, match="authority"):
        ServerTls.from_files(None, identity.cert, identity.key, "")
    assert ServerTls.from_files(None, None, None, "") is None


async def test_user_and_password(guarded: EtcdServer) -> None:
    await use(guarded, EtcdAccess("root", PASSWORD))


@pytest.mark.parametrize("access", [EtcdAccess("root", "wrong"), EtcdAccess("nobody", "x"), EtcdAccess()])
async def test_wrong_credentials_are_refused_at_once_and_stay_out_of_the_message(
    guarded: EtcdServer, access: EtcdAccess
) -> None:
    with pytest.raises(StoreRefused, match="Check the settings of its user and password") as refused:
        await use(guarded, access)
    assert guarded.address in str(refused.value)
    assert "wrong" not in str(refused.value)
    assert "wrong" not in repr(access)


async def test_a_password_for_an_etcd_that_asks_for_none(tmp_path: Path) -> None:
    server = EtcdServer(tmp_path)
    with running(server), pytest.raises(StoreRefused, match="authentication is not enabled"):
        await use(server, EtcdAccess("root", PASSWORD))


async def test_a_token_that_has_ended_is_exchanged_for_a_new_one(guarded: EtcdServer) -> None:
    store = EtcdMetadataStore([guarded.address], access=EtcdAccess("root", PASSWORD), deadline_s=30.0)
    watch = await store.watch("a")
    await store.put("a", b"1")
    await anext(watch)
    lease = await store.grant_lease(60.0)
    guarded.kill()  # it keeps tokens in memory
    guarded.start()
    await store.put("a", b"2")
    assert (await anext(watch)).value == b"2"
    await store.refresh_lease(lease)
    await store.close()
