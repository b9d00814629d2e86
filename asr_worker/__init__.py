"""The worker process: owns slots and one batched model on one device."""
