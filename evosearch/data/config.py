"""The `[data]` section of a space file."""

from typing import Any, Literal, Self, final, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from evosearch.errors import unknown_name

FIXED_TRANSFORMS = ("CenterCrop", "Grayscale", "Pad", "RGB", "Resize")
"""The transforms of `torchvision.transforms.v2` that draw nothing and keep an image an image."""

RANDOM_TRANSFORMS = (
    "AugMix", "AutoAugment", "ColorJitter", "ElasticTransform", "GaussianBlur", "JPEG",
    "RandAugment", "RandomAdjustSharpness", "RandomAffine", "RandomAutocontrast",
    "RandomChannelPermutation", "RandomCrop", "RandomEqualize", "RandomErasing",
    "RandomGrayscale", "RandomHorizontalFlip", "RandomInvert", "RandomPerspective",
    "RandomPhotometricDistort", "RandomPosterize", "RandomResizedCrop", "RandomRotation",
    "RandomSolarize", "RandomVerticalFlip", "TrivialAugmentWide",
)  # fmt: skip
"""The transforms of `torchvision.transforms.v2` that draw anew for each image."""

BATCHED = ("crop", "flip")
"""What augments a whole batch at once, each image by its own draw."""

Border = Literal["black", "mirror"]
"""What fills the border of a shifted image."""
BORDERS = get_args(Border)


@final
class TransformConfig(BaseModel):
    """A transform by name, with its arguments as further keys.

    Attributes:
        name: of a class of `torchvision.transforms.v2`.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    @property
    def arguments(self) -> dict[str, Any]:
        """What its class is called with."""
        return dict(self.model_extra or {})


@final
class DataConfig(BaseModel):
    """Which images, and how they are split.

    Decoded images are kept as bytes where they take at most 4 GiB (`imagecache.CACHE_BYTES`, so
    1.4 million of 32x32 or 28,000 of 224x224, in colour): all that can be searched and trained
    on together, or else each split by itself. What does not fit is read from its files whenever
    it is asked for.

    Attributes:
        name: "digits" (scikit-learn's), "cifar10", "cifar100", "svhn" (torchvision's files),
            "imagefolder" (`train/CLASS/*.jpg` with `test/CLASS/*.jpg` or `val/CLASS/*.jpg`),
            "fake" (noise), or a callable as "module:callable" or "file.py:callable" that returns
            `(train, test)`, or a dict of these and of any of "calibration", "search" and
            "confirmation": each a pair of arrays `(images, labels)`, a dataset with a length and
            `(image, label)` at each position, or a DataLoader of all of one.
        root: folder of the data, handed to a callable as `root`; relative to the space file, or
            else to $EVOSEARCH_DATA. Without it, the data lie in one of these themselves.
        mean: of each channel, subtracted; pixels are in [0, 1] before. Empty: none.
        std: of each channel, divided by. Empty: none.
        transforms: done to every image, in order: `FIXED_TRANSFORMS` by name with arguments.
        augment: what training does to each image: "crop" shifts it by up to an eighth of its
            side and fills the border with black, or with its mirror image at `border =
            "mirror"`; "flip" mirrors it left to right half of the time; before these,
            `RANDOM_TRANSFORMS` by name with arguments. Best is what the weights were trained
            with.
        calibration: images for statistics, taken out of the training images; left out where a
            callable brings them, as are the next two.
        search: images that the search scores on, taken out of the training images; or a file
            that lists them, one a line, such as `train/cat/0001.jpg`; it is relative to the
            space file, or else to $EVOSEARCH_DATA.
        confirmation: images that no score sees until the search is over, taken out of the training
            images that search and calibration leave; an accuracy drop is certified on them, and
            one of D points takes at least 300 / D. The default is 0, with which none is: they are
            lost to training, so that giving them up is for the space to say.
        seed: draws the splits. It belongs to the space and not to a run, because the base
            network has seen the train split.
        check_duplicates: whether splits that share an image by its content are refused; by its
            position or file they always are. Left out: where a callable brings splits of its own,
            of which positions say nothing.
        kwargs: further arguments of the callable, or of torchvision's `FakeData`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    root: str | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    transforms: tuple[TransformConfig, ...] = ()
    augment: tuple[TransformConfig, ...] = ()
    calibration: int | None = Field(default=None, ge=2)
    search: int | str | None = None
    confirmation: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=0)
    check_duplicates: bool | None = None
    kwargs: dict[str, Any] = Field(default_factory=dict)

    @field_validator("augment", mode="before")
    @classmethod
    def _name_stands_for_itself(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return [{"name": entry} if isinstance(entry, str) else entry for entry in value]

    @field_validator("transforms")
    @classmethod
    def _transforms_exist(cls, value: tuple[TransformConfig, ...]) -> tuple[TransformConfig, ...]:
        for entry in value:
            if entry.name in (*RANDOM_TRANSFORMS, *BATCHED):
                raise ValueError(f"{entry.name} draws at random: it belongs in augment")
            if entry.name not in FIXED_TRANSFORMS:
                raise ValueError(str(unknown_name("transform", entry.name, FIXED_TRANSFORMS)))
        return value

    @field_validator("augment")
    @classmethod
    def _augment_exists(cls, value: tuple[TransformConfig, ...]) -> tuple[TransformConfig, ...]:
        for entry in value:
            known = {"border"} if entry.name == "crop" else set()
            if entry.name in BATCHED and not known >= set(entry.arguments):
                raise ValueError(f"{entry.name!r} takes {'border alone' if known else 'nothing'}")
            if entry.name == "crop" and entry.arguments.get("border", "black") not in BORDERS:
                border = str(entry.arguments["border"])
                raise ValueError(str(unknown_name("border", border, BORDERS)))
            if entry.name not in (*RANDOM_TRANSFORMS, *BATCHED):
                valid = (*RANDOM_TRANSFORMS, *BATCHED)
                raise ValueError(str(unknown_name("augmentation", entry.name, valid)))
        return value

    @model_validator(mode="after")
    def _numbers_fit(self) -> Self:
        if len(self.mean) != len(self.std) or any(value <= 0 for value in self.std):
            raise ValueError("mean and std need one value per channel each, std above 0")
        if isinstance(self.search, int) and self.search < 2:
            raise ValueError("search must be 2 or more, or a file that lists the images")
        missing = [key for key in ("calibration", "search") if getattr(self, key) is None]
        if missing and ":" not in self.name:
            raise ValueError(f"{missing[0]} is missing: training images that are set aside for it")
        return self
