"""Model cards: what a person reads before using a model, and what the Hub reads to list it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from .sources import real_sources, terms

__all__ = ['CardFacts', 'data_folder', 'model_card', 'read_command', 'read_metrics', 'read_results', 'read_sources']

_TAGS = ('timm-dpa', 'vehicle-re-identification', 're-identification', 'uav', 'drone', 'image-retrieval')
_TEMPLATE = Path(__file__).parent / 'templates' / 'model_card.md'
#: key in `evaluation.json`, identifier and name in the metadata
_METRICS = (
    ('mAP', 'mean_average_precision', 'mAP'),
    ('rank1', 'rank_1', 'Rank-1'),
    ('rank5', 'rank_5', 'Rank-5'),
    ('rank10', 'rank_10', 'Rank-10'),
    ('mINP', 'mean_inverse_negative_penalty', 'mINP'),
)
_ATTENTIONS = {
    'dpa': 'dual-pooling attention (Guo et al. 2024)',
    'cpa': 'channel-pooling attention (Guo et al. 2024)',
    'spa': 'spatial-pooling attention (Guo et al. 2024)',
    'se': 'squeeze-and-excitation (Hu et al. 2018)',
    'cbam': 'CBAM (Woo et al. 2018)',
    'ca': 'coordinate attention (Hou et al. 2021)',
    'nl': 'non-local blocks (Wang et al. 2018)',
    'nl_dot': 'non-local blocks without softmax (Wang et al. 2018)',
}


@dataclass(frozen=True)
class CardFacts:
    """What a card says.

    Attributes:
        repo_id: `org/name` on the Hub.
        architecture: name of the model in timm.
        width: of the embedding.
        image_size: height and width in pixels.
        parameters: number of them.
        licence: identifier of the weights' licence, as the Hub knows them.
        trained_on: sentences about the training data.
        synthetic: whether all of these are synthetic.
        sources: the data sets, see `timm_dpa.hub.sources.list_source`.
        base_model: `org/name` of the weights that training started from.
        model_args: options of the architecture that are not the default.
        results: contents of `evaluation.json`, see `read_results`.
        commands: that train the model again, by `recipe.yaml` beside the card and those of earlier stages.
        picture, picture_caption: name of the ranked lists' file, and what is on it.
        half: whether the weights are stored as float16.
        packaged_as: `architecture.tag` of weights that come with the package timm-dpa.
    """

    repo_id: str
    architecture: str
    width: int
    image_size: tuple[int, int]
    parameters: int
    licence: str
    trained_on: str
    synthetic: bool = False
    sources: Sequence[dict[str, Any]] = ()
    base_model: str | None = None
    model_args: dict[str, Any] = field(default_factory=dict)
    results: Sequence[dict[str, Any]] = ()
    commands: Sequence[str] = ()
    picture: str | None = None
    picture_caption: str = ''
    half: bool = False
    packaged_as: str | None = None

    @property
    def loaded_as(self) -> str:
        """What `timm.create_model` loads."""
        return self.packaged_as or f'hf-hub:{self.repo_id}'


def model_card(facts: CardFacts) -> ModelCard:
    """Render the card: metadata with the results as `model-index`, and `templates/model_card.md`.

    Raises:
        ValueError: results that lack a metric.
        ImportError: jinja2 is missing (torch brings it).
    """
    title = facts.repo_id.rpartition('/')[2]
    real = real_sources(facts.sources)
    photographs = ['real-images'] if real else []
    data = ModelCardData(
        license=facts.licence,
        library_name='timm',
        pipeline_tag='image-feature-extraction',
        tags=[
            *_TAGS,
            *(['synthetic-images'] if any(source['synthetic'] for source in facts.sources) else []),
            *photographs,
        ],
        datasets=list(dict.fromkeys(_slug(source['name']) for source in facts.sources if 'images' in source)) or None,
        trained_on=list(facts.sources) or None,
        base_model=facts.base_model,
        # the Hub wants a name where there are results
        model_name=title if facts.results else None,
        eval_results=[metric for result in facts.results for metric in _eval_results(result)] or None,
    )
    return ModelCard.from_template(
        data,
        template_path=str(_TEMPLATE),
        title=title,
        repo_id=facts.repo_id,
        architecture=facts.architecture,
        attention=_describe_architecture(facts),
        width=facts.width,
        parameters=f'{facts.parameters / 1e6:.1f}',
        height=facts.image_size[0],
        width_px=facts.image_size[1],
        synthetic=facts.synthetic,
        real=[', '.join([f'"{source["name"]}"', *terms(source)]) for source in real],
        mixed=any(source['synthetic'] for source in facts.sources),
        trained_on=facts.trained_on,
        base_model=facts.base_model,
        commands=facts.commands,
        results=[_row(result) for result in facts.results],
        evaluations=[_evaluation_command(result, facts.loaded_as) for result in facts.results],
        chosen=next((_row(result)['name'] for result in facts.results if _was_chosen(result)), None),
        picture=facts.picture,
        picture_caption=facts.picture_caption,
        licence_text=_licence_text(facts),
        half=facts.half,
        packaged=facts.packaged_as is not None,
        name=facts.loaded_as,
    )


def read_results(folder: Path) -> dict[str, Any]:
    """Read the `evaluation.json` of a run, or of `timm-dpa eval --out`.

    Raises:
        FileNotFoundError: none there.
        ValueError: it cannot be read, or does not say what data it is about.
    """
    path = folder / 'evaluation.json' if folder.is_dir() else folder
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such evaluation; timm-dpa eval writes one')
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        _row(content)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'{path}: not an evaluation that says what data it is about ({error!r}); make it again with timm-dpa eval'
        ) from error
    return content


def read_metrics(card: ModelCard) -> list[dict[str, Any]]:
    """The results of a card: for each evaluation `data`, `revision`, `protocol`, and mAP, Rank-1, ... in per cent."""
    rows: dict[tuple, dict[str, Any]] = {}
    for result in card.data.eval_results or []:
        key = (result.dataset_name, result.dataset_revision, result.dataset_config)
        row = rows.setdefault(key, dict(zip(('data', 'revision', 'protocol'), key, strict=True)))
        row[result.metric_name.removesuffix(' (%)')] = result.metric_value
    return list(rows.values())


def read_sources(card: ModelCard) -> list[dict[str, Any]]:
    """The data sets of a card, see `timm_dpa.hub.sources.list_source`."""
    return card.data.to_dict().get('trained_on', [])


def read_command(card: ModelCard) -> str:
    """The command on a card that trains the model again, stage after stage; empty where there is none."""
    return ' && '.join(re.findall(r'^timm-dpa train .*$', card.text, flags=re.MULTILINE))


def _row(result: dict[str, Any]) -> dict[str, Any]:
    data, settings = result['data'], result['settings']
    return {
        'name': ' '.join(data['name'].split()),
        'description': data.get('description', ''),
        'revision': data['test']['revision'],
        'protocol': _protocol(settings),
        'queries': round(result['metrics']['valid_queries']),
        'gallery': settings['gallery'],
        **{key: f'{100 * result["metrics"][key]:.2f}' for key, _, _ in _METRICS},
    }


def data_folder(data: dict[str, Any]) -> str:
    """How commands on a card call the folder of a data set, see `timm_dpa.train.data.provenance.describe_data`."""
    return re.sub(r'\s+', '-', data['name'])


def _evaluation_command(result: dict[str, Any], model: str) -> str:
    """The command that measures these figures of a model again."""
    data, settings = result['data'], result['settings']
    words = ['timm-dpa', 'eval', '--model', model, '--data', data_folder(data), '--protocol', settings['protocol']]
    fraction = result['recipe']['data']['test_fraction'] if 'recipe' in result else None
    if data['layout'] in ('csv', 'flat', 'folders') and not data['train']['images']:
        fraction = 1
    if fraction not in (None, 0.3):
        words += ['--test-fraction', str(fraction)]
    if settings['draws'] > 1:
        words += ['--draws', str(settings['draws'])]
    if settings['seed']:
        words += ['--seed', str(settings['seed'])]
    words += [f'--{word}' for word in ('rerank', 'flip') if settings.get(word)]
    if settings.get('expand'):
        words += ['--expand', str(settings['expand'])]
    if settings.get('query_identities'):
        words += ['--queries', *settings['query_identities']]
    return shlex.join(words)


def _was_chosen(result: dict[str, Any]) -> bool:
    """Whether a run evaluated several weights, of epochs or of its start, and kept those with this result."""
    if 'epoch' not in result:
        return False
    recipe = result['recipe']
    run = recipe['run']
    return 0 < run['evaluate_every'] < recipe['schedule']['epochs'] or run.get('compare_start', False)


def _protocol(settings: dict[str, Any]) -> str:
    parts = [settings['protocol']]
    if settings['draws'] > 1:
        parts.append(f'mean of {settings["draws"]} draws')
    if settings['same_camera_excluded']:
        parts.append('same camera excluded')
    parts += [word for word in ('rerank', 'flip') if settings.get(word)]
    if settings.get('expand'):
        parts.append(f'queries expanded by {settings["expand"]}')
    if settings.get('query_identities'):
        parts.append(f'queries of {len(settings["query_identities"])} chosen vehicles')
    return ', '.join(parts)


def _eval_results(result: dict[str, Any]) -> list[EvalResult]:
    row = _row(result)
    return [
        EvalResult(
            task_type='image-feature-extraction',
            task_name='Vehicle re-identification',
            dataset_type=_slug(row['name']),
            dataset_name=row['name'],
            dataset_config=row['protocol'],
            dataset_split='test',
            dataset_revision=row['revision'],
            metric_type=identifier,
            metric_name=f'{name} (%)',
            metric_value=round(100 * result['metrics'][key], 2),
        )
        for key, identifier, name in _METRICS
    ]


def _slug(name: str) -> str:
    return re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-') or 'images'


def _describe_architecture(facts: CardFacts) -> str:
    args = dict(facts.model_args)
    if facts.architecture == 'reid_timm':
        return f'`{args.get("backbone", "a backbone")}` of timm with GeM pooling and a batch-norm neck'
    attention = _ATTENTIONS.get(args.pop('attn_layer', facts.architecture.partition('_resnet')[0]))
    stages = args.pop('attn_stages', [3])
    text = 'a ResNet without attention, with a batch-norm neck'
    if attention and stages:
        text = f'a ResNet with {attention} after stage{"s" * (len(stages) > 1)} {" and ".join(map(str, stages))}'
    options = ', '.join(f'`{key}={value!r}`' for key, value in sorted(args.items()))
    return f'{text}; options {options}' if options else text


def _licence_text(facts: CardFacts) -> str:
    text = f'The weights: `{facts.licence}`. The package timm-dpa: Apache-2.0.'
    if facts.base_model:
        text += f' The licence of {facts.base_model}, which training started from, applies, too.'
    said = [
        f'"{source["name"]}": {", ".join(terms(source))}' for source in real_sources(facts.sources) if terms(source)
    ]
    if said:
        text += f'\n\nReal images that they were trained on: {"; ".join(said)}.'
    return text
