"""Training and evaluation of vehicle re-identification; installed as `timm_dpa.train`."""
