"""What the raw files of a PostgreSQL base backup hold of a vault's keys: what an attacker would find who has the files
and a master.key, dead tuples and the write-ahead log included. For the proof that an erasure holds.

Nothing is asked of a server. The bytes of a row of a month's table are, in a table's page as in a log record:

    device i64, epoch i64, wrapping_key_id i64, length byte 0x7b, wrapped 60 bytes        little-endian

and of an account key's, whose columns before these are padded to 8 bytes:

    length byte 0x23, id 16 bytes, padding 7 bytes, made_ms i64, wrapping_key_id i64, length byte 0x7b, wrapped 60 bytes

So every place is found where the id of a wrapping key that is at hand is followed by that length. The month is no part
of the row, it is tried. In the log a row may run across the header of a page: headers are taken out first.

Not seen are page images that the server compressed (`wal_compression`), and files of a backup in tar format, which is
refused. A server of the other byte order writes other files.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from storage._key_files import MASTER_MAGIC, read_key_file, unavailable
from storage._key_wrapping import WRAPPED_BYTES, WrappingKeys
from storage.errors import CallerError, CorruptError
from storage.vault import ACCOUNT_KEY_ID_BYTES, KeyId

_FIRST_YEAR, _LAST_YEAR = 2000, 2099
"""Months of expiry that are tried."""
_LENGTH = bytes([(WRAPPED_BYTES + 1) << 1 | 1])
"""How PostgreSQL begins a value of so many bytes."""
_ROW = struct.Struct("<qq")
_ID = struct.Struct("<q")
_LOG_PAGE = 8192
_LOG_HEADER, _LONG_LOG_HEADER = 24, 40
_IS_LONG = 0x02
_LOG_FILE = re.compile(r"[0-9A-F]{24}(\.partial)?")
_ACCOUNT_ROW = struct.Struct(f"<B{ACCOUNT_KEY_ID_BYTES}s7xq")
_ID_LENGTH = (ACCOUNT_KEY_ID_BYTES + 1) << 1 | 1
_READ_BYTES = 16 << 20
"""Of a file at a time; tables and log segments are read in such parts, which overlap by a row."""
_OVERLAP = 32 + 8 + 1 + WRAPPED_BYTES - 1
"""One byte less than the longer row: each is whole in one part, and a data key's may be in two."""


class BaseBackup:
    """The files of one base backup.

    Args:
        folder: as `pg_basebackup` made it, in plain format.
        master_key: the file of wrapping keys to attack with.

    Raises:
        CallerError: `bad_backup`: there are no such files; `no_master_key`.
        CorruptError, CallerError: as `read_key_file`, for `master_key`.
    """

    def __init__(self, folder: Path, master_key: Path) -> None:
        if not (folder / "base").is_dir() or not (folder / "PG_VERSION").is_file():
            raise CallerError(
                "no base backup in plain format is here; unpack it, or make one by `pg_basebackup --format=plain`",
                subject=str(folder),
                code="bad_backup",
            )
        if not master_key.is_file():
            raise CallerError(
                "no file of wrapping keys is here; --master-key names one",
                subject=str(master_key),
                code="no_master_key",
            )
        self._folder = folder
        self._ids = [number for number, _ in read_key_file(master_key, MASTER_MAGIC)]
        self._wrapping_keys = WrappingKeys(master_key, "the base backup")
        self._months = [
            year * 100 + month for year in range(_FIRST_YEAR, _LAST_YEAR + 1) for month in range(1, 13)
        ]

    def every_key(self, *, device: int | None = None) -> Iterator[tuple[KeyId, bytes]]:
        """Yield every data key that can be unwrapped, of all devices or one, some of them several times. Reads all
        files.

        Raises:
            WorldError: a file can't be read.
        """
        for data, place, wrapping_key_id, wrapped in self._places():
            start = place - _ROW.size
            if start < 0:  # it began in the part before, and was whole there
                continue
            number, epoch = _ROW.unpack_from(data, start)
            if not 0 <= number < 2**32 or not 0 <= epoch < 2**32 or device not in (None, number):
                continue
            key = self._unwrapped(number, epoch, wrapping_key_id, wrapped)
            if key is not None:
                yield key

    def every_account_key(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield (id, key) of every account key that can be unwrapped, some of them several times. Raises as
        `every_key`."""
        for data, place, wrapping_key_id, wrapped in self._places():
            start = place - _ACCOUNT_ROW.size
            if start < 0:
                continue
            length, id_, _ = _ACCOUNT_ROW.unpack_from(data, start)
            if length == _ID_LENGTH:
                with suppress(CorruptError):
                    yield id_, self._wrapping_keys.unwrap(wrapping_key_id, id_, wrapped)

    def _places(self) -> Iterator[tuple[bytes, int, int, bytes]]:
        """Yield what may be a wrapped key: (bytes of a part, place of the wrapping key's id, that id, what is
        wrapped)."""
        ids = b"|".join(re.escape(_ID.pack(number)) for number in self._ids)
        places = re.compile(b"(?:%b)%b(?=.{%d})" % (ids, re.escape(_LENGTH), WRAPPED_BYTES), re.DOTALL)
        for data in self._parts():
            for found in places.finditer(data):
                wrapped = data[found.end() : found.end() + WRAPPED_BYTES]
                yield data, found.start(), _ID.unpack_from(data, found.start())[0], wrapped

    def _unwrapped(
        self, device: int, epoch: int, wrapping_key_id: int, wrapped: bytes
    ) -> tuple[KeyId, bytes] | None:
        for place, month in enumerate(self._months):
            key_id = KeyId(device, epoch, month)
            try:
                key = self._wrapping_keys.unwrap(wrapping_key_id, key_id, wrapped)
            except CorruptError:
                continue
            self._months.insert(0, self._months.pop(place))  # its neighbours are of the same month
            return key_id, key
        return None

    def _parts(self) -> Iterator[bytes]:
        """The bytes of all files, in parts that overlap."""
        try:
            for path in sorted(path for path in self._folder.rglob("*") if path.is_file()):
                is_log = _LOG_FILE.fullmatch(path.name) is not None
                kept = b""
                with path.open("rb") as file:
                    while data := file.read(_READ_BYTES):
                        data = kept + (_without_headers(data) if is_log else data)
                        yield data
                        kept = data[-_OVERLAP:]
        except OSError as error:
            raise unavailable(self._folder, error) from error


def _without_headers(log: bytes) -> bytes:
    """The records of whole pages of the write-ahead log."""
    pages = []
    for start in range(0, len(log), _LOG_PAGE):
        page = log[start : start + _LOG_PAGE]
        is_long = len(page) >= 4 and page[2] & _IS_LONG
        pages.append(page[_LONG_LOG_HEADER if is_long else _LOG_HEADER :])
    return b"".join(pages)
