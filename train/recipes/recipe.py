"""Recipes: everything that decides a training run, as YAML files whose keys and values are checked."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from ..data.layouts import LAYOUTS, SUBSETS
from ..data.protocols import PROTOCOLS
from .messages import explain

__all__ = [
    'AugmentRecipe',
    'BatchRecipe',
    'DataRecipe',
    'LossRecipe',
    'ModelRecipe',
    'OptimRecipe',
    'Recipe',
    'RunRecipe',
    'ScheduleRecipe',
    'list_recipes',
    'load_recipe',
]

_LAYOUTS = ('auto', *LAYOUTS)
if TYPE_CHECKING:
    Layout = str
    Subset = str
    Protocol = str
else:  # the choices belong to the package that reads data
    Layout = Literal[_LAYOUTS]
    Subset = Literal[tuple(SUBSETS)]
    Protocol = Literal[tuple(PROTOCOLS)]


_EXPONENT = re.compile(r'[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+')


def _number(value: Any) -> Any:
    """A number from a text such as 1e-4, which YAML takes for a string; other values unchanged."""
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


def _numbers(value: Any) -> Any:
    """`_number` of everything in a free value."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    return [_numbers(item) for item in value] if isinstance(value, list) else _number(value)


def _tuple(value: Any) -> Any:
    """A tuple from a list, as YAML has it."""
    return tuple(value) if isinstance(value, list) else value


def _size(value: Any) -> Any:
    """Height and width, which the side of a square gives, too."""
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else _tuple(value)


Number = Annotated[float, BeforeValidator(_number)]
Options = Annotated[dict[str, Any], BeforeValidator(_numbers)]
Count = Annotated[int, Field(ge=1)]
Size = Annotated[tuple[Count, Count], BeforeValidator(_size)]
EarlySize = Annotated[tuple[Count, Annotated[int, Field(ge=32)]], BeforeValidator(_tuple)]


class _Section(BaseModel):
    """Values of exactly the type that a key asks for, and no further keys."""

    model_config = ConfigDict(
        extra='forbid', strict=True, allow_inf_nan=False, validate_assignment=True, use_attribute_docstrings=True
    )


class ModelRecipe(_Section):
    """The network, and the weights that it starts from."""

    name: str = 'dpa_resnet50'
    """One of our models, or any timm backbone, which gets GeM pooling, a neck and a classifier."""
    init_from: str | None = None
    """Weights for the backbone: `imagenet` for those of timm, a file, the folder of a run or of a model, a Hub
    repository, a timm name, or released weights of ours (`dpa_resnet50.rendered`). Null starts from random weights."""
    checkpoint: str | None = None
    """Weights of the same model to fine-tune: a file, or the folder of a run. They are loaded after `init_from`."""
    args: Options = {}
    """Further arguments of `timm.create_model`, such as `{attn_stages: [2, 3]}`."""


class DataRecipe(_Section):
    """What is read, see `timm_dpa.train.data.datasets.load_data`."""

    layout: Layout = 'auto'
    """Layout of the folder; `auto` recognizes it."""
    subset: Subset = 'small'
    """Test list of VRU."""
    test_fraction: Number = Field(0.3, ge=0, le=1)
    """Share of the identities that is held out for the test where the data have no split of their own."""
    protocol: Protocol | None = None
    """How query and gallery are chosen. Null takes the protocol of the layout."""
    exclude_same_camera: bool | None = None
    """Whether evaluations leave out matches by the query's own camera. Null does as the protocol says."""
    draws: int = Field(1, ge=1)
    """Number of random galleries that evaluations average over, where the protocol draws them."""
    image_size: Size | None = None
    """Height and width of the network's input in pixels. Null takes the model's own."""
    workers: int | None = Field(None, ge=0)
    """Number of processes that decode images. Null takes one less than the cores that this process has, at most 8."""
    mix: list[str] = []
    """Further data sets, as folders or CSV files of any layout. Their identities join the training with labels of their
    own: those of their training parts, or all where a set has no parts. Evaluations leave them out."""


