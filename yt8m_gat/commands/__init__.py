"""The commands: flags to config to one call of `pipeline`; the only place of absl flags."""
