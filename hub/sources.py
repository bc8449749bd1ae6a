"""The data sets that weights were trained on: what a card, the manifest and `timm-dpa models` say of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from timm_dpa.train.recipes.recipe import ModelRecipe
from timm_dpa.train.run.networks import pretrained_origin, released_start
from timm_dpa.weights.fetch import read_manifest

__all__ = ['apply_about', 'describe_source', 'list_source', 'real_sources', 'start_sources', 'terms']

_KEYS = ('license', 'credit')


def list_source(data: dict[str, Any]) -> dict[str, Any]:
    """The entry of a data set, see `timm_dpa.train.data.provenance.describe_data`.

    Returns:
        `name`; `synthetic`, whether that is known; `images`, `identities` and `revision` of its training part; and
        `license` and `credit` where the set says them.
    """
    said = {key: data[key] for key in _KEYS if key in data}
    name = ' '.join(data['name'].split())
    return {'name': name, 'synthetic': bool(data.get('synthetic')), **data['train'], **said}


def start_sources(model: ModelRecipe) -> list[dict[str, Any]]:
    """What the weights that a training started from were trained on, as far as that is known: some are named only."""
    released = released_start(model)
    known = read_manifest()[released].get('trained_on') if released else None
    if known:
        return known
    name = released or pretrained_origin(model)
    return [{'name': f'weights {name}' if name else 'weights of unknown origin', 'synthetic': False}]


def real_sources(sources: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The data sets among some entries that are not known to be synthetic."""
    return [source for source in sources if 'images' in source and not source['synthetic']]


def describe_source(source: dict[str, Any]) -> str:
    """An entry in some words."""
    if 'images' not in source:
        return f'the images of {source["name"]}'
    kind = 'synthetic images' if source['synthetic'] else 'images'
    said = [f'"{source["name"]}"', *terms(source)]
    return f'{source["images"]:,} {kind} of {source["identities"]:,} vehicles ({", ".join(said)})'


def terms(source: dict[str, Any]) -> list[str]:
    """License and credit of a data set or an entry, as far as it says them."""
    credit = [f'credit: {source["credit"]}'] if source.get('credit') else []
    return [*([source['license']] if source.get('license') else []), *credit]


def apply_about(data: dict[str, Any], about: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """A data set's description, with those that were mixed into it, after `about` has replaced what some say of them.

    Args:
        about: contents of a `dataset.json`, by the name that the description has so far, or by the revision of its
            training part, where two sets have one name.
    """
    said = {**data, **(about.get(data['train']['revision']) or about.get(data['name'], {}))}
    return {**said, 'mix': [apply_about(other, about) for other in data['mix']]} if 'mix' in data else said
