"""Builds the package; all that is fixed stands in pyproject.toml."""

from setuptools import find_packages, setup

# Folders at the top of the tree that an installed package holds, see baco/resources.py.
RESOURCES = {"baco.conf": "conf", "baco.published": "results/reference"}

setup(
    packages=[*find_packages(include=["baco*", "baselines*"]), *RESOURCES],
    package_dir=RESOURCES,
    include_package_data=False,  # only what the next line names
    package_data={"baco.conf": ["**/*.yaml"], "baco.published": ["*.csv"]},
)
