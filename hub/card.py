"""Model cards: the facts of a model in `release.json`, and the `README.md` that is rendered from them.

A person reads the card before using a model, and the Hub reads its metadata to list it. Nothing is read back from it.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from timm_dpa.attention import ATTN_TEXTS
from timm_dpa.files import write_bytes
from timm_dpa.train.evaluation.tables import METRICS

from .lineage import data_folder, only_synthetic, real_sources, terms

__all__ = ['CARD', 'FACTS_FILE', 'CardFacts', 'read_facts', 'read_results', 'render_card', 'summarize', 'write_card']

CARD = 'README.md'
FACTS_FILE = 'release.json'
_TAGS = ('timm-dpa', 'vehicle-re-identification', 're-identification', 'uav', 'drone', 'image-retrieval')
_TEMPLATE = Path(__file__).parent / 'templates' / 'model_card.md'
#: key in `evaluation.json` -> identifier in the card's metadata
_IDENTIFIERS = {
    'mAP': 'mean_average_precision',
    'rank1': 'rank_1',
    'rank5': 'rank_5',
    'rank10': 'rank_10',
    'mINP': 'mean_inverse_negative_penalty',
}


@dataclass(frozen=True)
class CardFacts:
    """What a card says, and what `release.json` holds under the same names.

    Attributes:
        repo_id: `org/name` on the Hub.
        packaged_as: `architecture.tag` of weights that come with the package timm-dpa.
        architecture: name of the model in timm.
        model_args: options of the architecture that are not the default.
        width: length of the embedding.
        image_size: height and width in pixels.
        parameters: number of parameters.
        half: whether the weights are stored as float16.
        license: identifier of the weights' license, as the Hub knows them.
        trained_on: sentences about the training data.
        sources: the data sets, see `timm_dpa.hub.lineage.list_source`.
        base_model: `org/name` of the weights that training started from.
        commands: the commands that train the model again, by `recipe.yaml` beside the card and those of earlier runs.
        results: one entry for each evaluation, see `summarize`.
        thresholds: of the cosine, see `timm_dpa.weights.thresholds`.
        int8: what `benchmarks/int8.py` measured of the exported file of 8 bits: `megabytes`, `mean_cosine`,
            `min_cosine` and `results`, a list with `data`, `mAP` and `Rank-1` in percent. None where nobody did.
        picture, picture_caption: file name of the ranked lists, and what they show.
    """

    repo_id: str
    architecture: str
    width: int
    image_size: Sequence[int]
    parameters: int
    license: str
    trained_on: str
    packaged_as: str | None = None
    model_args: dict[str, Any] = field(default_factory=dict)
    half: bool = False
    sources: Sequence[dict[str, Any]] = ()
    base_model: str | None = None
    commands: Sequence[str] = ()
    results: Sequence[dict[str, Any]] = ()
    thresholds: Sequence[dict[str, Any]] = ()
    int8: dict[str, Any] | None = None
    picture: str | None = None
    picture_caption: str = ''

    @property
    def loaded_as(self) -> str:
        """What `timm.create_model` loads."""
        return self.packaged_as or f'hf-hub:{self.repo_id}'


def read_facts(folder: Path) -> CardFacts:
    """Read `release.json` of a model's folder.

    Raises:
        FileNotFoundError: the folder has none.
        ValueError: the file cannot be read, or does not hold the facts of a card.
    """
    path = folder / FACTS_FILE
    try:
        return CardFacts(**json.loads(path.read_text(encoding='utf-8')))
    except (ValueError, TypeError) as error:
        raise ValueError(f'{path}: does not hold the facts of a model card ({error})') from error


def write_card(facts: CardFacts, folder: Path) -> None:
    """Write `release.json` and the `README.md` that is rendered from it."""
    known = {key: value for key, value in dataclasses.asdict(facts).items() if key != 'int8' or value}
    content = json.dumps(known, indent=2, ensure_ascii=False) + '\n'
    write_bytes(folder / FACTS_FILE, content.encode())
    write_bytes(folder / CARD, render_card(facts).encode())


def render_card(facts: CardFacts) -> str:
    """Render the text of the card: metadata with the results as `model-index`, and `templates/model_card.md`.

    Raises:
        ImportError: jinja2 is missing (torch brings it).
    """
    title = facts.repo_id.rpartition('/')[2]
    real = real_sources(facts.sources)
    mixed = any(source['synthetic'] for source in facts.sources)
    data = ModelCardData(
        license=facts.license,
        library_name='timm',
        pipeline_tag='image-feature-extraction',
        tags=[*_TAGS, *(['synthetic-images'] if mixed else []), *(['real-images'] if real else [])],
        datasets=list(dict.fromkeys(_slug(source['name']) for source in facts.sources if 'images' in source)) or None,
        trained_on=list(facts.sources) or None,
        base_model=facts.base_model,
        # the Hub wants a name where there are results
        model_name=title if facts.results else None,
        eval_results=[metric for result in facts.results for metric in _eval_results(result)] or None,
    )
    card = ModelCard.from_template(
        data,
        template_path=str(_TEMPLATE),
        facts=facts,
        title=title,
        attention=_describe_architecture(facts),
        synthetic=only_synthetic(facts.sources),
        mixed=mixed,
        real=[', '.join([f'"{source["name"]}"', *terms(source)]) for source in real],
        metrics=list(METRICS.values()),
        license_text=_license_text(facts),
    )
    return str(card).rstrip() + '\n'


def read_results(folder: Path) -> dict[str, Any]:
    """Read the `evaluation.json` of a run, or of `timm-dpa eval --out`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it cannot be read, or does not say what data it is about.
    """
    path = folder / 'evaluation.json' if folder.is_dir() else folder
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such evaluation; timm-dpa eval writes one')
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))
        summarize(content)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'{path}: not an evaluation that says what data it is about ({error!r}); make it again with timm-dpa eval'
        ) from error
    return content


def summarize(result: dict[str, Any]) -> dict[str, Any]:
    """What a card says of an evaluation.

    Args:
        result: contents of `evaluation.json`, see `read_results`.

    Returns:
        `data`, `description` and `revision` of the data set; `protocol`; numbers of `queries` and `gallery` images;
        mAP, Rank-1, ... in percent; `options` of `timm-dpa eval` that measure them again; `chosen`, whether the run
        kept those weights that had the best of several such results.
    """
    data, settings = result['data'], result['settings']
    return {
        'data': ' '.join(data['name'].split()),
        'description': data.get('description', ''),
        'revision': data['test']['revision'],
        'protocol': _protocol(settings),
        'queries': round(result['metrics']['valid_queries']),
        'gallery': settings['gallery'],
        **{name: round(100 * result['metrics'][key], 2) for key, name in METRICS.items()},
        'options': _evaluation_options(result),
        'chosen': _was_chosen(result),
    }


def _evaluation_options(result: dict[str, Any]) -> str:
    data, settings = result['data'], result['settings']
    words = ['--data', data_folder(data), '--protocol', settings['protocol']]
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
    """Whether a run evaluated the weights of several epochs, or its start too, and kept those with this result."""
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
    return [
        EvalResult(
            task_type='image-feature-extraction',
            task_name='Vehicle re-identification',
            dataset_type=_slug(result['data']),
            dataset_name=result['data'],
            dataset_config=result['protocol'],
            dataset_split='test',
            dataset_revision=result['revision'],
            metric_type=_IDENTIFIERS[key],
            metric_name=f'{name} (%)',
            metric_value=result[name],
        )
        for key, name in METRICS.items()
    ]


def _slug(name: str) -> str:
    return re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-') or 'images'


def _describe_architecture(facts: CardFacts) -> str:
    args = dict(facts.model_args)
    if facts.architecture == 'reid_timm':
        return f'`{args.get("backbone", "a backbone")}` of timm with GeM pooling and a batch-norm neck'
    attention = ATTN_TEXTS.get(args.pop('attn_layer', facts.architecture.partition('_resnet')[0]))
    stages = args.pop('attn_stages', [3])
    text = 'a ResNet without attention, with a batch-norm neck'
    if attention and stages:
        text = f'a ResNet with {attention} after stage{"s" * (len(stages) > 1)} {" and ".join(map(str, stages))}'
    options = ', '.join(f'`{key}={value!r}`' for key, value in sorted(args.items()))
    return f'{text}; options {options}' if options else text


def _license_text(facts: CardFacts) -> str:
    text = f'The weights: `{facts.license}`. The package timm-dpa: Apache-2.0.'
    if facts.base_model:
        text += f' The license of {facts.base_model}, which training started from, applies as well.'
    said = [
        f'"{source["name"]}": {", ".join(terms(source))}' for source in real_sources(facts.sources) if terms(source)
    ]
    if said:
        text += f'\n\nReal images that the weights were trained on: {"; ".join(said)}.'
    return text
