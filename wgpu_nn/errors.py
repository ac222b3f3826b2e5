"""The error types of wgpu_nn and their one message format; knows nothing of what raises them.

A message names the operation, what was expected, what came, and the way out:
``matmul: inner sizes differ, got [2, 3] @ [4, 5]; transpose one of them?``
"""


class WgpuNNError(Exception):
    """Base of every error that wgpu_nn raises on purpose."""


class ShapeError(WgpuNNError, ValueError):
    """Shapes, ranks, axes or sizes do not fit the operation."""


class KindError(WgpuNNError, TypeError):
    """Kinds (Float, Int, Bool) or element types do not fit the operation."""


class IndexRangeError(WgpuNNError, IndexError):
    """An index lies outside of the axis that it indexes."""


class DeviceMismatchError(WgpuNNError, ValueError):
    """Tensors of one operation live on different devices."""


class GradientError(WgpuNNError, RuntimeError):
    """A gradient was asked for where none is defined or recorded."""


class DeviceError(WgpuNNError, RuntimeError):
    """The adapter or device cannot do what was asked."""


class AdapterError(DeviceError):
    """No adapter answers, or none matches the one asked for."""


class OutOfMemoryError(DeviceError, MemoryError):
    """The device has no room for a buffer, even after its pool was emptied."""


class DeviceLostError(DeviceError):
    """The device went away (driver reset, destroyed); its buffers are gone."""


class DeviceLimitError(DeviceError):
    """A request exceeds a limit of the device; the message names the limit and its value."""


class ShaderError(DeviceError):
    """A WGSL shader does not compile; the message carries file, line and column."""


class SanitizerError(DeviceError):
    """A watched shader did what it must not: an access out of bounds, a race, a NaN, an output left unwritten."""


class CaptureError(WgpuNNError, RuntimeError):
    """A captured function did something that cannot be replayed."""


class ConfigError(WgpuNNError, ValueError):
    """A configuration misses a field, has an unknown one, or one of the wrong type or value."""


class RecordError(WgpuNNError, ValueError):
    """A saved file is missing, truncated, foreign, or does not fit the module it is loaded into."""


class DataError(WgpuNNError, ValueError):
    """A data set or an image is missing, empty, malformed or of the wrong size."""


class TrainingError(WgpuNNError, RuntimeError):
    """Training cannot go on (a loss that is not finite, for example)."""


class MissingExtraError(WgpuNNError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


def missing_extra(what: str, package: str, extra: str) -> MissingExtraError:
    """Return the error that says which optional extra brings ``package``, needed for ``what``."""
    return MissingExtraError(
        f"{what}: needs the package {package}, which is not installed; pip install 'wgpu-nn[{extra}]'"
    )
