"""The page of timm-dpa as a Hugging Face Space: rendered vehicles, or the gallery that the variable GALLERY names."""

import os

from timm_dpa.cli.app import make_page
from timm_dpa.cli.main import make_parser
from timm_dpa.gallery.page.layout import make_blocks, options

words = ['app', '--max-upload', '20', '--cache', os.environ.get('PAGE_CACHE', 'cache')]
for option, variable in (('--gallery', 'GALLERY'), ('--model', 'MODEL')):
    if os.environ.get(variable):
        words += [option, os.environ[variable]]
page = make_page(make_parser().parse_args(words))
demo = make_blocks(page)
demo.queue(max_size=64, api_open=False)

if __name__ == '__main__':
    demo.launch(**options(page))
