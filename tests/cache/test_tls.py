"""TLS at the cache port, and towards a Valkey: certificates made here, real handshakes."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from predis.cache import upstream
from predis.cache.resp import bulk, command
from predis.cache.tls import server_context
from predis.cache.upstream import Address, Single
from predis.errors import InvalidSetting
from tests.cache.gateways import Raw, Served, gateway, valkey
from tests.installation import settings_of

x509 = pytest.importorskip("cryptography.x509")


@dataclass
class Authority:
    """Who signs certificates for 127.0.0.1."""

    folder: Path
    key: Any
    certificate: Any

    @classmethod
    def make(cls, folder: Path) -> Authority:
        folder.mkdir()
        key = _key()
        certificate = _signed("authority", key, issuer=None, by=key, authority=True)
        made = cls(folder, key, certificate)
        made.file.write_bytes(_pem(certificate))
        return made

    @property
    def file(self) -> Path:
        return self.folder / "authority.pem"

    def sign(self, name: str) -> tuple[Path, Path]:
        """A certificate of that name and its key."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        key = _key()
        certificate, secret = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        certificate.write_bytes(_pem(_signed(name, key, issuer=self.certificate, by=self.key)))
        secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return certificate, secret


def _key() -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _pem(certificate: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    made: bytes = certificate.public_bytes(Encoding.PEM)
    return made


def _signed(name: str, key: Any, *, issuer: Any, by: Any, authority: bool = False) -> Any:
    from cryptography.hazmat.primitives.hashes import SHA256

    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(names, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(by, SHA256())


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("tls") / "theirs")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with valkey(tmp_path_factory.mktemp("valkey")) as made:
        yield made


@pytest.fixture(scope="module")
def served(ours: Authority, port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    certificate, key = ours.sign("gateway")
    settings = settings_of(
        tmp_path_factory.mktemp("home"), cache_tls_cert=str(certificate), cache_tls_key=str(key)
    )
    with gateway(port, tls=server_context(settings)) as made:
        yield made


def test_a_client_that_trusts_the_authority(served: Served, ours: Authority) -> None:
    with redis.Redis.from_url(f"rediss://127.0.0.1:{served.port}", ssl_ca_certs=str(ours.file)) as client:
        assert client.set("a", b"\x00" * 300_000)
        assert client.get("a") == b"\x00" * 300_000
        pipeline = client.pipeline(transaction=False)
        for number in range(1_000):
            pipeline.set(f"k{number}", number)
        assert all(pipeline.execute())


def test_a_client_that_trusts_another_refuses(served: Served, theirs: Authority) -> None:
    with (
        redis.Redis.from_url(f"rediss://127.0.0.1:{served.port}", ssl_ca_certs=str(theirs.file)) as client,
        pytest.raises(redis.ConnectionError, match="certificate verify failed"),
    ):
        client.ping()


def test_plain_text_is_refused_and_others_are_untouched(served: Served, ours: Authority) -> None:
    with redis.Redis.from_url(f"rediss://127.0.0.1:{served.port}", ssl_ca_certs=str(ours.file)) as client:
        assert client.ping()
        plain = Raw(served.port)
        plain.send(command(b"PING"))
        assert b"PONG" not in plain.rest()
        plain.close()
        assert client.ping()


def test_a_handshake_that_does_not_go_on_is_ended(
    ours: Authority, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("predis.cache.gateway._HANDSHAKE_S", 0.1)
    certificate, key = ours.sign("gateway-3")
    settings = settings_of(tmp_path, cache_tls_cert=str(certificate), cache_tls_key=str(key))
    with gateway(port, tls=server_context(settings)) as made:
        client = Raw(made.port)
        assert client.rest() == b""
        client.close()


def test_a_client_that_has_to_show_a_certificate(
    ours: Authority, theirs: Authority, port: int, tmp_path: Path
) -> None:
    certificate, key = ours.sign("gateway-2")
    settings = settings_of(
        tmp_path, cache_tls_cert=str(certificate), cache_tls_key=str(key), cache_tls_client_ca=str(ours.file)
    )
    with gateway(port, tls=server_context(settings)) as made:
        for authority, let_in in ((ours, True), (theirs, False), (None, False)):
            shown = (
                dict(zip(("ssl_certfile", "ssl_keyfile"), map(str, authority.sign("client")), strict=True))
                if authority
                else {}
            )
            with redis.Redis.from_url(
                f"rediss://127.0.0.1:{made.port}", ssl_ca_certs=str(ours.file), **shown
            ) as client:
                if let_in:
                    assert client.ping()
                else:
                    with pytest.raises(redis.ConnectionError):
                        client.ping()


def test_files_that_cannot_be_used(ours: Authority, tmp_path: Path) -> None:
    certificate, _ = ours.sign("other")
    for said in (
        {"cache_tls_cert": str(tmp_path / "none.pem")},
        {"cache_tls_cert": str(certificate)},
        {"cache_tls_key": str(certificate)},
    ):
        with pytest.raises(InvalidSetting, match=r"cache_tls|certificate"):
            server_context(settings_of(tmp_path, **said))
    assert server_context(settings_of(tmp_path)) is None


@contextlib.contextmanager
def tunnel(served: Served, port: int, authority: Authority) -> Iterator[int]:
    """What ends TLS in front of a Valkey that knows none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.sign("tunnel"))
    carrying: set[asyncio.Task[None] | None] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
            writer.close()
            await writer.wait_closed()

    async def come(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        carrying.add(asyncio.current_task())
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(carry(reader, behind_writer), carry(behind_reader, writer))

    async def start() -> asyncio.Server:
        return await asyncio.start_server(come, "127.0.0.1", 0, ssl=context)

    async def end() -> None:
        server.close()
        await asyncio.gather(*filter(None, carrying))

    server: asyncio.Server = served.do(start())
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        served.do(end())


def test_a_valkey_behind_tls(
    served: Served, ours: Authority, theirs: Authority, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "CONNECT_S", 0.5)
    with tunnel(served, port, ours) as secured:
        address = Address.of(f"rediss://127.0.0.1:{secured}/2")
        trusting = ssl.create_default_context(cafile=str(ours.file))
        with gateway(Single(address, tls=trusting), database=2) as made:
            client = Raw(made.port)
            big = b"x" * 500_000
            assert client.ask(command(b"SET", b"tls", big) + command(b"GET", b"tls"), 2) == b"+OK\r\n" + bulk(
                big
            )
            client.close()
        with redis.Redis(port=port, db=2) as straight:
            assert straight.strlen("tls") == len(big)
        # The authorities of the system do not know this one, nor does somebody else's.
        for doubting in (None, ssl.create_default_context(cafile=str(theirs.file))):
            with gateway(Single(address, tls=doubting)) as made:
                client = Raw(made.port)
                client.send(command(b"PING"))
                assert client.rest().startswith(b"-LOADING Valkey at 127.0.0.1")
                client.close()
