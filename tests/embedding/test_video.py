"""Frames of folders and videos: numbers, times, orientation, and what is missing or damaged."""

import math
import tracemalloc

import numpy as np
import pytest

from tests.support import sequences
from timm_dpa.embedding.video import open_frames

TRACKS = range(3)


def near(pixels, frame: int, tolerance: float = 8) -> bool:
    """Whether these are the pixels of the drawn frame, but for compression; the neighbors of a frame are further."""
    return np.abs(pixels.astype(float) - sequences.draw(frame, TRACKS)).mean() < tolerance


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
    return sequences.write_video(tmp_path_factory.mktemp('video') / 'clip.mp4', range(20), TRACKS, rate=10)


class TestVideo:
    @pytest.mark.parametrize('first', [0, 1])
    def test_frames_by_number_with_their_time(self, clip, first):
        frames = open_frames(clip, first=first)
        assert frames.length == 20
        found = list(frames.read({first + 2, first + 3, first + 19}))
        assert [frame.number - first for frame in found] == [2, 3, 19]
        assert [frame.time for frame in found] == pytest.approx([0.2, 0.3, 1.9])
        for frame in found:
            errors = [np.abs(frame.pixels.astype(float) - sequences.draw(k, TRACKS)).mean() for k in range(20)]
            assert errors[frame.number - first] == min(errors)
            assert near(frame.pixels, frame.number - first)

    @pytest.mark.parametrize('turns', [1, 2, 3])
    def test_turned_upright(self, tmp_path, turns):
        clip = sequences.write_video(tmp_path / 'phone.mp4', range(3), TRACKS, quarter_turns=turns)
        (frame,) = open_frames(clip, first=0).read({2})
        assert frame.pixels.shape == (64, 96, 3)
        assert near(frame.pixels, 2)

    def test_frames_that_are_not_there(self, clip):
        with pytest.raises(
            ValueError, match=r'clip\.mp4: has 20 frames, 1 to 20; the boxes name frame 21 \(2 missing\)'
        ):
            next(open_frames(clip).read({3, 21, 30}))
        with pytest.raises(ValueError, match='has no frame 0, which the boxes name; its first is 1'):
            next(open_frames(clip).read({0}))
        with pytest.raises(ValueError, match="have numbers, not names such as 'a'"):
            next(open_frames(clip).read({'a'}))
        assert list(open_frames(clip).read(set())) == []

    def test_damaged_files(self, clip, tmp_path):
        (tmp_path / 'text.mp4').write_text('no video')
        with pytest.raises(ValueError, match=r'text\.mp4: cannot be read as a video'):
            next(open_frames(tmp_path / 'text.mp4').read({1}))
        content = clip.read_bytes()
        (tmp_path / 'half.mp4').write_bytes(content[: len(content) // 2])  # the index is at its end
        with pytest.raises(ValueError, match=r'half\.mp4: cannot be read as a video'):
            next(open_frames(tmp_path / 'half.mp4').read({1}))
        with pytest.raises(FileNotFoundError, match='no such video, or folder of frames'):
            open_frames(tmp_path / 'none.mp4')

    def test_memory_does_not_grow_with_the_video(self, tmp_path):
        clip = sequences.write_video(tmp_path / 'long.mp4', range(200), TRACKS)
        tracemalloc.start()
        count = sum(1 for _ in open_frames(clip).read(set(range(1, 201))))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == 200
        assert peak < 20 * 96 * 64 * 3


class TestFolder:
    @pytest.fixture
    def folder(self, tmp_path):
        return sequences.write_frames(tmp_path / 'seq', range(5, 10), TRACKS, name='img{:04d}.png')

    def test_numbers_and_names(self, folder):
        (folder / 'notes.txt').write_text('no image')
        frames = open_frames(folder, rate=5)
        assert frames.length == 5
        found = list(frames.read({6, 'img0009'}))
        assert [(frame.number, frame.name) for frame in found] == [(6, 'img0006'), (9, 'img0009')]
        assert [frame.time for frame in found] == pytest.approx([0.2, 0.8])
        np.testing.assert_array_equal(found[1].pixels, sequences.draw(9, TRACKS))
        assert all(math.isnan(frame.time) for frame in open_frames(folder).read({6}))

    def test_refused(self, folder, tmp_path):
        message = r'has no frame 12, which the boxes name \(1 missing; the folder has 5 images, img0005\.png to img0009'
        with pytest.raises(ValueError, match=message):
            next(open_frames(folder).read({12, 6}))
        with pytest.raises(ValueError, match='has no frame none'):
            next(open_frames(folder).read({'none'}))
        (folder / 'img0005.png').rename(folder / 'first.png')
        with pytest.raises(ValueError, match=r'names such as first\.png do not tell the number'):
            next(open_frames(folder).read({6}))
        assert [frame.name for frame in open_frames(folder).read({'first'})] == ['first']
        (tmp_path / 'empty').mkdir()
        with pytest.raises(ValueError, match='no image in this folder of frames'):
            next(open_frames(tmp_path / 'empty').read({6}))
