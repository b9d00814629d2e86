"""The only place for torch: the model, its checkpoints, one step."""
