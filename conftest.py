"""For all tests, wherever they lie: the marker ``guest`` and where such tests run."""

pytest_plugins = ["pytest_guest"]
