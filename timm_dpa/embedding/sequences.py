"""Sequences of frames with boxes, as MOTChallenge, VisDrone-MOT and UAVDT lie on disk."""

from __future__ import annotations

import configparser
import os
from dataclasses import dataclass, replace
from pathlib import Path

__all__ = ['SequenceFiles', 'find_sequences', 'has_sequences', 'named_sequence']

#: MOT17 comes three times, with the boxes of three detectors; frames and annotation are the same
_DETECTORS = ('-DPM', '-FRCNN', '-SDP')
_PARTS = {'train': 'train', 'val': 'test', 'test': 'test'}
_MOST = 20  # folders of a parent of data sets


@dataclass(frozen=True)
class SequenceFiles:
    """Where a sequence is.

    Attributes:
        name: of the sequence.
        frames: a folder of images, or a video.
        boxes: the file of its boxes.
        format: of the boxes, see `BOX_FORMATS`, or `'auto'`.
        rate: frames a second, None if it is not known.
        length: number of frames, None if it is not known.
        part: `'train'`, `'test'`, or empty where the data have no parts.
    """

    name: str
    frames: Path
    boxes: Path
    format: str = 'auto'
    rate: float | None = None
    length: int | None = None
    part: str = ''


def named_sequence(
    frames: str | os.PathLike[str], boxes: str | os.PathLike[str], format: str = 'auto', rate: float | None = None
) -> SequenceFiles:
    """A video, or a folder of images, with a file of boxes; called after the video or the folder."""
    frames = Path(frames)
    return SequenceFiles(frames.resolve().name if frames.is_dir() else frames.stem, frames, Path(boxes), format, rate)


def has_sequences(root: Path) -> bool:
    """Whether `find_sequences` finds any, told by few looks at the disk."""
    return bool(_some(root, first=True))


def find_sequences(root: str | os.PathLike[str]) -> list[SequenceFiles]:
    """The annotated sequences in a folder.

    - MOTChallenge: `<sequence>/img1/` and `<sequence>/gt/gt.txt`; `seqinfo.ini` may tell name, folder of the frames,
      frame rate and length. Of MOT17's three copies of a sequence the first is taken.
    - VisDrone-MOT: `sequences/<sequence>/` and `annotations/<sequence>.txt`.
    - UAVDT: `<sequence>/` and `GT/<sequence>_gt_whole.txt`, each in the folder or one below.

    The folder may be a sequence, a data set, or the parent of its parts, whose names begin or end with train, val or
    test.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: nothing is found, two sequences have one name, or a `seqinfo.ini` is damaged.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f'{root}: no such folder of sequences')
    found = _some(root)
    if not found:
        raise ValueError(
            f'{root}: no sequence in this folder; expected img1/ and gt/gt.txt (MOTChallenge), sequences/ and '
            'annotations/ (VisDrone-MOT), or GT/<sequence>_gt_whole.txt (UAVDT); for others give --boxes FILE'
        )
    found = [_with_info(sequence) for sequence in found]
    by_name: dict[str, SequenceFiles] = {}
    for sequence in sorted(found, key=lambda sequence: (sequence.name, sequence.frames)):
        base = next((sequence.name.removesuffix(end) for end in _DETECTORS if sequence.name.endswith(end)), None)
        name = base or sequence.name
        if (other := by_name.setdefault(name, replace(sequence, name=name))).frames != sequence.frames and not base:
            raise ValueError(f'two sequences are called {name}: {other.frames} and {sequence.frames}')
    return list(by_name.values())


def _some(root: Path, first: bool = False) -> list[SequenceFiles]:
    found = _sequences_at(root, first)
    children = [] if found else _folders(root)
    if len(children) <= _MOST:
        for child in children:
            if found and first:
                break
            found += [replace(sequence, part=_part(child.name)) for sequence in _sequences_at(child, first)]
    parts = {sequence.part for sequence in found}
    # a part alone is no split
    return found if {'train', 'test'} <= parts else [replace(sequence, part='') for sequence in found]


def _part(name: str) -> str:
    words = name.lower().replace('_', '-').split('-')
    return next((_PARTS[word] for word in (words[0], *reversed(words)) if word in _PARTS), '')


def _folders(root: Path) -> list[Path]:
    with os.scandir(root) as entries:  # which tells folders without a look at each of many files
        return sorted(Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith('.'))


def _sequences_at(folder: Path, first: bool) -> list[SequenceFiles]:
    if _is_mot(folder):
        return [_mot(folder)]
    if (folder / 'sequences').is_dir() and (folder / 'annotations').is_dir():
        tables = sorted((folder / 'annotations').glob('*.txt'))
        pairs = [(table, folder / 'sequences' / table.stem) for table in tables]
        return [SequenceFiles(t.stem, frames, t, 'visdrone') for t, frames in pairs if frames.is_dir()]
    children = _folders(folder)
    if len(children) <= _MOST:
        tables = [table for place in (folder, *children) for table in sorted((place / 'GT').glob('*_gt_whole.txt'))]
        uavdt = []
        for table in tables:
            name = table.name.removesuffix('_gt_whole.txt')
            frames = next((place / name for place in (folder, *children) if (place / name).is_dir()), None)
            uavdt += [SequenceFiles(name, frames, table, 'uavdt')] if frames else []
        if uavdt:
            return uavdt
    found = []
    for child in children:
        if _is_mot(child):
            found.append(_mot(child))
            if first:
                break
    return found


def _is_mot(folder: Path) -> bool:
    return (folder / 'gt' / 'gt.txt').is_file()


def _mot(folder: Path) -> SequenceFiles:
    return SequenceFiles(folder.resolve().name, folder / 'img1', folder / 'gt' / 'gt.txt', 'mot')


def _with_info(sequence: SequenceFiles) -> SequenceFiles:
    """What `seqinfo.ini` tells of a sequence of MOTChallenge, and whether its frames are there."""
    folder = sequence.frames.parent
    path = folder / 'seqinfo.ini'
    if sequence.format == 'mot' and path.is_file():
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read(path, encoding='utf-8-sig')
            info = parser['Sequence']
            sequence = replace(
                sequence,
                name=info.get('name', sequence.name),
                frames=folder / info.get('imDir', 'img1'),
                rate=info.getfloat('frameRate'),
                length=info.getint('seqLength'),
            )
        except (configparser.Error, KeyError, ValueError) as error:
            raise ValueError(
                f'{path}: expected [Sequence] with name, imDir, frameRate and seqLength ({error})'
            ) from error
    if not sequence.frames.is_dir():
        raise ValueError(f'{sequence.frames}: no such folder, where the frames of {sequence.boxes} should be')
    return sequence
