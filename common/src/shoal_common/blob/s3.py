"""One bucket of an S3 server, through the ``minio`` client: blocking calls with deadlines, and the services' errors.

The client library signs every request; those with a body go out as signed URLs by our own hand. The library would
hash such a body with SHA-256, have the server hash it again, and copy it: more than half of what an upload costs.
Checksums of our own are stored with every blob.
"""

from __future__ import annotations

import logging
import ssl
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error

from shoal_common.errors import (
    AlreadyExists,
    DataLoss,
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    OutOfDisk,
    PreconditionFailed,
    ServiceError,
    Unavailable,
)

#: A connection is given up after this time, in seconds; so is a body that takes longer to send.
CONNECT_TIMEOUT_S = 10.0
#: And an answer of which nothing comes for this time, in seconds.
READ_TIMEOUT_S = 15.0
#: A signed URL is good for so long. Generous, because the clocks of two hosts may differ by minutes.
SIGNED_FOR = timedelta(minutes=30)

# Its warnings print the URLs that are tried again, which are signed; what fails in the end is told by our errors.
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)

_FULL = {"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage", "QuotaExceeded"}
_REFUSED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"}
_NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"


class AccessRefused(Unavailable):
    """The server does not accept the credentials, or they do not allow this."""


@dataclass(frozen=True, slots=True)
class S3Settings:
    """Which bucket, and how it is reached."""

    #: ``host:port``, or a URL without path. Without a scheme it is https when ``ca`` is given.
    endpoint: str
    bucket: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    #: PEM file of the authority that signed the server's certificate; None = those that the system trusts.
    ca: Path | None = None

    @property
    def secure(self) -> bool:
        scheme, separator, _rest = self.endpoint.partition("://")
        return scheme == "https" if separator else self.ca is not None

    @property
    def host(self) -> str:
        """``host:port``. Raises: ValueError when the endpoint is not what is described above."""
        parts = urlsplit(self.endpoint if "://" in self.endpoint else f"//{self.endpoint}")
        if parts.scheme not in ("", "http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError(f"{self.endpoint!r} is neither host:port nor http://host:port nor https://host:port")
        _ = parts.port
        return parts.netloc


class Upload(NamedTuple):
    """A multipart upload that was begun and neither completed nor aborted."""

    name: str
    upload_id: str
    begun: datetime


class S3Bucket:
    """Thread-safe. Objects have names here; which keys of blobs they stand for is `MinioBlobStore`'s to say.

    Every method raises: NotFound, PreconditionFailed, OutOfDisk, AccessRefused, InvalidRequest for the bucket's name;
    Unavailable when the server is not reached or not able, DeadlineExceeded when it does not answer in time.
    """

    def __init__(self, settings: S3Settings, connections: int, read_timeout_s: float = READ_TIMEOUT_S) -> None:
        """``connections`` are kept open at most. Raises: ValueError for an impossible endpoint, OSError for ``ca``."""
        self.name = settings.bucket
        self.endpoint = settings.endpoint
        #: Of the authority that signed the server's certificate; b"" = those that the system trusts.
        self.ca_pem = settings.ca.read_bytes() if settings.ca else b""
        self._http = urllib3.PoolManager(
            maxsize=connections,
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=read_timeout_s),
            retries=urllib3.Retry(
                total=2,
                connect=1,
                read=0,
                redirect=0,
                backoff_factor=0.2,
                status_forcelist=(500, 502, 503, 504),
                raise_on_status=False,
                # A MinIO that is just starting asks for a minute.
                respect_retry_after_header=False,
            ),
            ssl_context=ssl.create_default_context(cafile=settings.ca) if settings.secure else None,
        )
        self._client = Minio(
            settings.host,
            settings.access_key,
            settings.secret_key,
            secure=settings.secure,
            http_client=self._http,
        )

    def close(self) -> None:
        self._http.clear()

    def exists(self) -> bool:
        with self._errors():
            return bool(self._client.bucket_exists(self.name))

    def make(self) -> None:
        """Does nothing when somebody else was faster."""
        try:
            with self._errors():
                self._client.make_bucket(self.name)
        except AlreadyExists:
            pass

    def signed_url(self, method: str, name: str, query: Mapping[str, str] | None = None) -> str:
        """Whoever has it may send this request, for `SIGNED_FOR`."""
        with self._errors(name):
            return str(
                self._client.get_presigned_url(
                    method, self.name, name, SIGNED_FOR, extra_query_params=dict(query) if query else None
                )
            )

    def put(self, name: str, body: Sequence[bytes], *, only_new: bool = False) -> None:
        """Store an object in one request. Raises: PreconditionFailed when it exists and ``only_new``."""
        self._send("PUT", name, body, headers={"If-None-Match": "*"} if only_new else {})

    def begin_upload(self, name: str) -> str:
        """The id of a new multipart upload."""
        answer = self._send("POST", name, query={"uploads": ""})
        return _text(ElementTree.fromstring(answer.data), "UploadId")

    def put_part(self, name: str, upload_id: str, number: int, body: Sequence[bytes]) -> str:
        """The part's tag. ``number`` counts from 1."""
        answer = self._send("PUT", name, body, query={"uploadId": upload_id, "partNumber": str(number)})
        return str(answer.headers["ETag"])

    def complete_upload(self, name: str, upload_id: str, tags: Iterable[str]) -> None:
        """The object becomes visible, made of the parts with these tags."""
        root = ElementTree.Element("CompleteMultipartUpload")
        for number, tag in enumerate(tags, 1):
            part = ElementTree.SubElement(root, "Part")
            ElementTree.SubElement(part, "PartNumber").text = str(number)
            ElementTree.SubElement(part, "ETag").text = tag
        answer = self._send("POST", name, [ElementTree.tostring(root)], query={"uploadId": upload_id})
        # S3 begins this answer before it knows the outcome: an error may come with status 200.
        if b"<Error>" in answer.data:
            raise Unavailable(f"{self.endpoint} did not complete the upload of {name}: {_error_code(answer.data)}")

    def abort_upload(self, name: str, upload_id: str) -> None:
        """Its parts are deleted. Does nothing when there is no such upload."""
        try:
            self._send("DELETE", name, query={"uploadId": upload_id})
        except NotFound:
            pass

    def uploads(self) -> list[Upload]:
        """The first thousand multipart uploads under way. MinIO forgets them, not their parts, when it restarts."""
        with self._errors():
            # Why the underscore: the library has no other way to ask, and signs URLs of objects only.
            found = self._client._list_multipart_uploads(self.name).uploads
        return [
            Upload(each.object_name, each.upload_id, each.initiated_time)
            for each in found
            if each.upload_id and each.initiated_time
        ]

    def open(self, name: str, bytes_range: str, tag: str = "") -> urllib3.BaseHTTPResponse:
        """An answer to read from, and then to close; ``bytes_range`` is HTTP's: ``0-9``, ``-100`` for the end.

        Raises: PreconditionFailed when ``tag`` is given and the object has become another.
        """
        headers: dict[str, str | list[str] | tuple[str]] = {"Range": f"bytes={bytes_range}"}
        if tag:
            headers["If-Match"] = tag
        with self._errors(name):
            answer: urllib3.BaseHTTPResponse = self._client.get_object(self.name, name, request_headers=headers)
            return answer

    def read(self, answer: urllib3.BaseHTTPResponse, size: int, name: str) -> bytes:
        """At most ``size`` bytes; b"" at the end."""
        with self._errors(name):
            return answer.read(size)

    def has(self, name: str) -> bool:
        try:
            with self._errors(name):
                self._client.stat_object(self.name, name)
        except NotFound:
            return False
        return True

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Name and size in bytes of every object whose name begins with ``prefix``."""
        with self._errors():
            for each in self._client.list_objects(self.name, prefix=prefix, recursive=True):
                yield each.object_name, each.size

    def delete(self, names: Iterable[str]) -> None:
        with self._errors():
            for failure in self._client.remove_objects(self.name, map(DeleteObject, names)):
                raise Unavailable(f"{self.endpoint} did not delete {failure.name}: {failure.code}")

    def _send(
        self,
        method: str,
        name: str,
        body: Sequence[bytes] = (),
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> urllib3.BaseHTTPResponse:
        url = self.signed_url(method, name, query)
        size = {"Content-Length": str(sum(map(len, body)))} if method in ("PUT", "POST") else {}
        with self._errors(name):
            # A list is sent chunk by chunk, and again from the start when the request is repeated.
            answer = self._http.request(method, url, body=list(body) or None, headers={**size, **(headers or {})})
            if answer.status >= 300:
                raise self._refusal(_error_code(answer.data) or str(answer.status), name)
            return answer

    def _refusal(self, code: str, name: str) -> ServiceError:
        where = f"the bucket {self.name} of {self.endpoint}"
        if code in _FULL:
            return OutOfDisk(f"{where} is full: {name} was not stored; free some, or give it larger disks ({code})")
        if code in _REFUSED:
            return AccessRefused(f"{where} refuses the objectstore service's credentials ({code})")
        if code in ("NoSuchKey", "NoSuchUpload", "404"):
            return NotFound(f"there is no {name} in {where}")
        if code == "InvalidBucketName":
            return InvalidRequest(f"{where} has a name that no bucket can have: choose another one (s3_bucket)")
        if code == "NoSuchBucket":
            return Unavailable(f"{where} does not exist: somebody has deleted it, and all blobs with it")
        if code in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            return AlreadyExists(f"{where} exists")
        if code == "InvalidRange":
            return DataLoss(f"{name} in {where} is damaged: it is shorter than what was stored")
        if code in ("PreconditionFailed", "412"):
            return PreconditionFailed(f"{name} in {where} is not what it was expected to be")
        return Unavailable(f"{where} does not serve {name or 'this'} now: {code}")

    @contextmanager
    def _errors(self, name: str = "") -> Iterator[None]:
        try:
            yield
        except S3Error as error:
            raise self._refusal(str(error.code), name) from error
        except MinioException as error:
            raise Unavailable(f"{self.endpoint} answers, but not as an S3 server does: {error}") from error
        except urllib3.exceptions.HTTPError as error:
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError):
                raise Unavailable(f"{self.endpoint} is not reached: {reason}") from error
            if isinstance(reason, urllib3.exceptions.TimeoutError | TimeoutError):
                raise DeadlineExceeded(f"{self.endpoint} does not answer: {reason}") from error
            raise Unavailable(f"the connection to {self.endpoint} failed: {reason}") from error


def _text(element: ElementTree.Element, tag: str) -> str:
    return element.findtext(f"{_NAMESPACE}{tag}") or element.findtext(tag) or ""


def _error_code(xml: bytes) -> str:
    """The code in an error of S3; "" when there is none."""
    try:
        return _text(ElementTree.fromstring(xml), "Code")
    except ElementTree.ParseError:
        return ""
