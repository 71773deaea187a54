"""The commands of `clipkeep bench`: each module reads options, runs a bench and shows what came of it."""
