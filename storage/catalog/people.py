"""What the account books keep about people beside their accounts; a part of `storage.catalog.books.Books`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from storage.rows.accounts import AgreementRow
from storage.rows.clips import ClipRow
from storage.rows.devices import DeviceName
from storage.rows.people import AnnouncementRow, ConsentRow, CorrectionRow, ExportRow
from storage.rows.shares import ShareRow


class PeopleBooks(ABC):
    """See `Books` for what holds of all its methods."""

    # --- corrections of untrue data (6.1.1) -------------------------------------------------------------------

    @abstractmethod
    def add_correction(self, row: CorrectionRow) -> CorrectionRow: ...

    @abstractmethod
    def put_correction(self, row: CorrectionRow) -> None: ...

    @abstractmethod
    def corrections(
        self, *, account: int | None = None, open_only: bool = False, after: int = 0, limit: int = 100
    ) -> list[CorrectionRow]:
        """`open_only`: those with a next step."""

    @abstractmethod
    def corrections_due(self, *, on: int, after: int = 0, limit: int = 100) -> list[CorrectionRow]:
        """Those whose next step is due on that day or earlier, with an id above `after`."""

    # --- what everybody may read ------------------------------------------------------------------------------

    @abstractmethod
    def publish_policy(self, text: str, *, now_ms: int) -> AgreementRow:
        """A new version of the privacy policy; the newest one again when its text is the same."""

    @abstractmethod
    def policy(self, version: int | None = None) -> AgreementRow:
        """One version of the privacy policy, or the newest. Raises NotFound."""

    @abstractmethod
    def policies(self) -> list[AgreementRow]: ...

    @abstractmethod
    def put_announcement(self, row: AnnouncementRow) -> None:
        """Store or replace."""

    @abstractmethod
    def announcements(self, *, now_ms: int, limit: int = 100) -> list[AnnouncementRow]:
        """Those that are not over, in order of their beginning."""

    @abstractmethod
    def drop_announcement(self, reference: str) -> bool: ...

    # --- consents ---------------------------------------------------------------------------------------------

    @abstractmethod
    def put_consent(self, row: ConsentRow) -> None:
        """Store or replace what the account has said of this subject."""

    @abstractmethod
    def consents_of(self, account: int) -> list[ConsentRow]:
        """In order of subject."""

    @abstractmethod
    def consenting(self, subject: str, *, after: int = 0, limit: int = 100) -> list[int]:
        """Numbers of the accounts that have said yes, above `after`."""

    # --- names of devices -------------------------------------------------------------------------------------

    @abstractmethod
    def put_device_name(self, row: DeviceName) -> None:
        """What its owner calls a device, from now on; with two empty texts nothing."""

    @abstractmethod
    def device_names(self, devices: Sequence[int]) -> dict[int, DeviceName]:
        """Of these devices, some thousand at most, those that have a name or a label."""

    @abstractmethod
    def named_devices(self, account: int, *, after: int = 0, limit: int = 1000) -> list[DeviceName]:
        """Devices of an account that have a name or a label, with numbers above `after`, in order."""

    # --- serials of devices -----------------------------------------------------------------------------------

    @abstractmethod
    def add_serial(self, device: int, account: int, serial: str) -> None:
        """Raises CallerError `serial_taken`: another device has it."""

    @abstractmethod
    def release_serial(self, device: int) -> None:
        """Another device may have its serial from now on. Nothing when it has none."""

    @abstractmethod
    def serial_of(self, device: int) -> str | None: ...

    @abstractmethod
    def use_serial_trial(self, device: int, *, on: int) -> bool:
        """Note that the device's serial had its trial, begun on that day; it is remembered for ever, as a keyed hash.
        False: it had one before. True for a device without a serial."""

    # --- downloads of all that is kept ------------------------------------------------------------------------

    @abstractmethod
    def add_export(self, row: ExportRow) -> ExportRow: ...

    @abstractmethod
    def put_export(self, row: ExportRow) -> None: ...

    @abstractmethod
    def exports(self, *, account: int | None = None, after: int = 0, limit: int = 100) -> list[ExportRow]: ...

    @abstractmethod
    def exports_waiting(self, *, now_ms: int, limit: int = 100) -> list[ExportRow]:
        """Queued ones that nobody makes now, the oldest first."""

    @abstractmethod
    def drop_exports(self, *, before_ms: int) -> int:
        """Forget those that expired before then. Returns how many."""

    # --- share links ------------------------------------------------------------------------------------------

    @abstractmethod
    def add_share(self, row: ShareRow) -> ShareRow: ...

    @abstractmethod
    def shares_of(self, device: int, *, after: int = 0, limit: int = 100) -> list[ShareRow]: ...

    @abstractmethod
    def drop_share(self, device: int, share_id: int) -> bool:
        """End one. Whether there was such a link of this device."""

    @abstractmethod
    def drop_shares(self, *, before_ms: int, device: int | None = None) -> int:
        """Forget those that expired by then, of this device or of all. Returns how many."""

    # --- kept clips -------------------------------------------------------------------------------------------

    @abstractmethod
    def add_clip(self, row: ClipRow, key_id: bytes) -> ClipRow:
        """Add a clip that is to be copied. Its key was made in the vault before. Raises CallerError `key_taken`."""

    @abstractmethod
    def clips_of(self, device: int, *, after: int = 0, limit: int = 100) -> list[ClipRow]: ...

    @abstractmethod
    def clip(self, device: int, clip_id: int) -> ClipRow:
        """Raises NotFound, also for another device's."""

    @abstractmethod
    def kept_bytes(self, account: int) -> int:
        """Of all clips of its devices, those that are being copied included."""

    @abstractmethod
    def drop_clip(self, device: int, clip_id: int, *, now_ms: int) -> bool:
        """End one: its rows go, its objects are to be deleted, its key is to be destroyed. Whether there was one."""
