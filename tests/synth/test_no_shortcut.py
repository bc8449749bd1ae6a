"""Nothing but the vehicle tells rendered vehicles apart: not the ground, the light, the camera or the neighbors."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from timm_dpa.synth.images import render_stills
from timm_dpa.synth.plan import Plan
from timm_dpa.synth.world.assets import AssetCache
from timm_dpa.train.evaluation.metrics import evaluate

PLAN = Plan(40, 12, seed=9, sizes=(40, 48), siblings=1, flights=24, test_share=0, degradation=0.5)


def render_images() -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Images as they are and with the vehicle's box in gray, `(N, 3, 32, 32)`; `(N, 3)` vehicle, flight, number."""
    assets, flights, whole, masked, labels = AssetCache(PLAN.seed), {}, [], [], []
    for vehicle in range(PLAN.ids):
        shots = zip(PLAN.shots(vehicle), render_stills(PLAN, vehicle, assets, flights), strict=True)
        for (number, flight, _), (_, _, pixels, row) in shots:
            left, top, right, bottom = (float(v) for v in row[6:10])
            hidden = pixels.copy()
            hidden[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))] = 118
            for images, picture in ((whole, pixels), (masked, hidden)):
                images.append(np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.BILINEAR)))
            labels.append((vehicle, flight, number))
    as_tensor = (torch.from_numpy(np.stack(i)).permute(0, 3, 1, 2).float() / 255 - 0.45 for i in (whole, masked))
    return *as_tensor, np.array(labels)


def rank1(pixels: torch.Tensor, labels: np.ndarray) -> float:
    """Of a small network that is trained on three flights of each vehicle, on the same vehicles by three others."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for width, wider in ((3, 24), (24, 48), (48, 64)):
        layers += [nn.Conv2d(width, wider, 3, padding=1), nn.BatchNorm2d(wider), nn.ReLU(), nn.MaxPool2d(2)]
    body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
    head = nn.Linear(256, PLAN.ids)
    vehicles = torch.from_numpy(labels[:, 0])
    seen = torch.from_numpy(np.flatnonzero(labels[:, 2] % 6 < 3))
    optimizer = torch.optim.AdamW([*body.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(25):
        for batch in seen[torch.randperm(len(seen))].split(48):
            images = pixels[batch] if torch.rand(()) < 0.5 else pixels[batch].flip(3)
            nn.functional.cross_entropy(head(body(images)), vehicles[batch]).backward()
            optimizer.step()
            optimizer.zero_grad()
    body.eval()
    parts = [np.flatnonzero(np.isin(labels[:, 2], numbers)) for numbers in ((3, 4, 5), (9, 10, 11))]
    with torch.no_grad():
        features = [body(pixels[torch.from_numpy(part)]) for part in parts]
    pids, camids = ([labels[part, i] for part in parts] for i in (0, 1))
    return float(evaluate(*features, *pids, *camids, exclude_same_camera=True).cmc[0])


@pytest.mark.slow
def test_without_the_vehicle_it_is_near_chance():
    whole, masked, labels = render_images()
    chance = 2 / (3 * PLAN.ids - 1)  # two of the gallery are of the vehicle and by other flights
    assert rank1(masked, labels) < 3 * chance
    assert rank1(whole, labels) > 5 * chance
