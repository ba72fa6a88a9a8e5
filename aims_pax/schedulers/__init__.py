"""Batch schedulers: their common interface (`base`), the list of all schedulers and our own job (`registry`)."""
