"""Gradio, imported so that it neither reports its use nor looks for anything on other hosts."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

__all__ = ['FOLDER', 'gr']


def _own_folder() -> str:
    folder = tempfile.mkdtemp(prefix='timm_dpa_page_')  # readable by this user only
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


# what Gradio reads when it is imported
os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
#: where uploads and exports lie until the process ends
FOLDER = os.environ.setdefault('GRADIO_TEMP_DIR', '') or _own_folder()
os.environ['GRADIO_TEMP_DIR'] = FOLDER

try:
    import gradio as gr
except ImportError as error:
    raise ImportError(f"the page needs Gradio: pip install 'timm-dpa[app]' ({error})") from error
