"""Our models in roboflow's reid, whose `ReIDModel.from_pretrained(folder)` reads most folders without this."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..embedding.extractor import FeatureExtractor

__all__ = ['to_reid']


class _Embedding(nn.Module):
    """What reid calls: from normalized images the embedding, whether the model has a classifier or not."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        embedding: torch.Tensor = self.model.forward_head(self.model.forward_features(x), pre_logits=True)
        return embedding


def to_reid(model: str | Path | nn.Module | FeatureExtractor) -> Any:
    """A `reid.ReIDModel` that gives the embeddings of a model, in float32 and not of unit length, as reid has them.

    ```python
    embeddings = to_reid('dpa_resnet50').extract_embeddings(detections, frame)  # sv.Detections, frame of OpenCV (BGR)
    ```

    Args:
        model: name, folder of a run or of a model, or module, see `FeatureExtractor`; or an extractor, whose image size
            and device are kept. The module is shared, not copied, and goes to eval mode.

    Raises:
        ImportError: without the package reid.
        ValueError: an extractor with `flip`, or images that reid cannot prepare: it only stretches them.
        FileNotFoundError, WeightsError: see `FeatureExtractor`.
    """
    try:
        from reid import ReIDModel, ReIDPreprocessing
    except ImportError as error:
        raise ImportError(f"to_reid needs roboflow's reid: pip install reid ({error})") from error
    extractor = model if isinstance(model, FeatureExtractor) else FeatureExtractor(model)
    config = extractor.data_config
    if extractor.flip:
        raise ValueError('reid embeds no mirror images; give an extractor without flip')
    if config['crop_mode'] != 'squash' or config['interpolation'] not in ('bilinear', 'bicubic', 'nearest'):
        raise ValueError(
            f'reid stretches images, bilinear, bicubic or nearest; this model wants {config["crop_mode"]} and '
            f'{config["interpolation"]}'
        )
    preprocessing = ReIDPreprocessing(
        input_size=tuple(config['input_size'][1:]),
        mean=tuple(config['mean']),
        std=tuple(config['std']),
        interpolation=config['interpolation'],
    )
    return ReIDModel.from_pretrained(
        architecture=_Embedding(extractor.model), preprocessing=preprocessing, device=str(extractor.device)
    )
