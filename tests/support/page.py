"""A small gallery of drawn vehicles, and the page that shows it."""

from __future__ import annotations

import functools
from pathlib import Path

from PIL import Image

from timm_dpa.embedding.extractor import FeatureExtractor
from timm_dpa.gallery.filters import parse_time
from timm_dpa.gallery.gallery import Gallery
from timm_dpa.gallery.page.handlers import Page
from timm_dpa.gallery.pictures import thumbnail_of
from timm_dpa.gallery.rows import GalleryRow
from timm_dpa.train.data.toy_vehicles import draw_vehicle

CAMERAS = ('north', 'south <b>', '${1+1} {{x}}')  # names that a page must not take for markup
START = parse_time('2026-05-01T08:00Z')
MINUTE = 60_000
VEHICLES, VIEWS = 5, 6


@functools.cache
def extractor() -> FeatureExtractor:
    return FeatureExtractor('dpa_resnet18', pretrained=False, image_size=64, device='cpu')


def vehicle_rows(folder: Path) -> list[GalleryRow]:
    """Five vehicles, each twice by each of three cameras, which are tracks; hours between the cameras."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[GalleryRow] = []
    for vehicle in range(VEHICLES):
        for view in range(VIEWS):
            path = folder / f'{vehicle}_{view}.png'
            draw_vehicle(vehicle, view).save(path)
            rows.append(
                GalleryRow(
                    path.name,
                    image=str(path),
                    camera=CAMERAS[view // 2],
                    time=START + MINUTE * (60 * (view // 2) + 5 * vehicle + view % 2),
                    track=f'{vehicle}-{view // 2}',
                    thumbnail=thumbnail_of(Image.open(path)),
                )
            )
    for row, vector in zip(rows, extractor()([row.image for row in rows]), strict=True):
        row.vector = vector
    return rows


def drawn_gallery(folder: Path) -> Gallery:
    gallery = Gallery(folder / 'gallery', origin=extractor().describe(), create=True)
    gallery.add(vehicle_rows(folder / 'images'))
    return gallery


def drawn_page(folder: Path, **options) -> Page:
    return Page(drawn_gallery(folder), extractor(), **options)
