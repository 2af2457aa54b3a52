"""Random changes of one example, drawn as a plan: a few small arrays that say what is done to it.

A plan is a function of (seed, position) alone, never of pixels, so it can be applied wherever these are: by
`fume_jax.data.transforms` with OpenCV, or by `fume_jax.learning.augment_jax` on an accelerator. Both gases see one
scene, so geometry and brightness change alike in both; they differ in the gas and the noise of the camera.

The operations and their probabilities are those of the reference (arXiv:2601.08205). Lengths are shares of the frame,
so that they mean the same at any size; only kernels of blur are in pixels. A plan has those of these entries that one
of its operations may draw. An entry has a value that changes nothing until an operation is applied. Entries are applied
in this order:

| key | dtype, shape | meaning |
| --- | --- | --- |
| `matrix` | float32 [2, 3] | every pixel (x, y) is taken from where it maps (x, y, 1), in pixels ... |
| `nodes` | float32 [h, w, 2] | ... moved by this coarse field, which is interpolated |
| `deviation`, `noise_seed` | float32 [], uint32 [] | standard deviation of the noise in grey levels; its seed |
| `kernel` | float32 [k, k] | filter of the frames |
| `levels` | uint8 [256] | new value of each grey level |
| `dropped` | int32 [] | index of the gas that is dropped from a pair that has both, -1 for none; never the only one |

Pixels from outside the frame are black, and their class is unknown (`schema.IGNORE`). All geometry is one map, so that
frames are interpolated once.
"""

import abc
import dataclasses
from collections.abc import Sequence

import numpy as np

from fume_jax.schema import GASES

Plan = dict[str, np.ndarray]

# Entries of a plan that change nothing.
_MATRIX = {"matrix": np.eye(2, 3)}
_LEVELS = {"levels": np.arange(256, dtype=np.uint8)}
# Value in a batch of each grey level.
NORMALIZED = (np.arange(256, dtype=np.float32) / 255 - 0.5) / 0.5


def draw_plan(operations: Sequence["RandomOperation"], rng: np.random.Generator, *, height: int, width: int) -> Plan:
    """Draws the plan of some operations, in their order, for one example of frames of that size in pixels."""
    plan = identity_plan(operations, height=height, width=width)
    for operation in operations:
        if rng.random() < operation.probability:
            plan |= operation.draw(plan, rng, height, width)
    return {key: value.astype(np.float32) if value.dtype == np.float64 else value for key, value in plan.items()}


def identity_plan(operations: Sequence["RandomOperation"], *, height: int, width: int) -> Plan:
    """Returns the plan of operations none of which is applied."""
    plan = {}
    for operation in operations:
        for key, value in operation.identity(height, width).items():
            # The largest kernel has room for all others.
            if key not in plan or value.size > plan[key].size:
                plan[key] = value
    return plan


@dataclasses.dataclass(frozen=True)
class RandomOperation(abc.ABC):
    """Changes an example with probability `probability`."""

    UNCHANGED = {}  # its entries of a plan in which it is not applied
    probability: float

    def identity(self, height: int, width: int) -> Plan:
        """Returns `UNCHANGED`, or entries of that kind which depend on the size of the frames."""
        return self.UNCHANGED

    @abc.abstractmethod
    def draw(self, plan: Plan, rng: np.random.Generator, height: int, width: int) -> Plan:
        """Returns its entries of a plan in which it follows what `plan` holds; `plan` is not changed."""


@dataclasses.dataclass(frozen=True)
class HorizontalFlip(RandomOperation):
    """Mirrors left and right."""

    UNCHANGED = _MATRIX

    def draw(self, plan: Plan, rng: np.random.Generator, height: int, width: int) -> Plan:
        return {"matrix": _compose(plan, np.array([[-1, 0, width - 1], [0, 1, 0]]))}


