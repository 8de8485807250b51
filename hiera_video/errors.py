"""Errors that a user's input can cause. Each message carries the value, the rule and the remedy.

The tools print the message as one line and exit with 2; library users can catch `HieraVideoError`, or `ValueError`.
"""


class HieraVideoError(ValueError):
    """Base of every error that the user's input causes, as opposed to a bug of ours."""


class ConfigError(HieraVideoError):
    """A key, value or combination of values in the configuration is wrong."""


class ManifestError(HieraVideoError):
    """A list of videos is missing or has a bad line; the message starts with `file:line`."""


class DecodeError(HieraVideoError):
    """A video cannot be read. `reason` is a short fixed word that can be counted, the message says the rest."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_decode_error, (
            str(self),
            self.reason,
        )  # keyword-only arguments survive a worker's pickle


class WorkerError(HieraVideoError):
    """The processes that read videos die again and again: the machine, not the data."""


class InputSizeError(HieraVideoError):
    """A clip's or mask's shape does not fit the model."""


class CheckpointError(HieraVideoError):
    """A checkpoint is missing, damaged, or does not fit."""


class FeatureError(HieraVideoError):
    """A folder of extracted features is missing, damaged, unfinished, or was made with other settings."""


class ExportError(HieraVideoError):
    """An exported program cannot be made or read, or answers otherwise than the model."""


class DeviceMemoryError(HieraVideoError):
    """The batch does not fit into the device's memory."""


def _rebuild_decode_error(message: str, reason: str) -> DecodeError:
    return DecodeError(message, reason=reason)
