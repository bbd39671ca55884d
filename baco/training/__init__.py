"""The one trainer: Adam on any loss, with early stopping, for every method and backbone."""
