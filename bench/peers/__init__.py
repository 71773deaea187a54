"""What people use or write instead. Each module holds a peer and what starts it (see `bench.servers`)."""
