"""Whatever can step a batch of audio: our model, and the published packages beside it."""
