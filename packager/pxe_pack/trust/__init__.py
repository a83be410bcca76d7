"""What nodes trust: the public keys in the image, and the signatures of configurations, by minisign."""
