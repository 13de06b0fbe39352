"""The commands: each turns flags into one call of `pipeline`; absl flags are used only here."""