class AugmentRecipe(_Section):
    """Augmentation of training images, see `timm_dpa.train.data.transforms.train_transform`."""

    pad: int = Field(10, ge=0)
    """Black pixels that are added on each side before a random crop."""
    flip: Number = Field(0.5, ge=0, le=1)
    """Probability of a mirror image."""
    rotation: Number = Field(0.0, ge=0, le=180)
    """Largest angle in degrees by which an image is turned; 180 suits views from straight above."""
    box: Number = Field(0.0, ge=0, le=0.4)
    """How far each side of the crop moves at random, as a share of its width or height."""
    shadow: Number = Field(0.0, ge=0, le=1)
    """Probability of a shadow that falls across the vehicle."""
    glare: Number = Field(0.0, ge=0, le=1)
    """Probability of reflections of the sky and the sun."""
    tone: Number = Field(0.0, ge=0, le=4)
    """Strength of the changes of exposure, tone curve, color cast and haze."""
    color_jitter: Number = Field(0.0, ge=0, le=1)
    """Strength of the changes of brightness, contrast and saturation."""
    autoaugment: Number = Field(0.0, ge=0, le=1)
    """Probability of a policy of AutoAugment."""
    augmix: Number = Field(0.0, ge=0, le=1)
    """Probability of AugMix."""
    sensor: Number = Field(0.0, ge=0, le=4)
    """Strength of what the air and a drone's camera do to a clean image; 1 suits clean renders."""
    erasing: Number = Field(0.5, ge=0, le=1)
    """Probability of random erasing."""
    real: dict[str, Number] = {}
    """Other values of these keys, except `pad`, for images whose data set does not say in its `dataset.json` that it is
    synthetic, such as `{sensor: 0, rotation: 180}`: clean renders need a camera's degradation, and photographs already
    have it."""

    @field_validator('real')
    @classmethod
    def _check_real(cls, value: dict[str, float]) -> dict[str, float]:
        known = [name for name in cls.model_fields if name not in ('pad', 'real')]
        for key in value:
            if key not in known:
                raise ValueError(f'augment.real has no key {key}; there are {", ".join(known)}')
        try:
            cls.model_validate(value)
        except ValidationError as error:
            raise ValueError(explain(error, cls, 'augment.real.')) from None
        return value


class BatchRecipe(_Section):
    """A step of the optimizer sees `size` x `accumulate` images; pairs are formed within `size`, over all processes."""

    size: int = Field(32, ge=1)
    """Number of images in a batch of all processes together: a multiple of `images_per_identity`."""
    images_per_identity: int = Field(4, ge=1)
    """K of the P x K batches."""
    accumulate: int = Field(1, ge=1)
    """Number of batches whose gradients are added up for one step."""
    mix: Number = Field(0.5, gt=0, lt=1)
    """Share of a batch's identities that comes from `data.mix`, rounded to whole ones; unused where that is empty."""
    per_epoch: int | None = Field(None, ge=1)
    """Number of batches in an epoch. Null is about one pass over the images of the main data. A number makes the length
    of a run the same for few vehicles and many; the next epoch continues with the images that follow."""


class LossRecipe(_Section):
    """Weighted sum of a classification loss and a metric loss."""

    classifier: Literal['linear', 'cosine', 'circle', 'none'] = 'linear'
    """Logits of the classifier; `circle` is cosine with the margin of Circle loss, `none` is no classification loss."""
    classifier_weight: Number = 1.0
    """Factor of the classification loss."""
    label_smoothing: Number = Field(0.1, ge=0, lt=1)
    """The eps of eq. 13 of the paper."""
    smooth_target: bool = True
    """Whether eps is spread over all N classes as in eq. 13, or over the N - 1 others as in the released code."""
    scale: Number = Field(64.0, gt=0)
    """Scale of cosine and circle logits."""
    margin: Number = Field(0.35, ge=0, lt=1)
    """Margin of circle logits."""
    metric: Literal['triplet', 'circle', 'multi_similarity', 'supcon', 'none'] = 'triplet'
    """The metric loss."""
    metric_weight: Number = 1.0
    """Factor of the metric loss."""
    metric_args: Options = {}
    """Options of the metric loss, such as `{margin: 0.3, mining: weighted}`."""
    metric_feature: Literal['before_neck', 'after_neck'] = 'before_neck'
    """Whether the metric loss sees the feature before the neck or after it."""
    pull: Number = Field(0.0, ge=0)
    """Factor of a term that pulls embeddings to those of the weights that the run starts from: the mean of 1 - cosine
    between the two embeddings of an augmented image. 0 turns it off; otherwise a step takes a third more work."""
    teacher: str | None = None
    """Weights whose embeddings are pulled to instead, as a name of `timm.create_model` such as `dpa_resnet50.rendered`.
    Where their embedding has another width, the cosines of all pairs of images in a batch are pulled to those of the
    teacher (Park et al., CVPR 2019, with cosines for distances): the mean squared difference replaces 1 - cosine."""
    targets: list[str] = []
    """Embeddings files that `timm-dpa embed` made of the training images with the teacher. They are pulled to instead
    of what the teacher says of each augmented image: it has seen the images whole and at its own size, a step takes no
    more work, and a small network learns what it cannot see well itself. Where they are wider than the embeddings of
    this network, their main directions are taken."""