@dataclasses.dataclass(frozen=True)
class ShiftScaleRotate(RandomOperation):
    """Shifts by up to ± `shift` frame sizes, scales by up to 1 ± `scale`, rotates by up to ± `rotate` degrees."""

    UNCHANGED = _MATRIX
    shift: float
    scale: float
    rotate: float

    def draw(self, plan: Plan, rng: np.random.Generator, height: int, width: int) -> Plan:
        angle, scale = rng.uniform(-self.rotate, self.rotate), 1 + rng.uniform(-self.scale, self.scale)
        shift = rng.uniform(-self.shift, self.shift, 2) * (width, height)
        center = np.array([(width - 1) / 2, (height - 1) / 2])
        cos, sin = np.cos(np.radians(angle)) / scale, np.sin(np.radians(angle)) / scale
        turn = np.array([[cos, -sin], [sin, cos]])
        return {"matrix": _compose(plan, np.column_stack([turn, center - turn @ (center + shift)]))}


@dataclasses.dataclass(frozen=True)
class Elastic(RandomOperation):
    """Shears and stretches at random, and bends smoothly; has to be the last operation that moves pixels.

    Three points, `height / 3` from the centre, move by up to ± `affine` in x and in y, and the plane with them. On top,
    every point moves by a smooth field with nodes `sigma` apart, whose displacements have standard deviation
    `amplitude`. All three are in frame heights. (Simard et al. 2003, doi:10.1109/ICDAR.2003.1227801. The reference
    gives sigma and affine only; the amplitude of its library is far below a pixel, so `amplitude` is our choice.)
    """

    affine: float
    sigma: float
    amplitude: float

    def identity(self, height: int, width: int) -> Plan:
        nodes = [round(length / (self.sigma * height)) + 2 for length in (height, width)]
        return _MATRIX | {"nodes": np.zeros((*nodes, 2), np.float32)}

    def draw(self, plan: Plan, rng: np.random.Generator, height: int, width: int) -> Plan:
        points = np.array([(1, 1), (1, -1), (-1, -1)]) * height / 3 + (width / 2, height / 2)
        moved_points = points + rng.uniform(-self.affine, self.affine, (3, 2)) * height
        shear = np.linalg.solve(np.column_stack([moved_points, np.ones(3)]), points).T
        # Only the nodes of the field are drawn. It is added after the shear and before what was drawn earlier.
        field = rng.standard_normal(plan["nodes"].shape, np.float32) * np.float32(self.amplitude * height)
        return {"matrix": _compose(plan, shear), "nodes": field @ plan["matrix"][:, :2].T.astype(np.float32)}


@dataclasses.dataclass(frozen=True)
class OneOf(RandomOperation):
    """Applies one of `operations`, chosen in proportion to their own probabilities."""

    operations: Sequence[RandomOperation]

    def identity(self, height: int, width: int) -> Plan:
        return identity_plan(self.operations, height=height, width=width)

    def draw(self, plan: Plan, rng: np.random.Generator, height: int, width: int) -> Plan:
        weights = np.array([operation.probability for operation in self.operations])
        chosen = np.searchsorted(np.cumsum(weights), rng.random() * weights.sum(), side="right")
        return self.operations[chosen].draw(plan, rng, height, width)


@dataclasses.dataclass(frozen=True)
class GaussianNoise(RandomOperation):
    """Adds to each camera's frame noise of its own, of a variance between `low` and `high` grey levels squared."""

    UNCHANGED = {"deviation": np.float32(0), "noise_seed": np.uint32(0)}
    low: float
    high: float

    def draw(self, plan: Plan, rng: np.random.Generator, height: int, width: int) -> Plan:
        deviation = np.float32(np.sqrt(rng.uniform(self.low, self.high)))
        return {"deviation": deviation, "noise_seed": rng.integers(2**32, dtype=np.uint32)}


