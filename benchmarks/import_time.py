"""Time of `import timm_dpa` relative to that of `import timm`, each in a new process.

python benchmarks/import_time.py [--repeats 15]
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from timing import paired_ratio, show


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--repeats', type=int, default=15)
    args = parser.parse_args()

    def run(statement: str) -> None:
        subprocess.run([sys.executable, '-c', statement], check=True)

    ratio = paired_ratio(lambda: run('import timm_dpa'), lambda: run('import timm'), args.repeats)
    show('import timm_dpa / import timm', ratio, 'at most 1.10')


if __name__ == '__main__':
    main()