class OptimRecipe(_Section):
    """The optimizer, which timm makes."""

    name: str = 'adam'
    """A name of `timm.optim.list_optimizers`."""
    lr: Number = Field(3.5e-4, gt=0)
    """Learning rate of the whole batch."""
    weight_decay: Number = Field(5e-4, ge=0)
    """Weight decay; the optimizer decides whether it is decoupled."""
    decay_norm_and_bias: bool = False
    """Whether weights of one dimension decay, too."""
    momentum: Number = 0.9
    """Momentum of SGD, or beta1 where the optimizer has one."""
    args: Options = {}
    """Further options of the optimizer."""
    layer_decay: Number | None = None
    """Factor of the learning rate from one block to the one before it. Null gives all blocks the same."""
    clip_grad: Number | None = Field(None, gt=0)
    """Largest norm of the gradient. Null does not clip."""
    trunk_lr: Number = Field(1.0, ge=0, le=1)
    """Factor of the learning rate of the trunk, which is all but attention, neck and classifier, on top of
    `layer_decay`; 0 freezes it."""
    anchor: Number = Field(0.0, ge=0)
    """Decay of the trunk's weights toward those of the start, as L2-SP (Li et al., ICML 2018) does: the gradient of
    anchor/2 times the squared distance. It is decoupled as in AdamW: each step takes `lr` x `anchor` of the way back.
    It acts in addition to `weight_decay`, which pulls toward 0."""


class ScheduleRecipe(_Section):
    """The learning rate over time, and what is frozen when."""

    epochs: int = Field(60, ge=0)
    """Length of the run; 0 takes no step, so that only `run.whiten` changes the model."""
    kind: Literal['cosine', 'step', 'constant'] = 'cosine'
    """`cosine` falls to `min_lr`, `step` multiplies by `decay_rate` after each of `decay_epochs`."""
    hold_epochs: Number = Field(0.0, ge=0)
    """Number of epochs after which the cosine begins."""
    min_lr: Number = Field(0.0, ge=0)
    """Learning rate at the end of the cosine."""
    decay_epochs: list[Number] = []
    """Epochs of `step`, such as `[30, 50]`."""
    decay_rate: Number = 0.1
    """Factor of `step`."""
    warmup_steps: int = Field(0, ge=0)
    """Number of steps of linear warm-up; where it is 0, `warmup_epochs` counts."""
    warmup_epochs: Number = Field(0.0, ge=0)
    """Length of the linear warm-up in epochs."""
    warmup_factor: Number = Field(0.01, ge=0, le=1)
    """Part of the learning rate that the warm-up starts from."""
    freeze_steps: int = Field(0, ge=0)
    """Number of steps at the start in which the backbone stays as it is."""
    freeze_attention: bool = False
    """Whether the attention counts as backbone there."""
    early_sizes: list[EarlySize] = []
    """`[epochs, side]` pairs: the run begins with so many epochs of images of that side in pixels, one pair after the
    other, and ends with those of `data.image_size`; `[[20, 64], [8, 128]]`. Where height and width differ, side is the
    height. Evaluations take the final size."""
    keep_statistics: bool = False
    """Whether batch norms, that of the neck too, normalize by the running statistics that the run starts with and leave
    these as they are; scale and offset learn. The statistics of a few vehicles' images spoil trained weights for all
    others."""
    freeze_stages: int = Field(0, ge=0, le=4)
    """Number of stages of a ResNet that, with the stem, stay as they are during the whole run; a step skips their
    backward pass."""


