"""The page that shows a gallery in a browser: `timm-dpa app`."""
