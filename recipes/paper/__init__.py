"""Tables of the paper's kind, one command each, for a machine with the benchmarks' pictures and a GPU."""