class RunRecipe(_Section):
    """How the training is computed."""

    seed: int = Field(0, ge=0)
    """Seed of everything random."""
    device: str = 'auto'
    """`auto`, or a torch device such as `cpu`, `cuda`, `cuda:1`, `mps`."""
    precision: Literal['auto', 'fp32', 'bf16', 'fp16'] = 'auto'
    """Type of autocast; `auto` is bf16 where the device has units for it, else fp32."""
    channels_last: bool = True
    """Whether the memory format is channels last."""
    compile: bool = False
    """Whether `torch.compile` compiles the network."""
    ema: Number | None = Field(None, ge=0, lt=1)
    """Decay of the moving average of the weights, which is evaluated and saved then. Null keeps none."""
    sync_batch_norm: bool = False
    """Whether batch norms take their statistics over all processes."""
    evaluate_every: int = Field(5, ge=0)
    """Number of epochs between evaluations; the last epoch is always evaluated, and 0 evaluates no other."""
    checkpoint_every: int = Field(200, ge=0)
    """Number of steps between checkpoints; 0 writes one only at the end of each epoch."""
    log_every: int = Field(20, ge=1)
    """Number of steps between lines of the log."""
    tensorboard: bool = True
    """Whether TensorBoard files are written, too."""
    flip: bool = False
    """Whether evaluations take the mean embedding of an image and its mirror image."""
    whiten: Number | None = Field(None, gt=0)
    """Shrinkage of the whitening that the final model gets, fitted to training images, see
    `timm_dpa.train.run.whitening`; 3 suits weights that see new footage. Null fits none."""
    whiten_images: int = Field(4096, ge=1)
    """Number of training images that the whitening is fitted to, in whole batches."""
    interpolate: Number = Field(1.0, gt=0, le=1)
    """How far the weights that are evaluated and saved as the model lie on the line from the start's (0) to the trained
    ones (1), as WiSE-FT (Wortsman et al., CVPR 2022) does; statistics of batch norms as well, the classifier not. The
    checkpoints that a run resumes from hold the trained weights."""
    compare_start: bool = False
    """Whether the weights that the run starts from are evaluated as well, as epoch 0; they stay the run's model where
    no trained ones have a higher mAP on the test part."""


class Recipe(_Section):
    """A training run. `Recipe()` has the package's defaults; `load_recipe` reads a recipe of the package, or a file."""

    model: ModelRecipe = ModelRecipe()
    data: DataRecipe = DataRecipe()
    augment: AugmentRecipe = AugmentRecipe()
    batch: BatchRecipe = BatchRecipe()
    loss: LossRecipe = LossRecipe()
    optim: OptimRecipe = OptimRecipe()
    schedule: ScheduleRecipe = ScheduleRecipe()
    run: RunRecipe = RunRecipe()

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """The reverse of `as_dict`; what is left out keeps its default.

        Raises:
            ValueError: unknown keys or wrong values; the message is one line that names each key and what it takes.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ValueError(explain(error, cls)) from None

    def as_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists and scalars."""
        return _plain(self.model_dump())

    def as_yaml(self) -> str:
        """The whole recipe as YAML, which `load_recipe` reads."""
        return yaml.safe_dump(self.as_dict(), sort_keys=False)

    def override(self, settings: Iterable[str]) -> Recipe:
        """The recipe with `section.key=value` settings applied; values are written as in YAML.

        Raises:
            ValueError: no such key, or a value that the key does not take.
        """
        values = self.as_dict()
        for setting in settings:
            name, equals, text = setting.partition('=')
            if not equals:
                raise ValueError(f'{setting}: settings are written key=value, such as schedule.epochs=20')
            try:
                value = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise ValueError(f'{setting}: {text!r} is not a value that YAML can read') from error
            *parents, last = name.split('.')
            target: Any = values
            for key in parents:  # below a dictionary, too, as in loss.metric_args.margin
                target = target.setdefault(key, {}) if isinstance(target, dict) else None
            if not isinstance(target, dict):
                raise ValueError(f'{setting}: {".".join(parents)} has no keys')
            target[last] = value
        return Recipe.from_dict(values)


def load_recipe(source: str | Path, settings: Iterable[str] = ()) -> Recipe:
    """One of the package's recipes by name (`'paper/veri_uav'`), or a YAML file; see `list_recipes`.

    Args:
        source: name or file. Keys that it leaves out keep the defaults of this file.
        settings: `section.key=value`, applied to it.

    Raises:
        FileNotFoundError: neither a recipe of the package nor a file.
        ValueError: not YAML, unknown keys or wrong values; the message names the key.
    """
    shipped = files(__package__).joinpath(f'{source}.yaml')
    if shipped.is_file():
        text = shipped.read_text(encoding='utf-8')
    elif Path(source).is_file():
        text = Path(source).read_text(encoding='utf-8')
    else:
        raise FileNotFoundError(f'{source}: neither a file nor a recipe; there are {", ".join(list_recipes())}')
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(f'{source}: not YAML ({error})') from error
    try:
        return Recipe.from_dict(values).override(settings)
    except ValueError as error:
        raise ValueError(f'recipe {source}: {error}') from error


def list_recipes() -> list[str]:
    """Names of the recipes that the package has."""
    folder = Path(str(files(__package__)))
    return sorted(path.relative_to(folder).with_suffix('').as_posix() for path in folder.rglob('*.yaml'))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
