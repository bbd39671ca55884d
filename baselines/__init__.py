"""The methods that BACO is compared with, one file per family; README.md beside this file lists them."""
