"""The one trainer: BPR with Adam and early stopping, for every method and backbone."""
