"""Sphinx extensions of this site, each for one idea; docs/conf.py lists them."""
