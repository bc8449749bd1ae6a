"""Embeddings: from images in any form, embeddings files, search and export."""
