"""How long the fuzz tests run: about ten minutes on two cores; TIMM_DPA_FUZZ=10 is ten times as many examples."""

import os

EXAMPLES = int(100 * float(os.environ.get('TIMM_DPA_FUZZ', '1')))
