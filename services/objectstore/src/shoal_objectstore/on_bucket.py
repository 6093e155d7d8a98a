"""The objectstore service on a bucket of MinIO, or of any S3 server, which it shares with its other replicas."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from shoal_common.blob.bucket_claim import claim_when_reached
from shoal_common.blob.bucket_store import CONNECTIONS, MinioBlobStore
from shoal_common.blob.s3 import S3Bucket, S3Settings
from shoal_common.errors import ServiceError
from shoal_common.service.config import ConfigError
from shoal_common.service.metrics import Sample
from shoal_objectstore.app import ObjectStoreApp
from shoal_objectstore.config import ObjectStoreConfig

ACCESS_KEY_VARIABLE = "SHOAL_S3_ACCESS_KEY"
SECRET_KEY_VARIABLE = "SHOAL_S3_SECRET_KEY"
#: Older uploads that were not completed are swept at the start: no put takes so long.
STALE_UPLOAD = timedelta(hours=2)

_log = structlog.get_logger()


def s3_settings(config: ObjectStoreConfig, environ: MutableMapping[str, str]) -> S3Settings:
    """With the credentials, whose variables are taken out of ``environ`` so that no child process inherits them.

    Raises: ConfigError.
    """
    access_key = _secret("s3_access_key_file", config.s3_access_key_file, ACCESS_KEY_VARIABLE, environ)
    secret_key = _secret("s3_secret_key_file", config.s3_secret_key_file, SECRET_KEY_VARIABLE, environ)
    return S3Settings(config.s3_endpoint, config.s3_bucket, access_key, secret_key, config.s3_ca)


def _secret(setting: str, path: Path | None, variable: str, environ: MutableMapping[str, str]) -> str:
    """The file wins over the variable, which is removed in any case."""
    secret = environ.pop(variable, "").strip()
    if path is not None:
        try:
            secret = path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{setting}: {path} cannot be read: {error}") from error
    if not secret:
        raise ConfigError(f"an S3 server needs credentials: give {setting}, or {variable}")
    return secret


class ObjectStoreOnBucket:
    """The service, its store and the store's bucket."""

    def __init__(self, config: ObjectStoreConfig, settings: S3Settings) -> None:
        """In the event loop that will run it. Raises: ConfigError when the settings cannot be used."""
        self._config = config
        try:
            self._bucket = S3Bucket(settings, CONNECTIONS)
        except (ValueError, OSError) as error:
            raise ConfigError(f"s3_endpoint, s3_bucket or s3_ca cannot be used: {error}") from error
        self._blobs = MinioBlobStore(self._bucket)
        self._app = ObjectStoreApp(config, self._blobs, self._blobs if config.s3_direct else None)

    @property
    def address(self) -> str:
        return self._app.address

    def samples(self) -> Iterator[Sample]:
        return self._app.samples()

    async def start(self) -> None:
        """Waits for the S3 server. Raises: ServiceError that says what is wrong with it, OSError."""
        try:
            await claim_when_reached(self._bucket, self._config.cluster_id, self._config.start_timeout_s)
            await self._sweep()
            await self._app.start()
        except BaseException:
            await self._blobs.close()
            raise

    async def stop(self) -> None:
        await self._app.stop()
        await self._blobs.close()

    async def _sweep(self) -> None:
        stale = datetime.now(UTC) - STALE_UPLOAD
        try:
            swept = await self._blobs.sweep_uploads(lambda upload: upload.begun < stale)
        except ServiceError as error:
            _log.warning("uploads_not_swept", reason=str(error))
        else:
            _log.info("uploads_swept", uploads=swept)
