"""The command line `timm-dpa`: a file for each command."""
