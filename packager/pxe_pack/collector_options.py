"""What is said of the collector where its libraries need not be installed: apart, so that serving alone needs none."""

HOW_TO_INSTALL = "install '.[serve]' with pip in a clone, or the release's wheel as 'FILE.whl[serve]'"
