"""Every script of benchmarks/ at a tiny size, run as a user runs it. Ratios are not judged: they vary by machine."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from timm_dpa.train.data.toy import draw_data_set

PROJECT = Path(__file__).parents[2]
FOLDER = PROJECT / 'benchmarks'
RATIO = r' +\d+\.\d{3} x   \(quartiles \d+\.\d{3} - \d+\.\d{3}; target .+\)'

#: script -> its options at a tiny size, {data} being a toy data set, and the lines that it has to print
SMOKE = {
    'import_time.py': ('--repeats 2', [f'import timm_dpa / import timm{RATIO}']),
    'attention.py': (
        '--depth 18 --pixels 64 --repeats 2',
        [
            f'dpa_resnet18 / reid_resnet18, {what}, {memory_format}{RATIO}'
            for memory_format in ('contiguous', 'channels_last')
            for what in ('forward', 'training step')
        ],
    ),
    'features.py': (
        '--model dpa_resnet18 --images 6 --batch-size 4 --repeats 2 --precision fp32',
        [
            f'dpa_resnet18, 6 JPEGs, float32: images/s over the bare model{RATIO}',
            r'dpa_resnet18: [\d.]+ ms of CPU an image, so [\d.]+ images/s a core',
        ],
    ),
    'boxes.py': (
        '--model dpa_resnet18 --boxes 3 --repeats 2 --precision fp32',
        [
            *(f'dpa_resnet18, float32, 3 {kind} boxes / crops{RATIO}' for kind in ('upright', 'oriented')),
            f'dpa_resnet18, float32, 10 frames of 3: embed_frames / embed_boxes{RATIO}',
        ],
    ),
    'runtimes.py': (
        '--model dpa_resnet18 --random --image-size 64 --images 8 --batch-size 4 --rounds 2',
        [
            r'batch norm folded: embeddings differ by \d\.\de-0[678] from those of torch',
            *(
                rf'dpa_resnet18, batch 4, \d+ threads: {name}{RATIO}'
                for name in (
                    'torch float32',
                    'torch float32, channels_last',
                    'torch float32, channels_last, batch norm folded',
                    'torch bf16, channels_last',
                    'onnxruntime float32',
                    r'onnxruntime int8, cosine \d\.\d+',
                )
            ),
            rf'dpa_resnet18, 8 JPEGs: images/s over bare torch{RATIO}',
            rf'dpa_resnet18, 8 JPEGs: images/s over bare onnxruntime{RATIO}',
        ],
    ),
    'gallery.py': (
        '--rows 400 --width 16 --queries 2 --file-rows 300 --file-width 32 --repeats 2',
        [
            *(rf'file of 300 x 32, {count} queries / numpy product{RATIO}' for count in (1, 100)),
            r'filled with 400 x 16 float32 in .*rows/s.*',
            r'optimized in .* s of CPU\); 0 rows in the index; peak memory \d+ MB',
            r'\d+ bytes a row when filled, \d+ when optimized, \d+ without older versions, 64 of them the vector',
            *(
                rf'gallery, {name} +recall 1\.0000 .*ms a query .*peak memory \d+ MB.*'
                for name in ('exact', 'index', 'filter, exact')
            ),
            r'numpy, memory-mapped +recall 1\.0000 .*ms a query; \d+ MiB',
        ],
    ),
    'gallery_parts.py': (
        '--images 2 --rows 40',
        [
            r'decoding once: [\d.]+ ms an image, twice: [\d.]+ ms; ratio [\d.]+',
            r'info of 40 rows: \d+\.\d\d s',
        ],
    ),
    'clustering.py': (
        '--vehicles 12 --width 64 --thresholds 0.6 --repeats 2',
        [
            r'48 tracks of 12 vehicles, 240 images, read in \d+\.\d\d s; \d+ pairs seen by one camera at one time; '
            r'\d+ bytes an image on the disk',
            *(
                rf'threshold 0\.600, {name} +precision [\d.]+   recall [\d.]+   F1 [\d.]+   \d+ vehicles'
                for name in ('cannot-link', 'without', 'scipy')
            ),
            *(rf'48 tracks x 64, cannot-link / {name} without{RATIO}' for name in ('scipy', 'scikit-learn')),
        ],
    ),
    'tracklets.py': (
        '--data {data} --model dpa_resnet18 --random --image-size 64 --cache {out}',
        [
            r'toy: 6 vehicles with 5 images before the gallery \(median\), 18 images and 6 tracks in the gallery',
            *(
                rf' +{name} +[\d.]+ / [\d.]+ +[\d.]+ / [\d.]+ +[\d.]+ / [\d.]+'
                for name in (
                    'the (first|third|fifth|last) image',
                    'mean of the first [35]',
                    'mean of all(, equal weights)?',
                )
            ),
        ],
    ),
    'color_norm.py': (
        '--model dpa_resnet18 --image-size 64',
        [rf'toy, color_norm={on}: mAP \d+\.\d\d, Rank-1 \d+\.\d\d' for on in (False, True)],
    ),
    'int8.py': (
        '--model dpa_resnet18 --image-size 64 --min-cosine 0.5',
        [
            r'dpa_resnet18, int8: \d+\.\d MB, cosine to float32 0\.\d+ on average, 0\.\d+ at least',
            *(rf'toy, {name}: mAP \d+\.\d\d, Rank-1 \d+\.\d\d' for name in ('float32', 'int8')),
        ],
    ),
    'ranking.py': (
        '--shrink 400 --repeats 2',
        [rf'{name}, \d+ x \d+ x 2048{RATIO}' for name in ('veri-uav', 'vru-small', 'vru-large', 'rerank')],
    ),
    'loop.py': ('--pixels 32 --batch 16 --batches 2 --pairs 2', [rf'dpa_resnet18, 16 x 32 px, .*images/s{RATIO}']),
    'synth.py': (
        '--pixels 48 --vehicles 1 --images 6 --pairs 2',
        [
            rf'rendering / embree, \d+ k primary rays an image{RATIO}',
            r'\d+ images of 48 px, \d+ processes .*images/s.*',
        ],
    ),
    'synth_difficulty.py': (
        '--ids 8 --images-per-id 8',
        [r'color histogram +mAP +\d+\.\d %  Rank-1 +\d+\.\d % .*', r'raw 32 x 32 pixels +mAP .*'],
    ),
    'imagenet_start.py': (
        '--out {out} schedule.epochs=1 schedule.warmup_steps=0 batch.per_epoch=2 data.image_size=32 '
        'data.workers=0 run.tensorboard=false',
        [rf'toy, {start}: mAP \d+\.\d, Rank-1 \d+\.\d' for start in ('random', 'imagenet')],
    ),
    'recipes.py': (
        '--data {data} --out {out} --only strong --only triplet model.name=dpa_resnet18 model.init_from=null '
        'data.image_size=32 batch.size=16 schedule.epochs=1 schedule.warmup_epochs=0 data.workers=0 '
        'run.tensorboard=false',
        [r'\| strong \| 0 \| [\d.]+ \| [\d.]+ \| [\d.]+ \|', r'\| triplet \| 0 \| .*'],
    ),
}


def test_every_benchmark_has_a_smoke_test_and_make_bench_runs_all():
    scripts = {path.name for path in FOLDER.glob('*.py')} - {'embedded.py', 'timing.py'}
    assert scripts == set(SMOKE)
    make = (PROJECT / 'Makefile').read_text(encoding='utf-8')
    assert {name for name in scripts if f'benchmarks/{name}' in make} == scripts


@pytest.mark.slow
@pytest.mark.parametrize('script', SMOKE)
def test_benchmark_prints_its_figures(tmp_path, script):
    data = draw_data_set(tmp_path / 'toy', 12, 8, size=32)
    options, expected = SMOKE[script]
    words = shlex.split(options.format(data=data, out=tmp_path / 'out'))
    done = subprocess.run(
        [sys.executable, FOLDER / script, *words],
        cwd=tmp_path,
        env={**os.environ, 'HF_HUB_OFFLINE': '1'},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for pattern in expected:
        assert re.search(f'^{pattern}$', done.stdout, flags=re.M), f'{pattern} is not in:\n{done.stdout}'