@dataclasses.dataclass(frozen=True)
class _Blur(RandomOperation):
    low: int
    high: int

    def identity(self, height: int, width: int) -> Plan:
        return {"kernel": _pad_kernel(np.ones((1, 1), np.float32), self.high)}

    def draw(self, plan: Plan, rng: np.random.Generator, height: int, width: int) -> Plan:
        size = self.low + 2 * int(rng.integers((self.high - self.low) // 2 + 1))
        return {"kernel": _pad_kernel(self.draw_kernel(rng, size), len(plan["kernel"]))}

    @abc.abstractmethod
    def draw_kernel(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Draws a kernel float32 [size, size] that sums to 1."""


@dataclasses.dataclass(frozen=True)
class GaussianBlur(_Blur):
    """Blurs with a kernel of an odd size between `low` and `high` pixels."""

    def draw_kernel(self, rng: np.random.Generator, size: int) -> np.ndarray:
        sigma = 0.3 * ((size - 1) / 2 - 1) + 0.8  # as OpenCV chooses it
        weights = np.exp(-0.5 * (np.arange(size) - size // 2) ** 2 / sigma**2)
        return np.outer(weights, weights).astype(np.float32) / np.float32(weights.sum() ** 2)


@dataclasses.dataclass(frozen=True)
class MotionBlur(_Blur):
    """Smears along a line of any direction through a kernel of an odd size between `low` and `high` pixels."""

    def draw_kernel(self, rng: np.random.Generator, size: int) -> np.ndarray:
        angle, reach = rng.uniform(0, np.pi), size // 2
        end = np.rint(np.array([np.sin(angle), np.cos(angle)]) * reach)
        steps = np.arange(-reach, reach + 1)[:, None] / reach
        kernel = np.zeros((size, size), np.float32)
        kernel[tuple(reach + np.rint(steps * end).astype(int).T)] = 1
        return kernel / kernel.sum()


@dataclasses.dataclass(frozen=True)
class BrightnessContrast(RandomOperation):
    """Multiplies grey levels by up to 1 ± `contrast` and adds up to ± `brightness` of the 8-bit range."""

    UNCHANGED = _LEVELS
    brightness: float
    contrast: float

    def draw(self, plan: Plan, rng: np.random.Generator, height: int, width: int) -> Plan:
        gain = 1 + rng.uniform(-self.contrast, self.contrast)
        offset = 255 * rng.uniform(-self.brightness, self.brightness)
        return {"levels": _to_levels(np.arange(256) * gain + offset)[plan["levels"]]}


@dataclasses.dataclass(frozen=True)
class Gamma(RandomOperation):
    """Raises grey levels, as shares of white, to a power between `low` and `high`."""

    UNCHANGED = _LEVELS
    low: float
    high: float

    def draw(self, plan: Plan, rng: np.random.Generator, height: int, width: int) -> Plan:
        return {"levels": _to_levels(255 * (np.arange(256) / 255) ** rng.uniform(self.low, self.high))[plan["levels"]]}


@dataclasses.dataclass(frozen=True)
class Invert(RandomOperation):
    """Shows what is warm as dark, as a camera of the other polarity does."""

    UNCHANGED = _LEVELS

    def draw(self, plan: Plan, rng: np.random.Generator, height: int, width: int) -> Plan:
        return {"levels": 255 - plan["levels"]}


@dataclasses.dataclass(frozen=True)
class ModalityDropout(RandomOperation):
    """Drops one gas, each equally likely, from a pair that has both; never the only one."""

    UNCHANGED = {"dropped": np.int32(-1)}

    def draw(self, plan: Plan, rng: np.random.Generator, height: int, width: int) -> Plan:
        return {"dropped": rng.integers(len(GASES), dtype=np.int32)}


def _compose(plan, matrix):
    """Returns the map of a plan followed by another; what was drawn first is applied to the image first."""
    if plan.get("nodes", np.zeros(1)).any():
        raise ValueError("Elastic has to be the last of the operations that move.")
    first = plan["matrix"]
    both = first[:, :2] @ matrix
    both[:, 2] += first[:, 2]
    return both


def _pad_kernel(kernel, size):
    # np.pad takes longer than all else that is drawn.
    padded, start = np.zeros((size, size), np.float32), (size - len(kernel)) // 2
    padded[start : start + len(kernel), start : start + len(kernel)] = kernel
    return padded


def _to_levels(levels):
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)
