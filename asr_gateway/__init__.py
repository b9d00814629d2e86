"""The gateway process: owns connections and sessions. No torch."""
