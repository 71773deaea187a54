"""What operators run before they buy machines: load generator, null store, peers, reports."""
