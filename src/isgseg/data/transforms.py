"""Training augmentation: crops, exact flips and quarter turns, scale, intensity, noise, blur."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from isgseg.data.coco import Target, make_target
from isgseg.data.settings import AugmentSettings
from isgseg.errors import check


class Augment:
    """Augments an image and its target, with randomness that the seed alone decides.

    A resumed run and one with other workers see the same images: nothing depends on what was
    drawn before.

    Args:
        crop: side of the square that is cut out, pixels; null keeps the whole image.
        crop_on_object: share of crops that hold an object chosen at random.
        drop_z_context: share of images whose channels, the slices around, all become the slice
            itself, so that a network that learns from several slices can do with one.
        flip: flip along x and along y, each half of the time, and turn by quarters; the slices
            around too.
        scale: range of the factor by which images are enlarged; [1, 1] is off.
        intensity: range of the factor on grey values; [1, 1] is off.
        noise: highest standard deviation of added noise, in [0, 1] of the grey range.
        blur: highest sigma of a Gaussian blur, pixels, used half of the time.
        z_context: channels are neighbouring slices, in order; else they are colours.

    Raises:
        InputError: a value is out of range.
    """

    def __init__(
        self,
        crop: int | None = None,
        crop_on_object: float = 0.0,
        drop_z_context: float = 0.0,
        flip: bool = True,
        scale: Sequence[float] = (1.0, 1.0),
        intensity: Sequence[float] = (1.0, 1.0),
        noise: float = 0.0,
        blur: float = 0.0,
        z_context: bool = False,
    ) -> None:
        settings = {
            **{"crop": crop, "crop_on_object": crop_on_object, "drop_z_context": drop_z_context},
            **{"flip": flip, "scale": scale, "intensity": intensity, "noise": noise, "blur": blur},
        }
        check(AugmentSettings, settings, "data.augment")
        steps: list[nn.Module] = []
        if tuple(scale) != (1.0, 1.0):
            steps.append(RandomScale(*scale))
        if crop:
            steps.append(RandomCropOnObject(crop, crop_on_object))
        if z_context and drop_z_context:
            steps.append(v2.RandomApply([RepeatSlice()], p=drop_z_context))
        if z_context and flip:
            steps.append(v2.RandomApply([ReverseSlices()], p=0.5))
        if flip:
            steps += [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), RandomQuarterTurn()]
        steps.append(v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True))
        if blur:
            steps.append(v2.RandomApply([v2.GaussianBlur(5, (min(0.1, blur), blur))], p=0.5))
        if tuple(intensity) != (1.0, 1.0):
            steps.append(RandomIntensity(*intensity))
        if noise:
            steps.append(RandomNoise(noise))
        self.steps = v2.Compose(steps)

    def __call__(self, image: Tensor, target: Target, seed: int) -> tuple[Tensor, Target]:
        """Args: image (C, H, W) uint8. Returns float32 in [0, 1] and the new target."""
        sample = {
            "image": tv_tensors.Image(image),
            "masks": tv_tensors.Mask(target["masks"]),
        }
        if "centre" in target:
            sample["centre"] = CentreMap(target["centre"][None])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            sample = self.steps(sample)
        new = make_target(
            sample["masks"].as_subclass(Tensor).contiguous(),
            target["labels"],
            int(target["image_id"]),
        )
        if "centre" in target:
            new["centre"] = sample["centre"].as_subclass(Tensor)[0].contiguous()
        return sample["image"].as_subclass(Tensor).contiguous(), new


class CentreMap(tv_tensors.Mask):
    """(1, H, W) uint8: goes where masks go, and is no grey value; but it is interpolated."""


class RandomScale(v2.Transform):
    """Enlarges by a random factor; masks stay binary."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws the factor."""
        height, width = v2.query_size(flat_inputs)
        factor = float(torch.empty(()).uniform_(self.low, self.high))
        return {"size": [max(1, round(height * factor)), max(1, round(width * factor))]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resizes; an empty stack of masks has no pixels that torch could resize."""
        if isinstance(inpt, CentreMap):
            resized = F.resize(inpt.as_subclass(Tensor), params["size"], antialias=True)
            return tv_tensors.wrap(resized, like=inpt)
        if inpt.shape[0] == 0:
            return tv_tensors.wrap(inpt.new_zeros((0, *params["size"])), like=inpt)
        return F.resize(inpt, params["size"], antialias=True)


class RandomCropOnObject(v2.Transform):
    """Cuts a square of a fixed size, now and then one that holds a random object.

    An image smaller than the square is kept whole along that side.
    """

    def __init__(self, size: int, on_object: float) -> None:
        super().__init__()
        self.size, self.on_object = size, on_object

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws the corner."""
        masks = next(entry for entry in flat_inputs if type(entry) is tv_tensors.Mask)
        sides = masks.shape[-2:]
        chosen = None
        if len(masks) and float(torch.rand(())) < self.on_object:
            pixels = masks[int(torch.randint(len(masks), ()))].nonzero()
            if len(pixels):
                chosen = pixels[len(pixels) // 2].tolist()
        corner = []
        for axis, side in enumerate(sides):
            size = min(self.size, side)
            low, high = 0, side - size
            if chosen is not None:
                low = min(max(0, chosen[axis] - size + 1), high)
                high = max(min(high, chosen[axis]), low)
            corner.append((int(torch.randint(low, high + 1, ())), size))
        (top, height), (left, width) = corner
        return {"top": top, "left": left, "height": height, "width": width}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Crops."""
        return F.crop(inpt, **params)


class RepeatSlice(v2.Transform):
    """Shows the middle channel in all, as of a slice without neighbours."""

    _transformed_types = (tv_tensors.Image,)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Repeats the channel."""
        middle = len(inpt) // 2
        return tv_tensors.wrap(inpt[middle : middle + 1].expand_as(inpt), like=inpt)


class ReverseSlices(v2.Transform):
    """Shows the slices in the other order, as from the other side of the volume."""

    _transformed_types = (tv_tensors.Image,)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Reverses the channels."""
        return tv_tensors.wrap(inpt.flip(0), like=inpt)


class RandomQuarterTurn(v2.Transform):
    """Turns by 0, 90, 180 or 270 degrees: no pixel is interpolated."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws the number of quarters."""
        return {"quarters": int(torch.randint(4, ()))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Turns the last two axes."""
        return tv_tensors.wrap(torch.rot90(inpt, params["quarters"], (-2, -1)), like=inpt)


class RandomIntensity(v2.Transform):
    """Multiplies grey values by a random factor, as another normalization would."""

    _transformed_types = (tv_tensors.Image,)

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws the factor."""
        return {"factor": float(torch.empty(()).uniform_(self.low, self.high))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Multiplies and clips to [0, 1]."""
        return tv_tensors.wrap((inpt * params["factor"]).clamp(0, 1), like=inpt)


class RandomNoise(v2.Transform):
    """Adds Gaussian noise of a random strength."""

    _transformed_types = (tv_tensors.Image,)

    def __init__(self, highest: float) -> None:
        super().__init__()
        self.highest = highest

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws the standard deviation."""
        return {"sigma": float(torch.empty(()).uniform_(0, self.highest))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Adds the noise."""
        return F.gaussian_noise(inpt, sigma=params["sigma"])
