"""Errors caused by user input. Each message carries the value, the rule and the remedy.

The commands print the message as one line and exit with code 2; library users catch
`HieraVideoError` or `ValueError`.
"""


class HieraVideoError(ValueError):
    """Base class of all errors caused by user input, as opposed to bugs in this package."""


class ConfigError(HieraVideoError):
    """A key, value or combination of values in the configuration is invalid."""


class ManifestError(HieraVideoError):
    """A list of videos is missing or has an invalid line; the message starts with `file:line`."""


class DecodeError(HieraVideoError):
    """A video cannot be read.

    `reason` is one of `hiera_video.video.reader.REASONS`; the message has the details.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        # keyword-only arguments do not survive the default pickling between worker processes
        return _rebuild_decode_error, (str(self), self.reason)


class WorkerError(HieraVideoError):
    """The worker processes that read videos keep dying: the machine is at fault, not the data."""


class StorageError(HieraVideoError):
    """The storage of the videos fails, or the process has too few resources to read them."""


class InputSizeError(HieraVideoError):
    """The shape of a clip or mask does not fit the model."""


class CheckpointError(HieraVideoError):
    """A checkpoint is missing, damaged or incompatible."""


class FeatureError(HieraVideoError):
    """A feature store is missing, damaged, unfinished or was made with other settings."""


class ExportError(HieraVideoError):
    """An exported program cannot be made or read, or its outputs differ from the model's."""


class MissingPackageError(HieraVideoError):
    """An optional package is not installed; the message is the line that installs it."""


class DeviceMemoryError(HieraVideoError):
    """The batch does not fit into the device's memory."""


def _rebuild_decode_error(message: str, reason: str) -> DecodeError:
    return DecodeError(message, reason=reason)
