"""What a cosine says, in plain words: how many different vehicles reach it."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ['UNKNOWN', 'explain_rates', 'false_matches']

UNKNOWN = 'rate of false matches not known'


def false_matches(cosine: float, thresholds: Mapping[float, float] | None) -> str:
    """How many of 100 pairs of different vehicles reach a cosine, as far as it was measured.

    Args:
        cosine: -1..1.
        thresholds: false-match rate in 0..1 -> cosine, see `FeatureExtractor.thresholds`; None if unknown.

    Returns:
        Such as `at most 0.1 % false matches`, `more than 1 % false matches`, or `UNKNOWN`.
    """
    if not thresholds:
        return UNKNOWN
    reached = [rate for rate, threshold in thresholds.items() if cosine >= threshold]
    if reached:
        return f'at most {_percent(min(reached))} false matches'
    return f'more than {_percent(max(thresholds))} false matches'


def explain_rates(thresholds: Mapping[float, float] | None, images: int) -> str:
    """What the rates mean for a gallery of so many images, in sentences."""
    if not thresholds:
        return (
            'How often different vehicles reach a cosine was not measured for these weights at this image size, so a '
            'cosine only orders the matches: it does not tell whether two images show one vehicle.'
        )
    parts = []
    for rate, cosine in sorted(thresholds.items(), reverse=True):
        expected = rate * images
        parts.append(f'{_percent(rate)} of different vehicles reach {cosine:.2f}, about {_count(expected)}')
    return (
        f'Of {images:,} images, if all showed other vehicles: {" of them; ".join(parts)} of them. Measured with '
        'these weights on the data that they were released with; other cameras give other rates.'
    )


def _percent(rate: float) -> str:
    return f'{100 * rate:.3g} %'


def _count(number: float) -> str:
    return f'{number:,.0f}' if number >= 10 else f'{number:.2g}'
