"""Reports on a run, finished or running: its record, figures, HTML report, model card, live view.

Reads only files of the working folder, without torch, also while the run is writing them.
"""
