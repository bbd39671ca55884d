"""From a configuration to a record, alone or in grids."""
