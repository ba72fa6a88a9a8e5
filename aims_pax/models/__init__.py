"""Kinds of models, one folder each, and what all of them use."""
