"""Embeddings: from images in any form to vectors, files of them, search and export."""
