"""Training of the demo model: synthetic speech with exact word times, one trainer, export, evaluation.

Nothing of the service imports this package; it imports the worker's model so that there is one definition of it.
"""
