"""What mkdocs makes at build time, so that no page repeats what another file of this repository says.

It makes the start page from README.md, the pages of the project from CONTRIBUTING.md and the like, a page for each card
of released weights, the tables of models and weights, the recipe reference, and an API page for each package.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PROJECT = Path(__file__).parents[1]
#: page -> the file of the repository that it is made from
PROJECT_PAGES = {
    'index.md': 'README.md',
    'contributing.md': 'CONTRIBUTING.md',
    'security.md': 'SECURITY.md',
    'changelog.md': 'CHANGELOG.md',
}
#: folder -> the name below which it is installed; also the order of the API pages
PACKAGES = {'timm_dpa': 'timm_dpa', 'train': 'timm_dpa.train', 'synth': 'timm_dpa.synth', 'hub': 'timm_dpa.hub'}
METRICS = ('mAP', 'Rank-1', 'Rank-5', 'mINP')


def on_startup(**_: Any) -> None:
    """Show mkdocstrings the packages as they are installed; `make types` uses the same links."""
    links = PROJECT / 'build' / 'types' / 'timm_dpa'
    shutil.rmtree(links, ignore_errors=True)
    links.mkdir(parents=True)
    entries = [path for path in (PROJECT / 'timm_dpa').iterdir() if path.name != '__pycache__']
    for path in (*entries, PROJECT / 'train', PROJECT / 'synth', PROJECT / 'hub'):
        (links / path.name).symlink_to(path)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {page: _from_repository(source) for page, source in PROJECT_PAGES.items()}
    pages |= {'recipe_reference.md': _recipe_reference(), **_api_pages()}
    for folder in sorted((PROJECT / 'hub' / 'models').iterdir()):
        pages[f'models/{folder.name}.md'] = _card(folder)
        files.append(File.generated(config, f'models/{folder.name}.png', abs_src_path=str(folder / 'ranks.png')))
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill the tables of models.md."""
    if page.file.src_uri == 'models.md':
        markdown = markdown.replace('<!-- generated: models -->', _models_table())
        markdown = markdown.replace('<!-- generated: weights -->', _weights_table())
    return markdown


def _from_repository(source: str) -> str:
    """A file of the repository, with links that are right below docs/."""
    text = (PROJECT / source).read_text(encoding='utf-8')
    pages = {name: page for page, name in PROJECT_PAGES.items()}

    def link(match: re.Match[str]) -> str:
        target, hash_, anchor = match[2].partition('#')
        if target in pages:
            target = pages[target]
        elif target.startswith('docs/'):
            target = target.removeprefix('docs/')
        elif card := re.fullmatch(r'hub/models/([^/]+)/(README\.md|ranks\.png)', target):
            target = f'models/{card[1]}{".md" if card[2] == "README.md" else ".png"}'
        elif '://' not in target and target:
            return match[1]  # a file that the site does not have: only its name
        return f'[{match[1]}]({target}{hash_}{anchor})'

    return re.sub(r'\[([^\]]+)\]\(([^)\s]+)\)', link, text)


def _card(folder: Path) -> str:
    """A model card without the metadata for the Hub."""
    text = (folder / 'README.md').read_text(encoding='utf-8')
    return re.sub(r'\A---\n.*?\n---\n', '', text, flags=re.S).replace('](ranks.png)', f']({folder.name}.png)')


def _models_table() -> str:
    from timm_dpa.catalog import zoo_table

    return zoo_table(markdown=True)


def _weights_table() -> str:
    """Rows of the manifest: a line for each test of each tag."""
    from timm_dpa.weights.manifest import read_manifest

    rows = [('weights', 'size (MB)', 'test set', 'protocol', *METRICS)]
    rows.append(tuple('---:' if name in ('size (MB)', *METRICS) else '---' for name in rows[0]))
    for name, release in read_manifest().items():
        for metrics in release.metrics:
            scores = (f'{metrics[key]:.1f}' for key in METRICS)
            link = f'[`{name}`](models/{release.folder}.md)'
            rows.append((link, f'{release.size / 1e6:.1f}', metrics['data'], metrics['protocol'], *scores))
    return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def _recipe_reference() -> str:
    """All keys of a recipe, in Markdown."""
    from timm_dpa.train.recipes.reference import recipe_reference

    head = (
        '# Recipe reference\n\nA recipe is a YAML file with these sections. Keys that are left out keep their default. '
        '`SECTION.KEY=VALUE` on the command line changes one, see [training](training.md).\n\n'
    )
    return head + recipe_reference()


def _api_pages() -> dict[str, str]:
    """A page for each folder of modules; a module is in it if it says what it offers (`__all__`)."""
    pages, index = {}, ['# API\n\nThe packages and their public modules.\n']
    for folder, package in PACKAGES.items():
        found: dict[str, list[str]] = {}
        for path in sorted((PROJECT / folder).rglob('*.py')):
            parts = path.relative_to(PROJECT / folder).with_suffix('').parts
            if '__all__ = ' not in path.read_text(encoding='utf-8') or 'cli' in parts:  # commands: see their --help
                continue
            names = parts[:-1] if parts[-1] == '__init__' else parts
            parent = '.'.join([package, *(parts[:-1])])
            found.setdefault(parent, []).append('.'.join([package, *names]))
        for parent, modules in sorted(found.items()):
            body = '\n'.join(f'::: {module}\n' for module in modules)
            pages[f'api/{parent}.md'] = f'# {parent}\n\n{body}'
            index.append(
                f'- [`{parent}`]({parent}.md): ' + ', '.join(f'`{name.rpartition(".")[2]}`' for name in modules)
            )
    pages['api/index.md'] = '\n'.join(index) + '\n'
    return pages
