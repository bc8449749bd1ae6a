"""`python -m timm_dpa.cli`: what torchrun starts."""

import sys

from timm_dpa.cli.main import main

if __name__ == '__main__':
    sys.exit(main())
