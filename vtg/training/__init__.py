"""The parts of training: data and targets, batches, validation, the log, and what a stopped run is gone on from."""
