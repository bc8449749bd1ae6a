"""The Hugging Face Hub: publish trained models, say which exist, and convert checkpoints of other packages."""
