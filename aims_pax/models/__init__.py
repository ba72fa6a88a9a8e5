"""Kinds of models, one folder each, and the code they share."""
