"""What crosses the bus: subjects, streams and messages, each spelled once."""
