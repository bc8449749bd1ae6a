"""Recipes: everything that decides a training run, as YAML files with checked keys and values."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

__all__ = ['Recipe', 'list_recipes', 'load_recipe']


@dataclass
class ModelRecipe:
    """The network and its start.

    Attributes:
        name: one of our models, or any timm backbone, which gets GeM, neck and classifier.
        init_from: weights for the backbone: `imagenet` for those of timm, a file, the folder of a run or a model, a Hub
            repository, a timm name, or released weights of ours (`dpa_resnet50.rendered`); null for random ones.
        checkpoint: weights of the same model to fine-tune (a file, or the folder of a run); after `init_from`.
        args: further arguments of `timm.create_model`, such as `{attn_stages: [2, 3]}`.
    """

    name: str = 'dpa_resnet50'
    init_from: str | None = None
    checkpoint: str | None = None
    args: dict[str, Any] = field(default_factory=dict)


@dataclass
class DataRecipe:
    """What is read, see `timm_dpa.train.data.datasets.load_data`.

    Attributes:
        layout: of the folder; `auto` looks.
        subset: test list of VRU.
        test_fraction: identities held out for the test where the data have no split of their own.
        protocol: how query and gallery come about; null for the layout's own.
        exclude_same_camera: the same-camera rule of evaluations, on or off; null for the protocol's own.
        draws: random galleries that evaluations average over, where the protocol draws.
        image_size: height and width in pixels; null for the model's own.
        mix: further data sets, folders or CSV files of any layout, whose identities join the training with labels of
            their own: their training parts, or all images of those that have no parts. Evaluations leave them out.
        workers: processes that decode; null for one less than the cores that this process has, 8 at most.
    """

    layout: str = 'auto'
    subset: Literal['small', 'medium', 'large'] = 'small'
    test_fraction: float = 0.3
    protocol: str | None = None
    exclude_same_camera: bool | None = None
    draws: int = 1
    image_size: tuple[int, int] | None = None
    workers: int | None = None
    mix: list[str] = field(default_factory=list)


@dataclass
class AugmentRecipe:
    """Augmentation of training images, see `timm_dpa.train.data.transforms.train_transform`.

    Attributes:
        real: other values of these keys, all but `pad`, for images whose data set does not say in its `dataset.json`
            that it is synthetic, such as `{sensor: 0, rotation: 180}`: clean renders want a camera's degradation, and
            photographs have had theirs.
    """

    pad: int = 10
    flip: float = 0.5
    rotation: float = 0.0
    box: float = 0.0
    shadow: float = 0.0
    glare: float = 0.0
    tone: float = 0.0
    color_jitter: float = 0.0
    autoaugment: float = 0.0
    augmix: float = 0.0
    sensor: float = 0.0
    erasing: float = 0.5
    real: dict[str, Any] = field(default_factory=dict)


@dataclass
class BatchRecipe:
    """A step of the optimiser sees `size` x `accumulate` images; pairs are formed within `size`, over all processes.

    Attributes:
        size: images of a batch, all processes together: a multiple of `images_per_identity`.
        images_per_identity: K of the P x K batches.
        accumulate: batches whose gradients are added up for one step.
        mix: share of a batch's identities that comes from `data.mix`, rounded to whole ones; where that is empty, none.
        per_epoch: batches of an epoch; null for about one pass over the images of the main data. A number makes the
            length of a run the same for few vehicles and many; the next epoch goes on with the images that follow.
    """

    size: int = 32
    images_per_identity: int = 4
    accumulate: int = 1
    mix: float = 0.5
    per_epoch: int | None = None


@dataclass
class LossRecipe:
    """Weighted sum of a classification loss and a metric loss.

    Attributes:
        classifier: logits: `linear`, `cosine`, `circle` (cosine with Circle margin), or `none` for no such loss.
        classifier_weight: its factor.
        label_smoothing: eps of eq. 13.
        smooth_target: spread eps over all N classes as in eq. 13; else over the N - 1 others, as in the released code.
        scale, margin: of cosine and circle logits.
        metric: `triplet`, `circle`, `multi_similarity`, `supcon`, or `none`.
        metric_weight: its factor.
        metric_args: options of the metric loss, such as `{margin: 0.3, mining: weighted}`.
        metric_feature: whether it sees the feature before the neck or after it.
        pull: factor of a term that pulls embeddings to those of the weights that the run starts from: the mean of
            1 - cosine between the two embeddings of an augmented image. 0 for none; else a third more work a step.
        teacher: pull to the embeddings of these weights instead, a name of `timm.create_model`, such as
            `dpa_resnet50.rendered`. Where their embedding has another width, the cosines of all pairs of images in a
            batch are pulled to those of the teacher (Park et al., CVPR 2019, with cosines for distances): the mean
            squared difference, in place of 1 - cosine.
    """

    classifier: Literal['linear', 'cosine', 'circle', 'none'] = 'linear'
    classifier_weight: float = 1.0
    label_smoothing: float = 0.1
    smooth_target: bool = True
    scale: float = 64.0
    margin: float = 0.35
    metric: Literal['triplet', 'circle', 'multi_similarity', 'supcon', 'none'] = 'triplet'
    metric_weight: float = 1.0
    metric_args: dict[str, Any] = field(default_factory=dict)
    metric_feature: Literal['before_neck', 'after_neck'] = 'before_neck'
    pull: float = 0.0
    teacher: str | None = None


@dataclass
class OptimRecipe:
    """The optimiser, made by timm.

    Attributes:
        name: a name of `timm.optim.list_optimizers`.
        lr: learning rate of the whole batch.
        weight_decay: decoupled or not, as the optimiser has it.
        decay_norm_and_bias: decay weights of one dimension, too.
        momentum: of SGD, or beta1 where the optimiser has one.
        args: further options of the optimiser.
        layer_decay: factor of the learning rate from one block to the one before it; null for none.
        clip_grad: largest norm of the gradient; null for no clipping.
        trunk_lr: factor of the learning rate of the trunk, which is all but attention, neck and classifier, 0 to 1, on
            top of `layer_decay`; 0 freezes it.
        anchor: decay of the trunk's weights toward those of the start, as L2-SP (Li et al., ICML 2018) does: the
            gradient of anchor/2 times the squared distance. Decoupled as in AdamW: each step takes `lr` x `anchor` of
            the way back. In addition to `weight_decay`, which pulls toward 0.
    """

    name: str = 'adam'
    lr: float = 3.5e-4
    weight_decay: float = 5e-4
    decay_norm_and_bias: bool = False
    momentum: float = 0.9
    args: dict[str, Any] = field(default_factory=dict)
    layer_decay: float | None = None
    clip_grad: float | None = None
    trunk_lr: float = 1.0
    anchor: float = 0.0


@dataclass
class ScheduleRecipe:
    """Learning rate over time.

    Attributes:
        epochs: length of the run; 0 for no step: only `run.whiten` changes the model.
        kind: `cosine` falls to `min_lr`, `step` multiplies by `decay_rate` after each of `decay_epochs`, `constant`.
        hold_epochs: cosine begins after them.
        min_lr: end of the cosine.
        decay_epochs, decay_rate: of `step`.
        warmup_steps: steps of linear warm-up; where 0, `warmup_epochs` counts.
        warmup_epochs: the same in epochs.
        warmup_factor: part of the learning rate that the warm-up starts from.
        freeze_steps: steps at the start in which the backbone stays as it is.
        freeze_attention: whether the attention counts as backbone there.
        early_sizes: `[epochs, side]` pairs: the run begins with so many epochs of images of that side in pixels, one
            pair after the other, and ends with those of `data.image_size`; `[[20, 64], [8, 128]]`. Where height and
            width differ, side is the height. Evaluations take the final size.
        keep_statistics: batch norms, that of the neck too, normalize by the running statistics that the run starts with
            and leave these as they are; scale and offset learn. The statistics of a few vehicles' images spoil trained
            weights for all others.
        freeze_stages: the stem and this many stages of a ResNet stay as they are during the whole run, 0 for none;
            a step skips their backward pass.
    """

    epochs: int = 60
    kind: Literal['cosine', 'step', 'constant'] = 'cosine'
    hold_epochs: float = 0.0
    min_lr: float = 0.0
    decay_epochs: list[float] = field(default_factory=list)
    decay_rate: float = 0.1
    warmup_steps: int = 0
    warmup_epochs: float = 0.0
    warmup_factor: float = 0.01
    freeze_steps: int = 0
    freeze_attention: bool = False
    early_sizes: list[tuple[int, int]] = field(default_factory=list)
    keep_statistics: bool = False
    freeze_stages: int = 0


@dataclass
class RunRecipe:
    """How it is computed.

    Attributes:
        seed: of everything random.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        precision: `fp32`, `bf16`, `fp16` (autocast), or `auto`: bf16 where the device has units for it.
        channels_last: memory format.
        compile: torch.compile.
        ema: decay of the moving average of the weights, which is evaluated and saved then; null for none.
        sync_batch_norm: statistics over all processes.
        evaluate_every: epochs between evaluations; the last epoch is evaluated always.
        checkpoint_every: steps between checkpoints, 0 for only one at the end of each epoch.
        log_every: steps between lines of the log.
        tensorboard: write TensorBoard files, too.
        flip: evaluate the mean of an image and its mirror image.
        interpolate: how far the weights that are evaluated and saved as the model lie on the line from the start's (0)
            to the trained ones (1), as WiSE-FT (Wortsman et al., CVPR 2022) does; statistics of batch norms as well,
            the classifier not. Checkpoints to go on from hold the trained ones.
        compare_start: evaluate the weights that the run starts from as well, as epoch 0; they stay the run's model
            where no trained ones have a higher mAP on the test part.
        whiten: shrinkage of the whitening that the final model gets, fitted to training images, see
            `timm_dpa.train.run.whitening`; 3 suits weights that see new footage, null for none.
        whiten_images: so many training images are taken for it, in whole batches.
    """

    seed: int = 0
    device: str = 'auto'
    precision: Literal['auto', 'fp32', 'bf16', 'fp16'] = 'auto'
    channels_last: bool = True
    compile: bool = False
    ema: float | None = None
    sync_batch_norm: bool = False
    evaluate_every: int = 5
    checkpoint_every: int = 200
    log_every: int = 20
    tensorboard: bool = True
    flip: bool = False
    whiten: float | None = None
    whiten_images: int = 4096
    interpolate: float = 1.0
    compare_start: bool = False


@dataclass
class Recipe:
    """A training run. `Recipe()` has the package's defaults; `load_recipe` reads one of its files, or yours."""

    model: ModelRecipe = field(default_factory=ModelRecipe)
    data: DataRecipe = field(default_factory=DataRecipe)
    augment: AugmentRecipe = field(default_factory=AugmentRecipe)
    batch: BatchRecipe = field(default_factory=BatchRecipe)
    loss: LossRecipe = field(default_factory=LossRecipe)
    optim: OptimRecipe = field(default_factory=OptimRecipe)
    schedule: ScheduleRecipe = field(default_factory=ScheduleRecipe)
    run: RunRecipe = field(default_factory=RunRecipe)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """The reverse of `as_dict`; what is left out keeps its default.

        Raises:
            ValueError: unknown keys or wrong values.
        """
        return _build(cls, values, '')

    def as_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists and scalars."""
        return _plain(asdict(self))

    def as_yaml(self) -> str:
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
            section, _, key = name.partition('.')
            try:
                value = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise ValueError(f'{setting}: {text!r} is not a value that YAML can read') from error
            keys = key.split('.')
            target = values.setdefault(section, {}) if key else values
            if key:
                # below a dictionary, as in loss.metric_args.margin
                for part in keys[:-1]:
                    target = target.setdefault(part, {}) if isinstance(target, dict) else None
                if not isinstance(target, dict):
                    raise ValueError(f'{setting}: {name.rpartition(".")[0]} has no keys')
                target[keys[-1]] = value
            else:
                values[section] = value
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


def _build(kind: type, values: Any, prefix: str) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f'{prefix.rstrip(".") or "a recipe"} must have keys and values, not {values!r}')
    hints = get_type_hints(kind)
    known = [item.name for item in fields(kind)]
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            guess = f'; did you mean {prefix}{close[0]}?' if close else f'; there are {", ".join(known)}'
            raise ValueError(f'unknown key {prefix}{key}{guess}')
    return kind(**{key: _coerce(value, hints[key], f'{prefix}{key}') for key, value in values.items()})


def _coerce(value: Any, hint: Any, key: str) -> Any:
    if is_dataclass(hint):
        return _build(hint, value, f'{key}.')
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return None if value is None else _coerce(value, next(arg for arg in args if arg is not type(None)), key)
    wrong = ValueError(f'{key}={value!r}: must be {_describe(hint)}')
    if origin is Literal:
        if value not in args:
            raise wrong
        return value
    if origin in (list, tuple):
        if origin is tuple and isinstance(value, int) and not isinstance(value, bool):
            value = [value] * len(args)  # one side of a square
        if not isinstance(value, (list, tuple)) or (origin is tuple and len(value) != len(args)):
            raise wrong
        return origin(_coerce(item, args[0], key) for item in value)
    if hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML takes 1e-4 for a string
        except ValueError:
            raise wrong from None
    kind = dict if origin is dict else hint
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise wrong
    return _numbers(value) if kind is dict else value


def _numbers(value: Any) -> Any:
    """Free values, with numbers such as 1e-4 that YAML takes for a string."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, str) and re.fullmatch(r'[-+]?\d+(\.\d*)?[eE][-+]?\d+', value):
        return float(value)
    return value


def _describe(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f'one of {", ".join(args)}'
    if origin is tuple:
        return 'a number, or a list of two'
    return {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'a text'}.get(
        origin or hint, {list: 'a list', dict: 'keys and values'}.get(origin, str(hint))
    )
