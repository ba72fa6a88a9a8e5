"""What a person looks at afterwards, or meanwhile: everything known about a run, figures, the page, the model card.

Only files of the working folder are read, without torch, also while the run writes them.
"""
